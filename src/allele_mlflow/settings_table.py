"""
Every setting: its name, type, limits, default and meaning, and how a text becomes its value.

Reads nothing. `settings` finds the values; the reference page is made from the descriptions here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.resolution import parse_rules, text_of
from allele_mlflow.uris import is_remote_uri, mask_secrets

PREFIX = "ALLELE_MLFLOW_"
LOCAL_BATCH_SIZE = 100
REMOTE_BATCH_SIZE = 1000

#: An empty text is a value for these; an empty variable of any other name counts as unset.
MAY_BE_EMPTY = frozenset({"experiment_prefix", "sampling", "alerts"})
#: Taken as written, spaces included.
_VERBATIM = frozenset({"experiment_prefix"})
#: `inf` means "no limit" for these and nothing for any other.
_MAY_BE_INFINITE = frozenset({"exit_timeout_s", "idle_timeout_s", "max_lag_s"})
_TRUTHS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
#: Shown without the passwords and tokens they may hold.
_ADDRESSES = frozenset({"tracking_uri", "model_registry_uri", "artifact_location"})
_UNITS = {"_s": "seconds", "_bytes": "bytes", "_percent": "percent", "_days": "days"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Every setting, resolved. Get one through `load`; make a changed one through `load` again.

    Process safety: immutable. `origins` tells for each name that was not left at its default where
    its value came from. What is printed of it has its addresses' secrets masked; what is compared,
    pickled or encoded has the real ones.
    """

    enabled: Annotated[
        bool,
        Meta(
            description="Off: every method exists and does nothing, at the cost of an empty call."
        ),
    ] = True
    tracking_uri: Annotated[
        str,
        Meta(
            description="Where MLflow keeps runs: a URI that MLflow understands, or `offline` to "
            "spool only. Relative SQLite files and folders are made absolute at start."
        ),
    ] = "sqlite:///mlflow.db"
    experiment_prefix: Annotated[
        str, Meta(description="Put before every experiment's name; may be empty.")
    ] = "allele_benchmark_"
    artifact_location: Annotated[
        str,
        Meta(
            description="Where a new experiment keeps artifacts. Left unset with an http(s) or "
            "databricks tracking URI: the server decides."
        ),
    ] = "./mlflow_artifacts"
    model_registry_enabled: Annotated[
        bool, Meta(description="Whether genomes may be registered.")
    ] = True
    model_registry_uri: Annotated[
        str,
        Meta(
            description="Where the registry lives. Left unset with an http(s) or databricks "
            "tracking URI: the same server."
        ),
    ] = "sqlite:///mlflow_registry.db"
    auto_register_models: Annotated[
        bool, Meta(description="Register the best genome of a suite by itself.")
    ] = True
    auto_experiment_tracking: Annotated[
        bool, Meta(description="Track every benchmark suite as an experiment by itself.")
    ] = True
    metrics_batch_size: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Most metrics in one `log_batch` call, a ceiling for every store. Left "
            "unset: 100 for local stores, 1000 for remote ones.",
        ),
    ] = LOCAL_BATCH_SIZE
    artifact_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            description="Age in days from which on `allele-mlflow gc` deletes artifacts that "
            "nothing reaches. Nothing is deleted but by that command.",
        ),
    ] = 30
    spool_dir: Annotated[
        str,
        Meta(
            description="Folder of the memory-mapped queue. Where it cannot be written, the "
            "user's state folder."
        ),
    ] = "./.allele_mlflow/spool"
    spool_quota_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 62,
            description="Most bytes a spool may hold; what comes after is dropped and counted. "
            "0: the smaller of 10 GB and 20 % of the free space.",
        ),
    ] = 0
    idle_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a sidecar without work waits for the next run. 0 when `CI=true`.",
        ),
    ] = 30.0
    sidecar_cpu_percent: Annotated[
        float,
        Meta(
            gt=0,
            le=100,
            description="CPU the sidecar may use while a benchmark runs, percent of one core.",
        ),
    ] = 25.0
    delivery: Annotated[
        Literal["live", "quiet"],
        Meta(
            description="`live`: deliver during the run; `quiet`: only sample, and deliver when "
            "the run ends."
        ),
    ] = "live"
    durability: Annotated[
        Literal["process", "power"],
        Meta(
            description="`process`: what was logged survives every kill; `power`: the sidecar also "
            "writes full segments through to the disk, for a power failure."
        ),
    ] = "process"
    flush_interval_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Oldest age of a reading, in seconds, before a part-filled batch goes out.",
        ),
    ] = 1.0
    sample_interval_s: Annotated[
        float, Meta(gt=0, description="Seconds between two samples of CPU, memory and GPU.")
    ] = 1.0
    exit: Annotated[
        Literal["drain", "detach"],
        Meta(description="`drain`: close waits for delivery; `detach`: close hands over at once."),
    ] = "drain"
    exit_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Longest wait of close, in seconds; `inf` in containers and batch jobs.",
        ),
    ] = 30.0
    worker: Annotated[
        Literal["process", "thread"],
        Meta(description="`process`: the sidecar; `thread`: the same worker in a thread, slower."),
    ] = "process"
    strict: Annotated[
        bool,
        Meta(
            description="Raise on a caller's mistake instead of warning once and setting it aside."
        ),
    ] = False
    sampling: Annotated[
        str,
        Meta(
            description="Which readings MLflow shows of the keys that a rule is for, e.g. "
            "`loss/*: every 10; gpu/*: mean per 5 s`; all of them go into an artifact."
        ),
    ] = ""
    alerts: Annotated[
        str,
        Meta(
            description="TOML file of alert rules that the sidecar evaluates while the run goes "
            "on; none by default."
        ),
    ] = ""
    overhead_budget_percent: Annotated[
        float,
        Meta(
            gt=0, description="Logger's share of a run's time, in percent, above which close warns."
        ),
    ] = 5.0
    max_lag_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Delivery lag, in seconds, above which the CPU limit is lifted with a "
            "warning.",
        ),
    ] = 600.0
    artifact_copy_max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Largest artifact copied into the spool; a larger one is queued by path.",
        ),
    ] = 64 * 1024 * 1024
    bulk_store: Annotated[
        Literal["auto", "off"],
        Meta(
            description="`auto`: batches go to SQLite, PostgreSQL and servers past MLflow's slow "
            "call, into the same rows, where MLflow and its tables are as we know them; `off`: "
            "never."
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="How much sidecar.log holds; `error` also silences the closing line."),
    ] = "info"

    origins: dict[str, str] = {}

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({', '.join(fields)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, mask_secrets(v) if name in _ADDRESSES else v) for name, v in values]

    @property
    def is_remote(self) -> bool:
        """
        Whether a server, and not a local file or database, stands behind the tracking URI.
        """
        return is_remote_uri(self.tracking_uri)

    @property
    def is_offline(self) -> bool:
        """
        Whether records are only spooled, for a later `sync`.
        """
        return self.tracking_uri == "offline"

    @property
    def batch_size(self) -> int:
        """
        Most metrics in one call: what the user set, else 100 for local, 1000 for remote stores.
        """
        if "metrics_batch_size" in self.origins:
            return self.metrics_batch_size
        return REMOTE_BATCH_SIZE if self.is_remote else LOCAL_BATCH_SIZE

    @property
    def experiment_artifact_location(self) -> str | None:
        """
        Artifact location for a new experiment; None where the server decides.
        """
        if self.is_remote and "artifact_location" not in self.origins:
            return None
        return self.artifact_location


SETTING_NAMES = tuple(name for name in Settings.__struct_fields__ if name != "origins")
DEFAULTS: dict[str, Any] = {name: getattr(Settings(), name) for name in SETTING_NAMES}


def field_types() -> dict[str, Any]:
    """
    Each setting's annotated type, for the reference page and for conversion.
    """
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hints[name] for name in SETTING_NAMES}


class SettingFacts(NamedTuple):
    """
    One setting as a person reads it. `values` says what it takes, unit and limits included.
    """

    name: str
    variable: str
    default: str
    values: str
    description: str


def describe(name: str) -> SettingFacts:
    """
    What the reference page and the error messages say of one setting.
    """
    metadata = getattr(_FIELD_TYPES[name], "__metadata__", ())
    return SettingFacts(
        name=name,
        variable=PREFIX + name.upper(),
        default=_text_of(DEFAULTS[name]),
        values=_values_of(name),
        description=next(meta.description for meta in metadata if meta.description),
    )


def convert_setting(name: str, value: Any, *, label: str) -> Any:
    """
    The value of a setting, from a text or a Python value.

    Args:
        name: One of `SETTING_NAMES`.
        value: As found in the environment, a file or a call.
        label: How the user wrote the name; begins an error's message.
    Raises:
        SettingsError: the setting cannot have this value; says what it wants.
    """
    given = value
    if name == "sampling" and isinstance(value, Mapping):
        value = text_of(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        value = value if name in _VERBATIM else value.strip()
        if isinstance(DEFAULTS[name], bool):
            value = _TRUTHS.get(value.lower(), value)
        elif _choices(name):
            value = value.lower()
    is_lax = isinstance(value, str) and not isinstance(DEFAULTS[name], str)
    try:
        converted = msgspec.convert(value, _FIELD_TYPES[name], strict=not is_lax)
    except msgspec.ValidationError:
        raise _bad_value(name, given, label=label) from None
    if converted == "" and name not in MAY_BE_EMPTY:
        raise _bad_value(name, given, label=label)
    if isinstance(converted, float) and math.isinf(converted) and name not in _MAY_BE_INFINITE:
        raise _bad_value(name, given, label=label)
    if name == "sampling":
        try:
            parse_rules(converted)
        except ValueError as exc:
            raise SettingsError(
                f"{label}={given!r}: {exc}", kind=ErrorKind.BAD_SETTING, name=name, got=repr(given)
            ) from None
    return converted


def _bad_value(name: str, value: Any, *, label: str) -> SettingsError:
    shown = mask_secrets(repr(value))
    default = DEFAULTS[name]
    is_self_evident = isinstance(default, bool) or default == "" or bool(_choices(name))
    example = "" if is_self_evident else f", e.g. {_text_of(default or 1000)}"
    return SettingsError(
        f"{label}={shown}: want {_values_of(name)}{example}",
        kind=ErrorKind.BAD_SETTING,
        name=name,
        got=shown,
    )


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _values_of(name: str) -> str:
    default = DEFAULTS[name]
    if choices := _choices(name):
        return "one of " + ", ".join(choices)
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return "text" if name in MAY_BE_EMPTY else "text, not empty"
    kind = "a whole number" if isinstance(default, int) else "a number"
    unit = next((f", in {unit}" for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    limits = [
        f"{word} {getattr(meta, attribute)}"
        for meta in getattr(_FIELD_TYPES[name], "__metadata__", ())
        for attribute, word in (("gt", "above"), ("ge", "at least"), ("le", "at most"))
        if getattr(meta, attribute) is not None
    ]
    if name in _MAY_BE_INFINITE:
        limits.append("or inf")
    return f"{kind}{unit} ({', '.join(limits)})" if limits else f"{kind}{unit}"


def _choices(name: str) -> tuple[str, ...]:
    inner = getattr(_FIELD_TYPES[name], "__origin__", None)
    return tuple(str(choice) for choice in getattr(inner, "__args__", ()))


_FIELD_TYPES = field_types()
