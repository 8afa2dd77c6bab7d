"""
What the table of units promises.
"""

from __future__ import annotations

import math

import pytest

from allele_mlflow.units import PHASE_UNITS, RESOURCE_UNITS, TRIAL_UNITS, Direction, describe


@pytest.mark.parametrize(
    ("name", "unit", "direction"),
    [
        ("system/cpu_utilization_percentage", "percent", Direction.NONE),
        ("system/system_memory_usage_megabytes", "megabytes", Direction.NONE),
        ("system/process_rss_megabytes", "megabytes", Direction.LOWER),
        ("system/cgroup_oom_kills", "processes", Direction.LOWER),
        ("system/gpu_0_utilization_percentage", "percent", Direction.NONE),
        ("system/gpu_13_power_usage_watts", "watts", Direction.NONE),
        ("system/gpu_0_process_memory_megabytes", "megabytes", Direction.LOWER),
        ("phase/evaluate/seconds", "seconds", Direction.LOWER),
        ("phase/outer/inner/cpu_percent_mean", "percent", Direction.NONE),
        ("phase/a b: c/count", "phases", Direction.NONE),
    ],
)
def test_known_name_has_unit_and_direction(name: str, unit: str, direction: Direction) -> None:
    """
    Every resource and phase metric says its unit and which way is better, also where a part of its
    name is a GPU's number or a phase's name with slashes in it.
    """
    row = describe(name)
    assert row is not None
    assert (row.unit, row.direction) == (unit, direction)


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "",
        "system/",
        "system/gpu_x_utilization_percentage",
        "system/gpu_0_unheard_of",
        "phase/seconds",
        "phase//seconds",
        "phase/evaluate/minutes",
        "system/process_cpu_percent/more",
    ],
)
def test_unknown_name_is_nobodys(name: str) -> None:
    """
    A name that is not in the table is a user's own metric: None, not a guess.
    """
    assert describe(name) is None


def test_every_row_describes_itself() -> None:
    """
    No row hides behind another: each is found under its own name.
    """
    for row in RESOURCE_UNITS + PHASE_UNITS + TRIAL_UNITS:
        name = row.pattern.replace("<i>", "7").replace("<name>", "mutate")
        assert describe(name) == row


def test_range_refuses_what_cannot_be() -> None:
    """
    A share of the machine lies within 0 to 100, that of a tree may pass 100; NaN is never valid.
    """
    machine = describe("system/cpu_utilization_percentage")
    tree = describe("system/process_cpu_percent")
    assert machine is not None
    assert tree is not None
    assert machine.is_valid(100.0)
    assert not machine.is_valid(100.1)
    assert tree.is_valid(799.0)
    assert not tree.is_valid(-0.1)
    assert not tree.is_valid(math.nan)
