"""
What a store's address says: server or local, relative or absolute, and which part of it is secret.

Pure text, except that making a file absolute follows the links of the folders that lead to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, SettingsError


class StoreKind(NamedTuple):
    """
    One of MLflow's kinds of store: which schemes it takes, and where plugins register more.

    Source: of MLflow 3.17, tracking/_tracking_service/utils.py, tracking/_model_registry/utils.py
    and store/db/db_types.py.
    """

    noun: str
    plugin_group: str
    schemes: frozenset[str]


#: As SQLAlchemy calls the databases that MLflow takes; `+` and a driver may follow.
_DATABASES = frozenset({"mssql", "mysql", "postgresql", "sqlite"})
_UNITY_CATALOG = frozenset({"databricks-uc", "uc"})
_SCHEMES = _DATABASES | {"databricks", "file", "http", "https"}
# Without Unity Catalog: MLflow registers it for runs too, only to say that it keeps none.
TRACKING_STORE = StoreKind("tracking store", "mlflow.tracking_store", _SCHEMES)
MODEL_REGISTRY = StoreKind(
    "model registry", "mlflow.model_registry_store", _SCHEMES | _UNITY_CATALOG
)

#: Tracking and registry addresses that are one word and no folder.
SERVER_WORDS = frozenset({"databricks", "databricks-uc"})
_SERVER_SCHEMES = SERVER_WORDS | {"http", "https", "uc"}

# Two letters at least, so that no single-letter folder is taken for a scheme.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>.*)", re.DOTALL)

# Compiled when first used, which most starts never do.
# A server as it stands in a browser's address bar. A name has a letter, which a date has not.
_HOST_AND_PORT = (
    r"(?s)(?:[^/]*@)?"
    r"(?:\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}|(?=[\d._-]*[A-Za-z])[\w.-]+)"
    r":\d{1,5}(?:[/?#].*)?"
)
# Of an address that was refused nothing tells the user from the password, so both go.
_USER_OF_REFUSED = r"(?s)\A(?:(?P<scheme>[A-Za-z][\w+.-]*:/*).*|[^/]*)@"

# Greedy to the last @: a password that should have been percent-encoded may hold /, ?, # and @
# itself, and an address that does not work is just the one that gets printed.
_USER_AND_PASSWORD = re.compile(r"(?P<scheme>[\w+.-]*)://(?P<user>[^:\s]*):\S*@")
# A user without a password is often an access token on the web, and a plain name elsewhere.
_WEB_USER = re.compile(r"(?i)(?P<scheme>https?)://[^/?#\s]*@")
_SECRET_QUERY = re.compile(
    r"(?i)(?P<key>[?&;][^=&;\s]*"
    r"(?:password|passwd|pwd|passphrase|token|secret|key|credential|auth|sig|odbc_connect)"
    r"[^=&;\s]*=)[^&\s]*"
)


def is_remote_uri(uri: str) -> bool:
    """
    Whether a tracking URI names a server, and not a local file or a database spoken to directly.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return uri.lower() in SERVER_WORDS
    return match["scheme"].lower() in _SERVER_SCHEMES


def mask_secrets(text: str) -> str:
    """
    The URI, or a text that holds some, with passwords and secret-looking query values as `***`.

    Of an http(s) address the user goes too, for it may be an access token. Where an address is
    malformed, rather too much is masked than too little.
    """

    def without_password(match: re.Match[str]) -> str:
        is_web = match["scheme"].lower() in {"http", "https"}
        user = "" if is_web else f"{match['user']}:"
        return f"{match['scheme']}://{user}***@"

    masked = _USER_AND_PASSWORD.sub(without_password, text)
    masked = _WEB_USER.sub(r"\g<scheme>://***@", masked)
    return _SECRET_QUERY.sub(r"\g<key>***", masked)


def check_store_uri(
    uri: str,
    kind: StoreKind,
    *,
    label: str,
    plugin_schemes: Callable[[str], Collection[str]],
) -> None:
    """
    See to it that MLflow has a store for the address. The store itself is asked nothing.

    Args:
        uri: As the user wrote it: a path, a word for a server, or anything with a scheme.
        kind: `TRACKING_STORE` or `MODEL_REGISTRY`.
        label: How the user wrote the setting's name; begins an error's message.
        plugin_schemes: Gives the schemes that plugins register in a group. Called only for a
            scheme that MLflow itself does not have: it may take long.
    Raises:
        SettingsError: a host without a scheme, a scheme without a host, or one that no store has;
            says what was probably meant.
    """
    match = _SCHEME.match(uri)
    scheme = match["scheme"].lower() if match else uri.lower()
    database, _, driver = scheme.partition("+")
    if scheme in kind.schemes or (database in _DATABASES and driver and "+" not in driver):
        if match:
            _check_host(uri, scheme, match["rest"], label=label)
        return
    if re.fullmatch(_HOST_AND_PORT, uri):
        raise _bad_uri(uri, f"want http://{_mask_refused(uri)}", label=label)
    if not match and scheme not in SERVER_WORDS:
        return  # a path
    if scheme not in (plugins := plugin_schemes(kind.plugin_group)):
        meant = _meant(uri, kind.schemes.union(plugins))
        wanted = f"no {kind.noun} of MLflow has the scheme {scheme}; want {meant}"
        raise _bad_uri(uri, wanted, label=label)


def absolute_uri(uri: str, folder: Path, *, label: str, words: frozenset[str] = frozenset()) -> str:
    """
    The same store, named so that a process with another working folder finds it.

    Args:
        uri: SQLite address, `file:` address, plain path, or anything else that has a scheme.
        folder: Absolute; what a relative file is relative to.
        label: How the user wrote the setting's name; begins an error's message.
        words: Addresses of one word, in lower case, that are no folder.
    Returns:
        Relative files made absolute and the scheme in lower case; other addresses as they are.
    Raises:
        SettingsError: a database in memory, a file on another host, or a path that cannot be.
    """
    if uri.lower() in words:
        return uri.lower()
    match = _SCHEME.match(uri)
    if match is None:
        return str(absolute_path(uri, folder, label=label))
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme.partition("+")[0] == "sqlite":
        return f"{scheme}:{_absolute_sqlite(uri, rest, folder, label=label)}"
    if scheme == "file":
        return _absolute_file_uri(uri, rest, folder, label=label)
    return f"{scheme}:{rest}"


def absolute_path(path: str, folder: Path, *, label: str) -> Path:
    """
    The path below `folder`, with `~` and links resolved; it need not exist.

    Raises:
        SettingsError: an unknown user after `~`, a loop of links, a zero byte.
    """
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as exc:
        raise _bad_uri(path, f"want a path that can be followed ({exc})", label=label) from exc


def _check_host(uri: str, scheme: str, rest: str, *, label: str) -> None:
    """
    Refuse a scheme that needs two slashes and a host behind it, and has them not.

    A database may do without a host: its driver has a default.
    """
    database = scheme.partition("+")[0]
    if database in {"file", "sqlite", "uc"}:
        return
    if rest.startswith("//") and (database in _DATABASES or rest[2:3] not in {"", "/", "?", "#"}):
        return
    thing, example = "host", "localhost/mlflow"
    if database in {"http", "https"}:
        example = "localhost:5000"
    elif database in SERVER_WORDS:
        thing = example = "profile"
    wanted = f"want {scheme}:// and a {thing}, e.g. {scheme}://{example}"
    raise _bad_uri(uri, wanted, label=label)


def _meant(uri: str, schemes: Collection[str]) -> str:
    """
    The address with the nearest of the schemes, or else all that could stand there.
    """
    import difflib  # only for a mistake: 5 ms

    given, colon, rest = _mask_refused(uri).partition(":")
    name, _, driver = given.lower().partition("+")
    nearest = difflib.get_close_matches(name, sorted(schemes), n=1)
    if not nearest:
        return f"one of {', '.join(sorted(schemes))}, e.g. sqlite:///mlflow.db"
    has_driver = nearest[0] in _DATABASES and driver and "+" not in driver
    return f"{nearest[0]}{f'+{driver}' if has_driver else ''}{colon}{rest}"


def _absolute_sqlite(uri: str, rest: str, folder: Path, *, label: str) -> str:
    name, question_mark, query = rest.partition("?")
    if name.startswith("//") and not name.startswith("///") and name != "//":
        file = _mask_refused(uri).partition("//")[2]
        wanted = f"want three slashes before a relative file, e.g. sqlite:///{file}"
        raise _bad_uri(uri, wanted, label=label)
    path = name.removeprefix("///")
    as_sqlite_uri = path.startswith("file:")
    path = path.removeprefix("file:")
    if not path.strip("/") or path == ":memory:" or "mode=memory" in query:
        wanted = (
            "a database in memory would be the sidecar's own; want a file, e.g. sqlite:///mlflow.db"
        )
        raise _bad_uri(uri, wanted, label=label)
    if path == name:
        wanted = "want sqlite:/// and a file, e.g. sqlite:///mlflow.db"
        raise _bad_uri(uri, wanted, label=label)
    if not path.startswith("/"):
        # No `~` here: SQLAlchemy takes it for a folder of that name, and so do MLflow's own tools.
        path = str((folder / path).resolve())
    return f"///{'file:' if as_sqlite_uri else ''}{path}{question_mark}{query}"


def _absolute_file_uri(uri: str, rest: str, folder: Path, *, label: str) -> str:
    from urllib.parse import unquote  # only for this rare form of address

    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host not in {"", "localhost"}:
            file = _mask_refused(uri).partition("//")[2]
            wanted = f"want a file of this host, e.g. file:///{file} or file:{file}"
            raise _bad_uri(uri, wanted, label=label)
        rest = f"/{path}"
    return absolute_path(unquote(rest), folder, label=label).as_uri()


def _bad_uri(uri: str, wanted: str, *, label: str) -> SettingsError:
    shown = repr(_mask_refused(uri))
    return SettingsError(
        f"{label}={shown}: {wanted}", kind=ErrorKind.BAD_SETTING, name=label, got=shown
    )


def _mask_refused(uri: str) -> str:
    """
    An address that is of no known form, without whatever could be a user or a secret.
    """
    masked = re.sub(_USER_OF_REFUSED, lambda match: f"{match['scheme'] or ''}***@", uri)
    return mask_secrets(masked)


def path_text(path: Path) -> str:
    """
    A path as text that any encoding of Unicode can hold.
    """
    return str(path).encode("utf-8", "backslashreplace").decode()
