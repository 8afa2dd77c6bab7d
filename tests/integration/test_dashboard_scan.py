"""
The dashboard's API asked by its own description, with values that nobody chose: no answer is a
server's error, and each is as described.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.types import ASGIApp

from tests.dashboard_tools import dashboard_of
from tests.hostile_store import make_hostile_store
from tests.registry_dashboard import opened_place

pytest.importorskip("schemathesis", reason="of the dependency group test alone")

import schemathesis
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow
HOST = {"Host": "127.0.0.1"}
#: A value that nobody has is refused as described: that is no fault.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LEAST_OPERATIONS = 10
#: Cases of each operation, beside those that its description alone gives.
EXAMPLES = 10


class Scanned(NamedTuple):
    """
    A dashboard, and what of its store stands in addresses.
    """

    app: ASGIApp
    real: Mapping[str, Sequence[str]]
    is_ours: Callable[[str], bool]


@pytest.fixture(scope="module", params=["runs", "registry"])
def scanned(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scanned]:
    """
    One of hostile texts, and one of a registry.
    """
    folder = tmp_path_factory.mktemp("scanned")
    if request.param == "registry":
        with opened_place(folder, empty_store) as place:
            real = {"name": ["persona", "mutation"], "version": ["1", "2"]}
            yield Scanned(place.app(), real, lambda path: "/registry" in path)
    else:
        store = make_hostile_store(empty_store, folder, texts=120)
        real = {
            "run_id": [store.parent_id, store.run_ids[0]],
            "experiment_id": [store.experiment_id],
        }
        yield Scanned(dashboard_of(store.path), real, lambda path: "/registry" not in path)


def test_no_address_is_an_error_of_the_server(scanned: Scanned) -> None:
    """Made-up names first, then the same question about what is there."""
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", scanned.app, headers=HOST)
    found = [one.ok() for one in schema.get_all_operations()]
    operations = [one for one in found if scanned.is_ours(one.path)]
    assert len(operations) >= LEAST_OPERATIONS
    for operation in operations:
        ask = _asking(scanned)
        given(case=operation.as_strategy())(ask)()


def _asking(scanned: Scanned) -> Callable[[schemathesis.Case], None]:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=HOST, checks=CHECKS)
        names = [name for name in scanned.real if name in case.path_parameters]
        for values in product(*(scanned.real[name] for name in names)) if names else ():
            case.path_parameters |= dict(zip(names, values, strict=True))
            case.call_and_validate(headers=HOST, checks=CHECKS)

    return ask
