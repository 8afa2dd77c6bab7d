"""
What a store's address says: server or local, relative or absolute, and which part of it is secret.

Pure text, except that making a file absolute follows the links of the folders that lead to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from allele_mlflow.errors import ErrorKind, SettingsError

#: Tracking and registry addresses that are one word and no folder.
SERVER_WORDS = frozenset({"databricks", "databricks-uc"})
_SERVER_SCHEMES = SERVER_WORDS | {"http", "https", "uc"}

# Two letters at least, so that no single-letter folder is taken for a scheme.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>.*)", re.DOTALL)

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


def _absolute_sqlite(uri: str, rest: str, folder: Path, *, label: str) -> str:
    name, question_mark, query = rest.partition("?")
    if name.startswith("//") and not name.startswith("///") and name != "//":
        wanted = f"want three slashes before a relative file, e.g. sqlite:///{name[2:]}"
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
            wanted = f"want a file of this host, e.g. file:///{host}/{path} or file:{host}/{path}"
            raise _bad_uri(uri, wanted, label=label)
        rest = f"/{path}"
    return absolute_path(unquote(rest), folder, label=label).as_uri()


def _bad_uri(uri: str, wanted: str, *, label: str) -> SettingsError:
    shown = mask_secrets(repr(uri))
    return SettingsError(
        f"{label}={shown}: {wanted}", kind=ErrorKind.BAD_SETTING, name=label, got=shown
    )
