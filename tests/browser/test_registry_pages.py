"""
The registry driven in a real browser: looked at, promoted with a reason, by keyboard alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Any, Literal
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from allele_mlflow.dashboard.serving import DashboardServer, open_socket
from allele_mlflow.registry import Stage
from allele_mlflow.tracking.schema import prepare_schema
from tests.browser.conftest import Opened, _listen
from tests.browser.page_scripts import EXCESS_PX
from tests.browser.test_dashboard import FLAWS, kept_out
from tests.browser.test_report import hard_to_read
from tests.registry_dashboard import HOSTILE, ODD_MODEL, Place, opened_place, version_path

pytestmark = [pytest.mark.slow, pytest.mark.process]

GATE = version_path(2, "persona", "gate")
PAGES = (
    "/registry",
    "/registry/persona",
    "/registry/persona/journal",
    "/registry/persona/diff?one=1&other=4",
    "/registry/persona/rollback",
    version_path(1),
    GATE,
    version_path(1, "persona", "archive"),
    version_path(1, "mutation"),
    f"/registry/{quote(ODD_MODEL, safe='')}",
    version_path(1, ODD_MODEL),
    "/compare",
    "/compare?base=sorting~2&with=sorting~1&with=sorting",
    "/retention?older_than_days=0",
)
OpenAt = Callable[..., Opened]
#: Reports of the policy come up as errors of the console, and as these events.
WATCH_POLICY = """
window.reports = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.reports.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
FOCUSED = "() => document.activeElement.name || document.activeElement.textContent.trim()"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    A registry and its runs.
    """
    folder = tmp_path_factory.mktemp("registry")
    prepare_schema(folder / "empty.db")
    with opened_place(folder, folder / "empty.db") as found:
        yield found


@pytest.fixture
def open_at(place: Place, chromium: Browser) -> Iterator[OpenAt]:
    """
    Opens a page of Ada's dashboard, which may write, in a browser that it has let in.
    """
    tokens: list[str] = []
    listening = open_socket("127.0.0.1", 0)
    server = DashboardServer(
        place.source(), listening, user="ada", may_write=True, on_token=tokens.append
    )
    thread = Thread(target=server.run)
    thread.start()
    with ExitStack() as closing:
        closing.callback(thread.join, 20)
        closing.callback(server.stop)

        def open_path(
            path: str,
            *,
            width_px: int = 1200,
            scheme: Literal["light", "dark"] = "light",
            has_script: bool = True,
        ) -> Opened:
            context = chromium.new_context(
                viewport={"width": width_px, "height": 800},
                color_scheme=scheme,
                java_script_enabled=has_script,
            )
            closing.callback(context.close)
            context.add_init_script(WATCH_POLICY)
            opened = Opened(context.new_page())
            _listen(opened)
            base = server.address.partition("/?")[0]
            opened.page.goto(server.address)
            opened.page.goto(f"{base}{path}")
            opened.page.wait_for_load_state("networkidle")
            return opened

        yield open_path


@pytest.mark.parametrize(("width_px", "scheme"), [(1440, "light"), (390, "dark")])
def test_every_page_is_looked_at(open_at: OpenAt, width_px: int, scheme: str) -> None:
    """
    On a wide light screen and a narrow dark one: figures are drawn, texts can be read, nothing is
    cut off, no dialog comes up, neither a script nor the policy complains.
    """
    opened = open_at(PAGES[0], width_px=width_px, scheme=scheme)
    base = opened.page.url.removesuffix(PAGES[0])
    for path in PAGES:
        opened.page.goto(f"{base}{path}")
        opened.page.wait_for_load_state("networkidle")
        figures: list[Any] = opened.evaluate(
            "() => [...document.querySelectorAll('figure[data-figure]')]"
            ".map((one) => !!(one.dataset.drawn || one.dataset.empty))"
        )
        assert all(figures), path
        assert opened.evaluate(EXCESS_PX) <= 0, path
        assert hard_to_read(opened) == [], path
        assert opened.evaluate(FLAWS) == [], path
        assert kept_out(opened.page) == [], path
        assert opened.evaluate("() => window.reports") == [], path
        assert opened.problems == [], path


def test_promote_asks_for_a_reason_and_records_it(open_at: OpenAt, place: Place) -> None:
    """
    Without a reason the browser sends nothing; with one the version holds production, and the page
    and the journal have the reason, the person and what the gate saw. It is given back likewise.
    """
    page = open_at(GATE).page
    before = place.registry().history("persona").head
    page.get_by_role("button", name="Promote to production").click()
    assert page.url.endswith("/gate")
    assert place.registry().history("persona").head == before
    page.locator("#reason-promote-to-production").fill(f"better {HOSTILE}")
    page.get_by_role("button", name="Promote to production").click()
    page.wait_for_url("**/versions/2")
    told = page.locator(".transition").first.inner_text()
    assert f"ada, after version 1: better {HOSTILE}" in told
    assert "against_holder" in told
    made = place.registry().history("persona").entries[-1]
    assert (made.by, made.reason, made.holder) == ("ada", f"better {HOSTILE}", 1)

    page.goto(page.url.replace("/versions/2", "/rollback"))
    page.get_by_label("Why").fill("complaints")
    page.get_by_role("button", name="Give it back").click()
    page.wait_for_url("**/registry/persona")
    assert place.registry().standing("persona").holders[Stage.PRODUCTION] == 1


def test_approve_by_keyboard_alone(open_at: OpenAt, place: Place) -> None:
    """
    From the top of the page Tab leads to the form, the reason is typed, and Enter sends it.
    """
    page = open_at(f"{GATE}?stage=staging").page
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED) == "reason":
            break
    page.keyboard.type("looks right")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "Approve for staging"
    page.keyboard.press("Enter")
    page.wait_for_url("**/versions/2")
    made = place.registry().history("persona").entries[-1]
    assert (made.action, made.stage, made.reason) == ("approve", Stage.STAGING, "looks right")


def test_compare_without_scripts(open_at: OpenAt) -> None:
    """
    The form of comparisons works without JavaScript: what is chosen stands in the address, and the
    verdicts in a table that a column's head sorts.
    """
    page = open_at("/compare", has_script=False).page
    page.get_by_label("Baseline").fill("sorting~2")
    page.get_by_label("Candidate", exact=True).fill("sorting~1")
    page.get_by_role("button", name="Compare").click()
    assert "base=sorting" in page.url
    rows = page.get_by_role("region", name="Differences").locator("tbody tr")
    assert rows.count() >= 2
    assert "better" in rows.first.inner_text()
    page.get_by_role("link", name="Difference", exact=True).click()
    assert "sort=difference" in page.url


def test_a_selection_that_means_nothing(open_at: OpenAt) -> None:
    """
    It is told on a page with a way back.
    """
    page = open_at("/registry").page
    base = page.url.removesuffix("/registry")
    answer = page.goto(f"{base}/compare?base=sorting&with=nothing")
    assert answer is not None
    assert answer.status == 400
    assert "there is no such experiment" in page.inner_text("main")
