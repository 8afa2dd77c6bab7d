"""
The addresses that the dashboard is asked for: every page of its catalogue, and some that are more
work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from allele_mlflow.dashboard.addresses import ServerAddresses
from allele_mlflow.dashboard.catalogue import PAGES
from allele_mlflow.dashboard.pages.page import Page
from allele_mlflow.dashboard.views import parse_view
from benchmarks.dashboard_store import MODEL, OBJECTIVE, SUITE, DashboardStore

#: What a page wants to be told, besides the values in its path.
USUAL: dict[str, tuple[tuple[str, str], ...]] = {
    "version_diff": (("one", "1"), ("other", "2")),
}
#: More of some pages: a name, the page, and its query.
MORE: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("runs by a metric", "runs", (("sort", f"-metric.{OBJECTIVE}"),)),
    ("runs by a filter", "runs", (("filter", "mutation_rate < 0.1"),)),
    ("runs in groups", "runs", (("group", "population_size"), ("metric", OBJECTIVE))),
    ("suite in groups", "suite", (("group", "mutation_rate"),)),
    ("suite by a filter", "suite", (("filter", "mutation_rate < 0.1"),)),
    ("trend, sensitive", "trend", (("preset", "sensitive"), ("show", "all"))),
    ("earlier advice", "recommendations", (("part", "ledger"),)),
    ("predictions", "recommendations", (("part", "predictions"),)),
    ("retention, all files", "retention", (("files", "all"),)),
    (
        "compare 200 runs",
        "compare",
        (("base", f"{SUITE}~1[allele_repeat < 5]"), ("with", f"{SUITE}[allele_repeat < 5]")),
    ),
    ("compare 400 runs", "compare", (("base", f"{SUITE}~1"), ("with", SUITE))),
    (
        "compare 4 x 200 runs",
        "compare",
        (("base", f"{SUITE}~1"), *(("with", f"{SUITE}~{back}") for back in (2, 3, 0))),
    ),
)


class AskedView(NamedTuple):
    """
    A page in a view: its own address, that of its JSON, and those of its figures.
    """

    name: str
    html: str
    json: str
    figures: tuple[str, ...]

    @property
    def paths(self) -> Iterator[tuple[str, str]]:
        """
        Each address with what it is.
        """
        yield "html", self.html
        yield "json", self.json
        for path in self.figures:
            name = path.partition("?")[0].rpartition("/")[2].removesuffix(".json")
            yield f"figure {name}", path


def asked_views(store: DashboardStore) -> list[AskedView]:
    """
    Every page once, and the rest of `MORE`; the executions of `wide` besides.
    """
    pages = {page.name: page for page in PAGES}
    suites = {"run_id": store.newest.parent_run_id}
    usual = {
        "experiment_id": store.newest.experiment_id,
        "run_id": store.run_id,
        "name": MODEL,
        "version": str(store.versions),
    }
    special = {"suite": suites, "anytime": suites}
    found = [
        _view(name, page, usual | special.get(name, {}), USUAL.get(name, ()))
        for name, page in pages.items()
    ]
    found += [
        _view(name, pages[of], usual | special.get(of, {}), pairs) for name, of, pairs in MORE
    ]
    wide = usual | {"run_id": store.wide.parent_run_id, "experiment_id": store.wide.experiment_id}
    objective = (("metric", OBJECTIVE), ("direction", "higher"))
    return [
        *found,
        _view("suite, wide", pages["suite"], wide, ()),
        _view("anytime, wide", pages["anytime"], wide, objective),
        _view("trend, wide", pages["trend"], wide, ()),
        _view("recommendations, wide", pages["recommendations"], wide, ()),
    ]


def _view(
    name: str, page: Page, params: Mapping[str, str], pairs: tuple[tuple[str, str], ...]
) -> AskedView:
    own = {one: params[one] for one in page.param_names}
    view, to = parse_view(pairs, page.knobs), ServerAddresses()
    return AskedView(
        name,
        to.page(page.path, own, view),
        to.api(page.path, own, view),
        tuple(to.figure(page.path, own, one, view) for one in page.figures),
    )
