"""
What MLflow takes at most, and which keys it takes at all.

The paths in the comments are those of MLflow 3.17's package. Standard library only and free of
other imports of ours: the logger checks keys with it in the benchmark's process, which never
imports mlflow.

Units: `*_LENGTH` are characters, `*_PER_CALL` items, `*_BYTES` bytes.
"""

from __future__ import annotations

import posixpath
import re

# One call of `log_batch`: utils/validation.py, _validate_batch_log_limits. The store and the REST
# endpoint refuse more; MLflow's client would split silently, into calls that fail one by one.
METRICS_PER_CALL = 1000  # MAX_METRICS_PER_BATCH
PARAMS_PER_CALL = 100  # MAX_PARAMS_TAGS_PER_BATCH
TAGS_PER_CALL = 100  # MAX_PARAMS_TAGS_PER_BATCH
ITEMS_PER_CALL = 1000  # MAX_ENTITIES_PER_BATCH: metrics, params and tags together

# Managed servers refuse a larger request; the open-source one measures the wrong thing
# (server/handlers.py, _log_batch) and never does. utils/validation.py, MAX_BATCH_LOG_REQUEST_SIZE.
REQUEST_BYTES = 1_000_000

# A longer key is an error; a longer value is cut without a word while MLFLOW_TRUNCATE_LONG_VALUES
# is at its default (utils/validation.py, _validate_length_limit).
KEY_LENGTH = 250  # MAX_ENTITY_KEY_LENGTH: keys of metrics, params and tags
PARAM_VALUE_LENGTH = 6000  # MAX_PARAM_VAL_LENGTH
TAG_VALUE_LENGTH = 8000  # MAX_TAG_VAL_LENGTH; 5000 in MLflow 2.10
RUN_NAME_LENGTH = 250  # store/tracking/dbmodels/models.py: column runs.name
EXPERIMENT_NAME_LENGTH = 500  # MAX_EXPERIMENT_NAME_LENGTH
EXPERIMENT_TAG_KEY_LENGTH = 250  # MAX_EXPERIMENT_TAG_KEY_LENGTH
EXPERIMENT_TAG_VALUE_LENGTH = 20_000  # MAX_EXPERIMENT_TAG_VAL_LENGTH; 5000 in MLflow 2.20
REGISTRY_TAG_KEY_LENGTH = 250  # MAX_MODEL_REGISTRY_TAG_KEY_LENGTH
REGISTRY_TAG_VALUE_LENGTH = 100_000  # MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH; 5000 in MLflow 2.20
REGISTRY_ALIAS_LENGTH = 255  # MAX_REGISTERED_MODEL_ALIAS_LENGTH

# store/tracking/dbmodels/models.py: BigInteger columns metrics.step and metrics.timestamp.
STEP_MIN = -(2**63)
STEP_MAX = 2**63 - 1
# store/tracking/sqlalchemy_store.py, sanitize_metric_value: infinities become the largest double.
LARGEST_VALUE = 1.7976931348623157e308

# utils/validation.py, validate_param_and_metric_name. MLflow's own pattern ends in `$`, which
# lets a trailing newline through; `fullmatch` does not.
_is_spelled_right = re.compile(r"[/\w.\- :]+").fullmatch
_find_bad_character = re.compile(r"[^/\w.\- :]").search
_SHOWN_LENGTH = 60


def check_key(key: object) -> str | None:
    """
    What is wrong with the key of a metric, param or tag; None when MLflow takes it.

    Args:
        key: Anything a caller handed over.
    Returns:
        None, or one line: what, what was got, what is wanted.

    A little stricter than MLflow: no trailing newline. Unicode letters and digits pass, as there.
    Cost: a microsecond or two for a key of usual length; no import, no I/O.
    Source: utils/validation.py, validate_param_and_metric_name, path_not_unique and
    _validate_length_limit.
    """
    if not isinstance(key, str):
        # No repr: that would run the caller's code, and may be long or raise.
        return f"key of type {type(key).__name__}: want text"
    if not key:
        return "key '' is empty: want 1 to 250 characters"
    if len(key) > KEY_LENGTH:
        return f"key {_shown(key)} has {len(key)} characters: want at most {KEY_LENGTH}"
    if _is_spelled_right(key) is None:
        found = _find_bad_character(key)
        character = ascii(found.group()) if found else "a bad character"
        return f"key {_shown(key)} has {character} in it: want letters, digits, _ - . : / and space"
    normal = posixpath.normpath(key)
    if normal != key or key == "." or key.startswith(("/", "..")):
        return (
            f"key {_shown(key)} is not a plain path: want no leading / or .., and no empty, "
            "'.' or '..' part (MLflow may use keys as file names)"
        )
    return None


def _shown(key: str) -> str:
    text = str.__repr__(key)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."
