"""
The fakes that our own tests use, published for yours.

    FakeClock               a clock that moves when told to
    MemoryTracking          a `Tracking` in memory that keeps rows as MLflow's SQL stores do
    FlakyTracking, Fault    any `Tracking`, with faults by plan
    FaultyProxy, HttpFault  a proxy before a real tracking server, with faults by plan
    assert_ledger_balanced  every record of a run is somewhere, exactly once

`MemoryTracking` passes the same contract suite as the real store
(`tests/integration/test_tracking_contract.py`), so a test on it says something about MLflow.
"""

from allele_mlflow.testing.clock import FakeClock
from allele_mlflow.testing.faulty_proxy import FaultyProxy, HttpFault, SeenRequest
from allele_mlflow.testing.flaky_tracking import Fault, FaultPlan, FlakyTracking
from allele_mlflow.testing.ledger import assert_ledger_balanced
from allele_mlflow.testing.memory_tracking import (
    MemoryExperiment,
    MemoryRun,
    MemoryTracking,
    MetricRow,
)

__all__ = [
    "FakeClock",
    "Fault",
    "FaultPlan",
    "FaultyProxy",
    "FlakyTracking",
    "HttpFault",
    "MemoryExperiment",
    "MemoryRun",
    "MemoryTracking",
    "MetricRow",
    "SeenRequest",
    "assert_ledger_balanced",
]
