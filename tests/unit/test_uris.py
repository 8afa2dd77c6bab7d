"""
Addresses: made absolute, told apart, and printed without their secrets.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.uris import (
    SERVER_WORDS,
    absolute_path,
    absolute_uri,
    is_remote_uri,
    mask_secrets,
)

FOLDER = Path("/no/such/folder")


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("sqlite:///mlflow.db", "sqlite:////no/such/folder/mlflow.db"),
        ("sqlite:///./a/../b.db", "sqlite:////no/such/folder/b.db"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
        ("SQLite:///mlflow.db", "sqlite:////no/such/folder/mlflow.db"),
        ("sqlite+pysqlite:///m.db", "sqlite+pysqlite:////no/such/folder/m.db"),
        ("sqlite:///m.db?timeout=5", "sqlite:////no/such/folder/m.db?timeout=5"),
        (
            "sqlite:///file:m.db?uri=true",
            "sqlite:///file:/no/such/folder/m.db?uri=true",
        ),
        ("file:mlruns", "file:///no/such/folder/mlruns"),
        ("file:./my%20runs", "file:///no/such/folder/my%20runs"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
        ("file://localhost/abs/a%23b", "file:///abs/a%23b"),
        ("file:/abs", "file:///abs"),
        ("./mlruns", "/no/such/folder/mlruns"),
        ("mlruns", "/no/such/folder/mlruns"),
        ("/abs/mlruns", "/abs/mlruns"),
        ("http://h:5000", "http://h:5000"),
        ("HTTP://Host:5000/Path", "http://Host:5000/Path"),
        ("databricks", "databricks"),
        ("Databricks", "databricks"),
        ("databricks://Profile", "databricks://Profile"),
        ("databricks-uc", "databricks-uc"),
        ("uc:http://h", "uc:http://h"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("mlflow-artifacts:/1", "mlflow-artifacts:/1"),
        ("dbfs:/a", "dbfs:/a"),
        ("databricks_results", "/no/such/folder/databricks_results"),
        ("http", "/no/such/folder/http"),
    ],
)
def test_relative_files_become_absolute(uri: str, wanted: str) -> None:
    """
    A process with another working folder finds the same store; what is no file stays as it is.
    """
    made = absolute_uri(uri, FOLDER, label="x", words=SERVER_WORDS)
    assert made == wanted
    assert absolute_uri(made, Path("/elsewhere"), label="x", words=SERVER_WORDS) == wanted


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("SQLITE:///:memory:?cache=shared", "in memory"),
        ("sqlite+pysqlite:///:memory:", "in memory"),
        ("sqlite:///file::memory:?uri=true", "in memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", "in memory"),
        ("sqlite://mlflow.db", "three slashes"),
        ("sqlite:mlflow.db", "want sqlite:///"),
        ("file://elsewhere/a", "file of this host"),
        ("~no-such-user-here/x", "can be followed"),
        ("a\0b", "can be followed"),
    ],
)
def test_unusable_address_is_refused(uri: str, told: str) -> None:
    """
    A database that only its own process sees, or a path that cannot be, is an error at start.
    """
    with pytest.raises(SettingsError, match=told) as caught:
        absolute_uri(uri, FOLDER, label="tracking_uri")
    assert caught.value.kind is ErrorKind.BAD_SETTING
    assert str(caught.value).startswith("tracking_uri=")


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    """
    A path that leads in circles is an error in words; from Python 3.13 on it stays as it is.
    """
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    if sys.version_info >= (3, 13):
        assert absolute_path("a/x", tmp_path, label="x") == tmp_path / "a" / "x"
        return
    with pytest.raises(SettingsError, match="can be followed"):
        absolute_path("a/x", tmp_path, label="x")


@pytest.mark.parametrize(
    ("uri", "is_remote"),
    [
        ("http://h", True),
        ("https://h", True),
        ("HtTpS://h", True),
        ("databricks", True),
        ("Databricks", True),
        ("databricks://p", True),
        ("databricks-uc://p", True),
        ("uc:http://h", True),
        ("sqlite:///m.db", False),
        ("file:///a", False),
        ("./databricks", False),
        ("databricks_results", False),
        ("https", False),
        ("postgresql://h/db", False),
        ("offline", False),
        ("", False),
    ],
)
def test_servers_are_told_from_local_stores(uri: str, is_remote: bool) -> None:
    """
    A server is told by its scheme in any case, and never by the first letters of a folder's name.
    """
    assert is_remote_uri(uri) is is_remote


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("postgresql://u:pw@h/db", "postgresql://u:***@h/db"),
        ("postgresql+psycopg2://u:p@ss/w:d@h:5432/db", "postgresql+psycopg2://u:***@h:5432/db"),
        ("postgresql://u@corp:pw@h/db", "postgresql://u@corp:***@h/db"),
        ("redis://:pw@h", "redis://:***@h"),
        ("https://u:pw@h:5000/x", "https://***@h:5000/x"),
        ("https://ghp_token@h/x", "https://***@h/x"),
        ("uc:https://u:pw@h", "uc:https://***@h"),
        ("http://h/x?api_token=abc&y=1", "http://h/x?api_token=***&y=1"),
        ("https://a.blob/x?sv=1&sig=abc%3D", "https://a.blob/x?sv=1&sig=***"),
        ("mssql://h?odbc_connect=PWD%3Dabc", "mssql://h?odbc_connect=***"),
        ("see http://u:pw@h and a@b", "see http://***@h and a@b"),
    ],
)
def test_secrets_are_masked(text: str, wanted: str) -> None:
    """
    Passwords and tokens become `***`; the rest stays readable.
    """
    assert mask_secrets(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/mlflow.db",
        "http://127.0.0.1:5000",
        "https://host/#/Users/me@example.com",
        "databricks://profile",
        "postgresql://alice@h/db",
        "s3://bucket/me@home",
        "./mlruns",
        "",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    """
    An address without a secret is printed as it is.
    """
    assert mask_secrets(text) == text


_WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=5, max_size=20
)


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "postgresql", "mysql+pymysql", "redis", "s3"]),
    user=st.from_regex(r"[a-z0-9._@%-]{0,8}", fullmatch=True),
    password=_WORD,
    rest=st.sampled_from(["h", "h:5000/db", "h/db?sslmode=require", "[::1]:80/", "h/a@b"]),
    around=st.sampled_from(["{}", "could not reach '{}' (3 tries)", "[{}, {}]"]),
)
@example(scheme="http", user="u", password="//@:?#&=/", rest="h", around="{}")
@example(scheme="https", user="", password="1234/5@6", rest="h/a@b", around="{}")
def test_password_never_survives(
    scheme: str, user: str, password: str, rest: str, around: str
) -> None:
    """
    Whatever a password is made of, short of white space, no printed address shows it.
    """
    uri = f"{scheme}://{user}:{password}@{rest}"
    bare = f"{scheme}://{user}:***@{rest}"
    assume(password not in around.format(bare, bare))
    assert password not in mask_secrets(around.format(uri, uri))


@given(
    key=st.sampled_from(
        ["password", "passwd", "PWD", "access_token", "api-key", "X-Amz-Signature"]
    ),
    secret=_WORD.filter(lambda text: "&" not in text),
    before=st.sampled_from(["?", "?a=1&"]),
)
def test_secret_query_value_never_survives(key: str, secret: str, before: str) -> None:
    """
    The value of a query key that sounds like a secret is never shown.
    """
    bare = f"https://h/x{before}{key}=***&z=2"
    assume(secret not in bare)
    assert secret not in mask_secrets(f"https://h/x{before}{key}={secret}&z=2")


@given(_WORD)
def test_masking_twice_changes_nothing(text: str) -> None:
    """
    A masked text can be masked again without harm.
    """
    once = mask_secrets(f"http://{text}@h x://{text}:{text}@h ?token={text}")
    assert mask_secrets(once) == once
