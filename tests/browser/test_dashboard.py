"""
The dashboard as a person sees it: in a real browser, over a store of a suite and one of hostile
texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.serving import DashboardServer, open_socket
from allele_mlflow.dashboard.source import Source
from allele_mlflow.tracking.schema import prepare_schema
from tests.browser.page_scripts import BACKGROUNDS, EXCESS_PX, FIGURES, TEXTS
from tests.browser.test_report import LEAST_CONTRAST_RATIO, LEAST_SIZE_PX
from tests.hostile_store import HostileStore, make_hostile_store
from tests.integration.runs import Station, wait_for
from tests.integration.suites import Place, document

pytestmark = [pytest.mark.slow, pytest.mark.process]

Scheme = Literal["light", "dark"]
SUITE = """
name = "seen"
benchmark = "bench:run"
repeats = 6

[matrix]
size = [1, 2, 4]

[metrics.score]
direction = "higher"
unit = "points"
objective = true

[metrics.other]
direction = "lower"
"""
BENCHMARK = """
def run(size, *, log, seed):
    with log.phase("search"):
        for step in range(6):
            log.metric("score", size * step + seed % 7, step)
    if size == 4 and seed % 5 == 0:
        raise ValueError(f"no good: {size}")
    return {"score": size * 6 + seed % 7, "other": 1 / size}
"""
#: Waits for every figure to be drawn, or to be known to have nothing to draw.
SETTLED = """
() => [...document.querySelectorAll("figure[data-figure]")].every(
  (one) => one.dataset.drawn || one.dataset.empty
)
"""
#: What browsers tell a page that breaks its own policy.
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
#: What axe does not look for: a table's name, and a region that keys can scroll.
FLAWS = """
() => {
  const flaws = [];
  for (const one of document.querySelectorAll("table"))
    if (!one.caption) flaws.push("a table without a caption");
  for (const one of document.querySelectorAll(".scroll"))
    if (one.tabIndex !== 0) flaws.push("a region that keys cannot scroll");
  return flaws;
}
"""


@dataclass
class Visit:
    """
    A browser inside a dashboard, and what has gone wrong since.
    """

    base: str
    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """
        Open a path and wait for its figures.
        """
        self.page.goto(self.base + path, wait_until="load")
        self.page.wait_for_function(SETTLED)
        return self.page

    def violations(self) -> list[str]:
        """
        What the page did against its policy.
        """
        found: list[str] = self.page.evaluate("() => window.violations")
        return found


Enter = Callable[..., Visit]


@contextmanager
def served(uri: str, spools: list[Path] | None = None) -> Iterator[Callable[[], str]]:
    """
    A dashboard of a store in a thread; gives an address that lets one browser in.
    """
    settings = settings_module.load({"tracking_uri": uri}, environ={})
    tokens: list[str] = []
    listening = open_socket("127.0.0.1", 0)
    server = DashboardServer(
        Source(settings, spools=spools or []),
        listening,
        user="ada",
        may_write=False,
        on_token=tokens.append,
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield lambda: server.address
    finally:
        server.stop()
        thread.join(30)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Callable[[], str], str]]:
    """
    The dashboard of a suite that ran, and the id of its run.
    """
    place = Place(tmp_path_factory.mktemp("seen"))
    (place.folder / "seen.toml").write_text(SUITE)
    (place.folder / "bench.py").write_text(BENCHMARK)
    done = place.run("run", "seen.toml", "--json")
    run_id = document(done)["run_id"]
    with served(f"sqlite:///{place.folder / 'mlflow.db'}") as address:
        yield address, run_id


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Callable[[], str], HostileStore]]:
    """
    The dashboard of 200 hostile texts.
    """
    folder = tmp_path_factory.mktemp("hostile")
    prepare_schema(folder / "empty.db")
    store = make_hostile_store(folder / "empty.db", folder, texts=200)
    with served(f"sqlite:///{store.path}") as address:
        yield address, store


@pytest.fixture
def enter(chromium: Browser) -> Iterator[Enter]:
    """
    Lets a browser in, in a profile of its own.
    """
    with ExitStack() as closing:

        def open_dashboard(
            address: Callable[[], str],
            *,
            width_px: int = 1200,
            scheme: Scheme = "light",
            scripts: bool = True,
        ) -> Visit:
            context = chromium.new_context(
                viewport={"width": width_px, "height": 800},
                color_scheme=scheme,
                java_script_enabled=scripts,
            )
            closing.callback(context.close)
            context.add_init_script(NOTE_VIOLATIONS)
            given = address()
            visit = Visit(given.partition("/?")[0], context, context.new_page())
            _listen(visit)
            visit.page.goto(given, wait_until="load")
            return visit

        yield open_dashboard


def _listen(visit: Visit) -> None:
    def note_dialog(dialog: Any) -> None:
        visit.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page = visit.page
    page.on("dialog", note_dialog)
    page.on("pageerror", lambda error: visit.problems.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: (
            visit.problems.append(f"{said.type}: {said.text}")
            if said.type in ("error", "warning")
            else None
        ),
    )


def paths_of(run_id: str) -> list[str]:
    """
    A path of each page of the suite's dashboard.
    """
    return [
        "/",
        "/experiments/1",
        "/experiments/1/runs",
        "/experiments/1/trend",
        "/experiments/1/recommendations",
        f"/executions/{run_id}",
        f"/executions/{run_id}/anytime",
        f"/runs/{run_id}",
        "/alerts",
        "/delivery",
    ]


def hard_to_read(page: Page) -> list[dict[str, Any]]:
    """
    The texts that are too small or too faint.
    """
    texts: list[dict[str, Any]] = page.evaluate(TEXTS)
    return [
        one
        for one in texts
        if one["contrast_ratio"] < LEAST_CONTRAST_RATIO or one["size_px"] < LEAST_SIZE_PX
    ]


def kept_out(page: Page) -> list[str]:
    """
    What axe finds that keeps people out.
    """
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in found]


def test_the_token_is_gone_from_the_address(
    enter: Enter, seen: tuple[Callable[[], str], str]
) -> None:
    """
    Inside, neither the address nor the history has the token.
    """
    visit = enter(seen[0])
    assert visit.page.url == f"{visit.base}/"
    assert "Suites" in visit.page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1440, 390])
def test_every_page_looks_right(
    enter: Enter, seen: tuple[Callable[[], str], str], scheme: Scheme, width_px: int
) -> None:
    """
    Wide and narrow, light and dark: no page scrolls sideways, every text can be read, figures have
    the page's colour, tables and controls their names; nothing fails and nothing breaks the policy.
    """
    visit = enter(seen[0], width_px=width_px, scheme=scheme)
    for path in paths_of(seen[1]):
        page = visit.go(path)
        assert page.evaluate(EXCESS_PX) == 0, path
        assert hard_to_read(page) == [], path
        assert page.evaluate(FLAWS) == [], path
        assert kept_out(page) == [], path
        paper, *drawings = page.evaluate(BACKGROUNDS)
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert set(drawings) <= {paper}, path
        assert visit.violations() == [], path
    assert visit.problems == []


def test_figures_are_drawn(enter: Enter, seen: tuple[Callable[[], str], str]) -> None:
    """
    The pages of an execution, its searches and a run draw what they have.
    """
    visit = enter(seen[0])
    run = visit.go("/experiments/1/runs").get_by_role("link", name="size=1").first
    run_path = run.get_attribute("href")
    wanted = {
        f"/executions/{seen[1]}": 3,
        f"/executions/{seen[1]}/anytime": 1,
        str(run_path): 2,
    }
    for path, count in wanted.items():
        page = visit.go(path)
        drawn = [one for one in page.evaluate(FIGURES) if one["width_px"] > 0]
        assert len(drawn) == count, path
        assert all(one["points"] > 0 or len(one["labels"]) > 3 for one in drawn), path


def test_filter_sort_and_pages_by_hand(enter: Enter, seen: tuple[Callable[[], str], str]) -> None:
    """
    A filter is typed, a column clicked, a page turned; each is in the address, and back leads back.
    """
    visit = enter(seen[0])
    page = visit.go(f"/executions/{seen[1]}")
    cells = page.locator("table").first.locator("tbody th")
    assert cells.count() == 3
    page.get_by_label("Filter").fill("size < 4")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**filter=size**")
    page.wait_for_function(SETTLED)  # a figure that is drawn moves what is below it
    assert page.locator("table").first.locator("tbody th").all_inner_texts() == ["size=2", "size=1"]
    page.get_by_role("link", name="Median").click()
    page.wait_for_url("**sort=median**")
    head = page.locator("th[aria-sort=ascending]")
    assert head.inner_text().startswith("Median")
    assert page.locator("table").first.locator("tbody th").all_inner_texts() == ["size=1", "size=2"]
    page.go_back()
    page.go_back()
    assert page.locator("table").first.locator("tbody th").count() == 3
    visit.go("/experiments/1/runs?rows=10")
    page.get_by_role("link", name="Next").click()
    page.wait_for_url("**page=2**")
    assert "11 to 19 of 19 runs" in page.locator(".pager").inner_text()
    assert visit.problems == []


def test_keys_alone_are_enough(enter: Enter, seen: tuple[Callable[[], str], str]) -> None:
    """
    Tab leads past the bar to the content, and each stop can be seen; Enter follows a link.
    """
    visit = enter(seen[0])
    page = visit.go("/")
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the content"
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    for _ in range(20):
        page.keyboard.press("Tab")
        style = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none"
        if page.locator(":focus").inner_text() == "allele_benchmark_seen":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments/1")


def test_pages_are_whole_without_scripts(enter: Enter, seen: tuple[Callable[[], str], str]) -> None:
    """
    Without JavaScript the numbers are there as tables, and the form works.
    """
    visit = enter(seen[0], scripts=False)
    page = visit.page
    page.goto(f"{visit.base}/executions/{seen[1]}")
    assert page.locator("table").first.locator("tbody tr").count() == 3
    assert page.locator("figure:visible").count() == 0
    page.get_by_label("Group by").fill("size")
    page.get_by_role("button", name="Show").click()
    assert page.locator("h2").first.inner_text().startswith("Groups")


def test_hostile_texts_do_nothing(
    enter: Enter, hostile: tuple[Callable[[], str], HostileStore]
) -> None:
    """
    Over 200 hostile texts no dialog comes up, no script fails, no policy is broken, and nothing is
    asked of another host.
    """
    address, store = hostile
    visit = enter(address)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    base = f"/experiments/{store.experiment_id}"
    paths = [
        *("/", base, f"{base}/runs?rows=500", f"{base}/trend", f"{base}/recommendations"),
        *(f"/executions/{store.parent_id}", f"/executions/{store.parent_id}?metric=score"),
        *(f"/runs/{run_id}" for run_id in store.run_ids),
        "/alerts",
    ]
    for path in paths:
        page = visit.go(path)
        page.mouse.move(600, 400)
        assert visit.violations() == [], path
    assert visit.problems == []
    foreign = [one for one in asked if not one.startswith((visit.base, "data:", "blob:"))]
    assert foreign == []


def test_a_page_is_loaded_again_when_its_run_is_over(
    enter: Enter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """
    An open page of a run that goes on says how the run ended, at the place where it was read, and
    is loaded no more after that.
    """
    folder = tmp_path_factory.mktemp("live")
    prepare_schema(folder / "mlflow.db")
    station = Station(folder, f"sqlite:///{folder / 'mlflow.db'}")
    with served(station.tracking_uri, [folder / "spool"]) as address:
        visit = enter(address)
        loads: list[str] = []
        with station.start("live") as log:
            for step in range(5):
                log.metric("fitness", step / 8, step=step)
            wait_for(lambda: (told := station.state(log.run_uid)) and told.run_id, "the run")
            page = visit.go(f"/runs/{log.run_uid}")
            page.locator("#live").get_by_text("0.5000").first.wait_for()
            page.on("load", lambda: loads.append(page.url))
            page.set_viewport_size({"width": 1200, "height": 300})
            page.evaluate("() => window.scrollTo(0, 200)")
        page.locator("dl.facts").first.get_by_text("FINISHED").wait_for()
        page.wait_for_function(SETTLED)
        page.wait_for_function("() => window.scrollY === 200")
        page.wait_for_timeout(2_000)  # a loop would have shown by now
        assert page.locator("#live").count() == 0
    station.stop()
    assert loads == [page.url]
    assert visit.problems == []
