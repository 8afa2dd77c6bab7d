"""
An asynchronous batching sidecar logger for MLflow.

    from allele_mlflow import start_logger

    with start_logger("evolution", params={"population_size": 100}) as log:
        log.metric("fitness/best", 0.93, step=0)

A log call is a store into a memory-mapped file; a sidecar process delivers to MLflow. See
`start_logger`.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError(
        "allele-mlflow needs file locks and memory maps as Linux and macOS have them; "
        "on Windows use it inside WSL 2"
    )

from allele_mlflow.alerts.rules import AlertRule
from allele_mlflow.errors import (
    AlleleMlflowError,
    DeliveryError,
    ErrorKind,
    PermanentTrackingError,
    QueueClosedError,
    QueueError,
    QueueFormatError,
    RecordError,
    SettingsError,
    SidecarError,
    SidecarStartError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.log_context import correlation_context, correlation_id, structlog_processor
from allele_mlflow.logger import attach, start_logger
from allele_mlflow.mistakes import AlleleMlflowWarning
from allele_mlflow.open_loggers import current_logger
from allele_mlflow.records import Ledger, RunState
from allele_mlflow.report import DeliveryReport
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings
from allele_mlflow.version import __version__

if TYPE_CHECKING:
    from allele_mlflow.environment.comparability import Comparability, compare_environments
    from allele_mlflow.environment.fingerprint import Environment, read_environment
    from allele_mlflow.environment.taking import take_environment
    from allele_mlflow.log_lines import CorrelationFilter, LogContextHandler
    from allele_mlflow.registry.components import Component
    from allele_mlflow.registry.genomes import Genome
    from allele_mlflow.registry.loading import load_component, load_genome
    from allele_mlflow.tracking.reader import artifact_readings, open_reader

__all__ = [
    "AlertRule",
    "AlleleMlflowError",
    "AlleleMlflowWarning",
    "Comparability",
    "Component",
    "CorrelationFilter",
    "DeliveryError",
    "DeliveryReport",
    "Environment",
    "ErrorKind",
    "Genome",
    "Ledger",
    "LogContextHandler",
    "PermanentTrackingError",
    "QueueClosedError",
    "QueueError",
    "QueueFormatError",
    "RecordError",
    "RunLogger",
    "RunState",
    "Settings",
    "SettingsError",
    "SidecarError",
    "SidecarStartError",
    "TrackingError",
    "TransientTrackingError",
    "__version__",
    "artifact_readings",
    "attach",
    "compare_environments",
    "correlation_context",
    "correlation_id",
    "current_logger",
    "load_component",
    "load_genome",
    "open_reader",
    "read_environment",
    "start_logger",
    "structlog_processor",
    "take_environment",
]

#: Names that come when they are asked for: with them pandas, logging and subprocess are loaded,
#: which the benchmark's process is to be spared.
_LATER = {
    "Comparability": "environment.comparability",
    "Component": "registry.components",
    "CorrelationFilter": "log_lines",
    "Environment": "environment.fingerprint",
    "Genome": "registry.genomes",
    "LogContextHandler": "log_lines",
    "artifact_readings": "tracking.reader",
    "compare_environments": "environment.comparability",
    "load_component": "registry.loading",
    "load_genome": "registry.loading",
    "open_reader": "tracking.reader",
    "read_environment": "environment.fingerprint",
    "take_environment": "environment.taking",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"allele_mlflow.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
