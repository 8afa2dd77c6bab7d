"""
The dashboard's pages of the registry: what they say is what the registry and its gates say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from starlette.types import ASGIApp

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.addresses import api_path, figure_path, fill
from allele_mlflow.dashboard.catalogue import PAGES
from allele_mlflow.dashboard.export import export_pages
from allele_mlflow.dashboard.source import Source
from allele_mlflow.registry import Stage
from allele_mlflow.registry.promotion import judge
from tests.dashboard_tools import dashboard_of, json_of, send
from tests.hostile_store import Elements
from tests.registry_dashboard import (
    HOSTILE,
    ODD_MODEL,
    POLICIES,
    Place,
    opened_place,
    version_path,
)


@pytest.fixture(scope="module")
def place(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    A registry and its runs; no test here changes it.
    """
    with opened_place(tmp_path_factory.mktemp("registry"), empty_store) as found:
        yield found


@pytest.fixture(scope="module")
def app(place: Place) -> ASGIApp:
    """
    The dashboard, read only.
    """
    return place.app(may_write=False)


def paths_of(name: str, version: int) -> Iterator[str]:
    """
    Each page of the registry, of a model and a version.
    """
    model = f"/registry/{quote(name, safe='')}"
    yield from ("/registry", model, f"{model}/journal", f"{model}/diff", f"{model}/rollback")
    yield from (version_path(version, name, *more) for more in ((), ("gate",), ("archive",)))


@pytest.mark.parametrize(
    ("name", "version"), [("persona", 2), ("mutation", 1), (ODD_MODEL, 1)], ids=str
)
def test_every_page_is_there(app: ASGIApp, name: str, version: int) -> None:
    """
    Each page and API answers, with one heading, nothing foreign in it and no form that changes
    anything, whatever the model and its traits are called.
    """
    for path in paths_of(name, version):
        answer = send(app, path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.text.count("<h1>") == 1
        assert 'method="post"' not in answer.text
        assert Elements(answer.text).problems == []
        assert HOSTILE not in answer.text
        assert isinstance(json_of(app, f"/api{path}.json"), dict)


def test_models_and_holders(app: ASGIApp) -> None:
    """
    The list has each model, what it keeps, and the versions that hold its stages.
    """
    rows = json_of(app, "/api/registry.json")["models"]["rows"]
    named = {row["name"]: row for row in rows}
    assert set(named) == {"persona", "mutation", ODD_MODEL}
    row = named["persona"]
    assert (row["kind"], row["versions"], row["problem"]) == ("genome", 4, None)
    assert (row["production"], row["candidate"], row["staging"]) == (1, 2, None)
    found = json_of(app, "/api/registry.json?find=MUTA")["models"]["rows"]
    assert [row["name"] for row in found] == ["mutation"]


def test_a_model_as_it_stands(app: ASGIApp, place: Place) -> None:
    """
    Stages with who put a version there and why, versions with fitness and interval, the newest
    entries, and the head of the journal.
    """
    found = json_of(app, "/api/registry/persona.json")
    chain = place.registry().history("persona")
    assert (found["head"], found["entry_count"]) == (chain.head, len(chain.entries))
    production = found["stages"][0]
    assert (production["stage"], production["version"]) == ("production", 1)
    assert (production["by"], production["reason"]) == ("ada", "the first")
    newest, *_, first = found["versions"]["rows"]
    assert (newest["version"], newest["mean"]) == (4, None)
    assert (first["version"], first["runs"]) == (1, 16)
    assert first["low"] < first["mean"] < first["high"]
    assert found["entries"][0]["action"] == "promote"
    assert [row["hash"] for row in found["entries"]] == list(chain.hashes[::-1])


def test_a_model_as_it_stood(app: ASGIApp, place: Place) -> None:
    """
    At the time of an entry the model stands as that entry left it; before the first nobody holds
    anything.
    """
    entries = place.registry().history("persona").entries
    found = json_of(app, f"/api/registry/persona.json?at={quote(entries[0].time)}")
    assert [row["version"] for row in found["versions"]["rows"]] == [1]
    found = json_of(app, "/api/registry/persona.json?at=2020-01-01")
    assert [row["version"] for row in found["stages"]] == [None] * 4
    answer = send(app, "/registry/persona?at=yesterday")
    assert (answer.status_code, "is no time" in answer.text) == (400, True)


def test_the_journal_in_pages(app: ASGIApp) -> None:
    """
    All entries, newest first, found by person, reason or stage.
    """
    found = json_of(app, "/api/registry/persona/journal.json?rows=2&page=2")["entries"]
    assert (found["row_count"], [row["number"] for row in found["rows"]]) == (5, [3, 2])
    found = json_of(app, "/api/registry/persona/journal.json?find=THE+FIRST")["entries"]
    assert [row["action"] for row in found["rows"]] == ["promote"]


def test_a_version_with_all_that_is_known(app: ASGIApp, place: Place) -> None:
    """
    Traits, fitness, lineage, who used it, and of its promotion what the gate saw, its hash checked.
    """
    found = json_of(app, f"/api{version_path(1)}.json")
    assert [(one["where"], one["value"]) for one in found["parts"]] == [
        ("creativity", 0.5),
        ("empathy", 0.1),
    ]
    assert (found["stage"], found["stages_held"]) == ("production", ["production"])
    assert [(one["role"], one["version"]) for one in found["relatives"]] == [("child", 2)]
    assert [one["reference"] for one in found["uses"]["rows"]] == ["persona@production"]
    promoted = found["transitions"][0]
    assert promoted["entry"]["action"] == "promote"
    rules = [(one["rule"], one["is_passed"]) for one in promoted["evidence"]["checks"]]
    assert ("min_runs", True) in rules
    assert promoted["evidence"]["runs"] == 16
    entry = place.registry().history("persona").entries[-1]
    assert promoted["evidence"]["sha256"] == entry.evidence


def test_a_component_with_its_files(app: ASGIApp) -> None:
    """
    The parts of its document by their path, and its files with size and hash.
    """
    found = json_of(app, f"/api{version_path(1, 'mutation')}.json")
    assert found["kind"] == "operator"
    assert ("$.layers[1]", 5) in [(one["where"], one["value"]) for one in found["parts"]]
    assert [(one["path"], one["size_bytes"]) for one in found["files"]] == [("weights.csv", 24)]


def test_two_versions_beside_each_other(app: ASGIApp) -> None:
    """
    What differs, by how much, and a way to compare what measured them; a stage names its holder.
    """
    found = json_of(app, "/api/registry/persona/diff.json?one=production&other=3")
    assert (found["one"], found["other"]) == (1, 3)
    (change,) = found["changes"]["rows"]
    assert (change["where"], change["before"], change["after"]) == ("empathy", "0.1", "0.3")
    assert change["delta"] == pytest.approx(0.2)
    text = send(app, "/registry/persona/diff?one=production&other=3").text
    (address,) = re.findall(r'href="(/compare\?[^"]*)"', text)
    assert send(app, address.replace("&amp;", "&")).status_code == 200


@pytest.mark.parametrize("version", [2, 3, 4])
def test_gate_says_what_the_gate_says(app: ASGIApp, place: Place, version: int) -> None:
    """
    Each rule, whether it passed and by how much, as a dry run of `promote`; nothing is moved.
    """
    before = place.registry().history("persona").head
    found = json_of(app, f"/api{version_path(version)}/gate.json?stage=production")
    judged = judge(
        *(place.registry(), place.settings, "persona", version, Stage.PRODUCTION),
        policies=POLICIES,
    )
    told = [(one["rule"], one["is_passed"], one["said"]) for one in found["verdict"]["checks"]]
    assert told == [(one.rule, one.is_passed, one.said) for one in judged.checks]
    assert (found["verdict"]["is_passed"], found["holder"]) == (version == 2, 1)
    assert place.registry().history("persona").head == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn(app: ASGIApp, scheme: str) -> None:
    """
    Fitness by version and traits are drawn; where nobody has measured anything, nothing is.
    """
    found = json_of(app, f"/api/registry/persona/figures/fitness.json?scheme={scheme}")
    assert found["note"].startswith("3 versions")
    found = json_of(app, f"/api{version_path(2)}/figures/traits.json?scheme={scheme}")
    assert "2 traits, 2 genomes" in found["note"]
    assert "production" in found["data"][0]["name"]
    assert send(app, "/api/registry/mutation/figures/fitness.json").status_code == 204
    odd = json_of(app, f"/api{version_path(1, ODD_MODEL)}/figures/traits.json?scheme={scheme}")
    assert "<img" not in msgspec.json.encode(odd["data"]).decode()


@pytest.mark.parametrize(
    "path",
    [
        "/registry/nobody",
        "/registry/persona/versions/9",
        "/registry/persona/versions/0",
        "/registry/persona/versions/-1",
        "/registry/persona/versions/%D9%A3",
        "/registry/persona/versions/99999999999999999999",
        "/registry/persona%2Fversions",
        "/registry/..%2F..",
        "/registry/persona'%20OR%20'1'='1",
        "/registry/persona/diff?one=staging",
        "/registry/persona/diff?one=7",
    ],
)
def test_what_is_not_there(app: ASGIApp, path: str) -> None:
    """
    A model or version that is not there is told so.
    """
    assert send(app, path).status_code == 404
    plain, _, query = path.partition("?")
    if "%2F" not in path:
        assert send(app, f"/api{plain}.json?{query}").status_code == 404


def test_the_registry_is_named(app: ASGIApp) -> None:
    """
    The list of models says which registry it is of, without a password.
    """
    told = json_of(app, "/api/registry.json")["registry"]
    assert told.startswith("sqlite:///")
    assert f"<code>{told}</code>" in send(app, "/registry").text
    uri = "postgresql://ada:geheim@db/registry"
    source = Source(settings_module.load({"model_registry_uri": uri}, environ={}))
    assert "db/registry" in source.registries.address
    assert "geheim" not in source.registries.address


def test_no_registry_is_made_by_looking(tmp_path: Path, empty_store: Path) -> None:
    """
    Where there is no registry yet, or it is switched off, the pages say so, and none is made.
    """
    store = tmp_path / "mlflow.db"
    store.write_bytes(empty_store.read_bytes())
    registry = tmp_path / "none.db"
    settings = settings_module.load(
        {"tracking_uri": f"sqlite:///{store}", "model_registry_uri": f"sqlite:///{registry}"},
        environ={},
    )
    problem = Source(settings).registries.problem()
    assert problem is not None
    assert "there is no registry" in problem
    assert not registry.exists()
    off = settings_module.load({"model_registry_enabled": False}, environ={})
    assert "switched off" in str(Source(off).registries.problem())
    answer = send(dashboard_of("offline"), "/registry/persona")
    assert answer.status_code == 404


def test_description_knows_every_page(app: ASGIApp) -> None:
    """
    Pages of the registry, comparisons and clean-ups are described, with the schema of what they
    say.
    """
    described = json_of(app, "/api/openapi.json")["paths"]
    for page in PAGES:
        assert api_path(page.path) in described
        for _ in page.figures:
            assert figure_path(page.path) in described
    (given,) = [
        one["schema"]
        for one in described["/api/compare.json"]["get"]["parameters"]
        if one["name"] == "with"
    ]
    assert given["type"] == "array"


def test_a_copy_as_files(place: Place, tmp_path: Path) -> None:
    """
    A static copy has each model, journal and version, every link in it leads to a file, and no form
    is in it.
    """
    names = {"models", "model", "journal", "version"}
    pages = [page for page in PAGES if page.name in names]
    export_pages(place.source(), pages, tmp_path / "site")
    files = {file.name: file.read_text() for file in (tmp_path / "site").glob("*.html")}
    assert {"registry.html", "registry-persona.html", "registry-persona-versions-2.html"} <= {
        *files
    }
    for text in files.values():
        addresses = re.findall(r' (?:href|src)="([^"#]*)', text)
        assert [one for one in addresses if one not in ("data:,", "") and one not in files] == [
            one for one in addresses if one.startswith("static/")
        ]
        assert "<form" not in text


def test_paths_are_filled_safely() -> None:
    """
    No name of a model can leave its place in an address.
    """
    path = fill("/registry/{name}/versions/{version}", {"name": "a/../b?c#d", "version": "1"})
    assert path == "/registry/a%2F..%2Fb%3Fc%23d/versions/1"
