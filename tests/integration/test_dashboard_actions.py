"""
What forms of the dashboard do to the registry, and what they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from allele_mlflow.registry import Entry, Stage
from allele_mlflow.registry.promotion import Judged, judge
from tests.dashboard_tools import BASE, CSRF, send
from tests.registry_dashboard import HOSTILE, Place, opened_place, post, version_path

GATE, PROMOTE = version_path(2, "persona", "gate"), version_path(2, "persona", "promote")


@pytest.fixture(scope="module")
def place(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    A registry in which tests leave what they do.
    """
    with opened_place(tmp_path_factory.mktemp("registry"), empty_store) as found:
        yield found


@pytest.fixture
def app(place: Place) -> Iterator[ASGIApp]:
    """
    Ada's dashboard; version 1 holds production again afterwards, as it did before.
    """
    yield place.app()
    registry = place.registry("grace")
    if registry.standing("persona").holders.get(Stage.PRODUCTION) != 1:
        registry.promote("persona", 1, Stage.PRODUCTION, reason="as before")


def entries(place: Place) -> list[Entry]:
    """
    The journal's.
    """
    return list(place.registry().history("persona").entries)


def holder(place: Place) -> int | None:
    """
    Of production.
    """
    return place.registry().standing("persona").holders.get(Stage.PRODUCTION)


def promoted(app: ASGIApp, **fields: str) -> httpx.Response:
    """
    Version 2 to production, as the page's form says it, but for these fields.
    """
    return post(app, PROMOTE, **{"stage": "production", "holder": "1", "reason": "up", **fields})


def test_promote_and_give_back(app: ASGIApp, place: Place) -> None:
    """
    A promotion and a rollback by forms are in the journal with person, reason, who was replaced and
    what the gate saw; the pages lead on to where it can be seen.
    """
    text = send(app, GATE).text
    assert 'name="holder" value="1"' in text
    assert f'name="csrf" value="{CSRF.replace(chr(39), "&#39;")}"' in text
    answer = promoted(app, reason=f" {HOSTILE}\r\nand more ")
    assert (answer.status_code, answer.headers["location"]) == (303, version_path(2))
    made = entries(place)[-1]
    assert (made.action, made.version, made.holder, made.by) == ("promote", 2, 1, "ada")
    assert made.reason == f"{HOSTILE}\nand more"
    assert made.evidence is not None
    page = send(app, version_path(2)).text
    assert HOSTILE not in page
    assert "against_holder (not worse)" in page
    assert 'name="holder" value="2"' in send(app, "/registry/persona/rollback").text
    answer = post(
        app, "/registry/persona/rollback", stage="production", holder="2", reason="complaints"
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/registry/persona")
    made = entries(place)[-1]
    assert (made.action, made.version, made.holder, made.reason) == ("rollback", 1, 2, "complaints")


@pytest.mark.parametrize(
    ("fields", "headers", "may_write"),
    [
        ({"csrf": "guessed"}, {}, True),
        ({"csrf": ""}, {}, True),
        ({}, {"origin": "https://evil.example"}, True),
        ({}, {"origin": "null"}, True),
        ({}, {"origin": ""}, True),
        ({}, {"sec-fetch-site": "cross-site"}, True),
        ({}, {}, False),
    ],
)
@pytest.mark.parametrize("path", [PROMOTE, version_path(2, "persona", "archive")])
def test_only_our_own_pages_change_things(
    place: Place, path: str, fields: dict[str, str], headers: dict[str, str], may_write: bool
) -> None:
    """
    Without the page's secret, from another origin, or where nothing may be written, a form is
    refused with 403, and nothing is written.
    """
    before = entries(place)
    answer = send(
        place.app(may_write=may_write),
        path,
        method="POST",
        headers={"origin": BASE, **headers},
        data={
            "csrf": CSRF,
            "stage": "production",
            "holder": "1",
            "stands": "candidate",
            "reason": "mine",
            **fields,
        },
    )
    assert answer.status_code == 403
    assert entries(place) == before


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"reason": " \r\n "}, 422, "want a reason"),
        ({"reason": "x" * 1001}, 422, "at most 1,000"),
        ({"stage": "archived"}, 400, "want one of"),
        ({"stage": ""}, 400, "want one of"),
        ({"holder": "one"}, 400, "0 for nobody"),
        ({"holder": ""}, 400, "0 for nobody"),
        ({"holder": "3"}, 409, "look again"),
        ({"holder": "0"}, 409, "was held by nobody when you looked"),
    ],
)
def test_what_a_form_must_say(
    app: ASGIApp, place: Place, fields: dict[str, str], status: int, words: str
) -> None:
    """
    Without a reason, a stage, or with another holder than there is, nothing is done, and the page
    says what is wanted.
    """
    before = entries(place)
    answer = promoted(app, **fields)
    assert answer.status_code == status
    assert words in answer.text
    assert f'href="{version_path(2, "persona", "gate")}' in answer.text  # where it can be mended
    assert entries(place) == before


def test_a_rule_that_failed_is_told(app: ASGIApp, place: Place) -> None:
    """
    A version that the gate does not let through has no form, and a form for it is refused with 422
    and the rule.
    """
    text = send(app, version_path(3, "persona", "gate")).text
    assert "It cannot be promoted" in text
    assert "/promote" not in text
    before = entries(place)
    answer = post(
        app,
        version_path(3, "persona", "promote"),
        stage="production",
        holder="1",
        reason="hope",
    )
    assert answer.status_code == 422
    assert "score of size=10: worse" in answer.text
    assert entries(place) == before


def act_of_another(place: Place) -> Callable[[], None]:
    """
    Grace puts version 4 where version 1 was.
    """

    def act() -> None:
        place.registry("grace").promote("persona", 4, Stage.PRODUCTION, reason="faster")

    return act


def test_another_one_was_faster(app: ASGIApp, place: Place) -> None:
    """
    Where another one took the stage after the page was seen, promotion and rollback are refused
    with 409 and who holds it now; of the two, the other one's alone is in the journal.
    """
    act_of_another(place)()
    before = entries(place)
    answer = promoted(app)
    assert answer.status_code == 409
    assert "held by version 4 now" in answer.text
    answer = post(app, "/registry/persona/rollback", stage="production", holder="1", reason="back")
    assert answer.status_code == 409
    assert "Another one was faster" in answer.text
    assert entries(place) == before
    assert holder(place) == 4


def test_another_one_is_faster_between_gate_and_journal(
    app: ASGIApp, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same where the other one comes after the gate was asked and before the entry is written.
    """
    act = act_of_another(place)

    def judge_slowly(*given: Any, **named: Any) -> Judged:
        found = judge(*given, **named)
        act()
        return found

    monkeypatch.setattr("allele_mlflow.dashboard.pages.registry_actions.judge", judge_slowly)
    answer = promoted(app)
    assert answer.status_code == 409
    assert "look again, another one was faster" in answer.text
    assert (holder(place), entries(place)[-1].by) == (4, "grace")


def test_approval_by_another_one(app: ASGIApp, place: Place) -> None:
    """
    An approval is in the journal and opens the gate that asks for one; the author's own is refused.
    """
    gate = version_path(2, "persona", "gate") + "?stage=staging"
    assert "It cannot be promoted" in send(app, gate).text
    theirs = place.app(name="grace")
    assert "the approval of another one counts" in send(theirs, gate).text
    path = version_path(2, "persona", "approve")
    refused = post(theirs, path, stage="staging", reason="my own")
    assert (refused.status_code, "approval of another one" in refused.text) == (422, True)
    assert post(app, path, stage="staging", reason="looks right").status_code == 303
    made = entries(place)[-1]
    assert (made.action, made.stage, made.by) == ("approve", Stage.STAGING, "ada")
    assert "Promote to staging" in send(app, gate).text


def test_archive(app: ASGIApp, place: Place) -> None:
    """
    A version is archived where it stands as it was seen to; else the form is refused with 409.
    """
    path = version_path(3, "persona", "archive")
    assert 'name="stands" value="development"' in send(app, path).text
    wrong = post(app, path, stands="production", reason="old")
    assert (wrong.status_code, "stands in development" in wrong.text) == (409, True)
    assert post(app, path, stands="development", reason="old").status_code == 303
    made = entries(place)[-1]
    assert (made.action, made.version, made.reason) == ("archive", 3, "old")
    assert "It is archived already" in send(app, path).text


def test_nobody_held_it_before(app: ASGIApp, place: Place) -> None:
    """
    A rollback of a stage that nobody held before is refused with 422, and has no form.
    """
    assert "nobody to give it back to" in send(app, "/registry/mutation/rollback").text
    answer = post(app, "/registry/mutation/rollback", stage="production", holder="0", reason="back")
    assert (answer.status_code, "nobody held it before" in answer.text) == (422, True)


def test_forms_where_the_dashboard_is_mounted(place: Place, app: ASGIApp) -> None:
    """
    Inside another server forms are sent to where the dashboard is, and lead on to its own pages;
    who is in the journal is who that server let in.
    """
    outer = Starlette(routes=[Mount("/allele", app=place.app(name="lin"))])
    gate = f"/allele{version_path(4, 'persona', 'gate')}?stage=candidate"
    path = f"/allele{version_path(4, 'persona', 'promote')}"
    text = send(outer, gate).text
    assert f'action="{path}"' in text
    (seen,) = re.findall(r'name="holder" value="(\d+)"', text)
    answer = post(outer, path, stage="candidate", holder=seen, reason="from elsewhere")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/allele{version_path(4)}"
    assert entries(place)[-1].by == "lin"


def test_forms_of_what_is_not_there(app: ASGIApp) -> None:
    """
    A form for a version or model that is not there is answered with 404.
    """
    for path in (version_path(9, "persona", "promote"), version_path(1, "nobody", "promote")):
        answer = post(app, path, stage="production", holder="0", reason="why not")
        assert answer.status_code == 404
