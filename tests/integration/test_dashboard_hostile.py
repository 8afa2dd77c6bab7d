"""
Texts that are scripts, queries, paths and templates: they stand in pages as they were written.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from starlette.types import ASGIApp

from allele_mlflow.dashboard.addresses import api_path, figure_path, fill
from allele_mlflow.dashboard.catalogue import PAGES
from tests.dashboard_tools import dashboard_of, send
from tests.hostile_store import Elements, HostileStore, hostile_texts, make_hostile_store

TEXTS = 5000


@pytest.fixture(scope="module")
def hostile(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> HostileStore:
    """
    A store with so many texts.
    """
    return make_hostile_store(empty_store, tmp_path_factory.mktemp("hostile"), texts=TEXTS)


@pytest.fixture(scope="module")
def app(hostile: HostileStore) -> ASGIApp:
    """
    Its dashboard.
    """
    return dashboard_of(hostile.path)


def params_of(path: str, hostile: HostileStore) -> list[dict[str, str]]:
    """
    The values of a page's path: every second run, which takes long enough.
    """
    if "{name}" in path:
        return []  # the registry's: tests/integration/test_dashboard_registry.py
    if "{experiment_id}" in path:
        return [{"experiment_id": hostile.experiment_id}]
    if path.startswith("/runs/"):
        return [{"run_id": run_id} for run_id in [*hostile.run_ids[::2], hostile.parent_id]]
    return [{"run_id": hostile.parent_id}] if "{run_id}" in path else [{}]


@pytest.mark.slow
def test_every_page_over_hostile_texts(hostile: HostileStore, app: ASGIApp) -> None:
    """
    Every page and API is there over 5,000 hostile texts: no server error, no foreign element, no
    handler, no address but ours.
    """
    for page in PAGES:
        for params in params_of(page.path, hostile):
            query = "?rows=500" if page.knobs.has_pages else ""
            answer = send(app, fill(page.path, params) + query)
            assert answer.status_code in (200, 400), (page.name, params, answer.text)
            assert Elements(answer.text).problems == []
            told = send(app, fill(api_path(page.path), params) + query)
            assert told.status_code == answer.status_code
            assert isinstance(msgspec.json.decode(told.content), dict)


def test_every_figure_over_hostile_texts(hostile: HostileStore, app: ASGIApp) -> None:
    """
    Figures are JSON in which no text is markup that plotly would read.
    """
    for page in PAGES:
        for params, name in product(params_of(page.path, hostile)[:1], page.figures):
            path = fill(figure_path(page.path), {**params, "figure": name})
            answer = send(app, path)
            assert answer.status_code in (200, 204, 400), (path, answer.text)
            if answer.status_code == 200:
                spec = msgspec.json.encode(msgspec.json.decode(answer.content)["data"]).decode()
                assert not re.search(r"<(?!br>|b>|/b>|span|/span|i>|/i>)[a-zA-Z/]", spec), path


def test_hostile_addresses(hostile: HostileStore, app: ASGIApp) -> None:
    """
    A hostile text in the place of any id or option is answered with 400 or 404, or finds nothing;
    never with a server error.
    """
    texts = hostile_texts(seed=11)
    for page in PAGES:
        for _ in range(8):
            params = {name: next(texts) or "x" for name in page.param_names}
            if params:
                assert send(app, fill(page.path, params)).status_code in (400, 404)
        for params in params_of(page.path, hostile)[:1]:
            for name in page.knobs.names:
                for _ in range(3):
                    value = quote(next(texts), safe="")
                    answer = send(app, f"{fill(page.path, params)}?{name}={value}")
                    assert answer.status_code in (200, 400), (page.name, name, value, answer.text)
                    assert Elements(answer.text).problems == []
