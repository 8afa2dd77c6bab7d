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
    MODEL_REGISTRY,
    SERVER_WORDS,
    TRACKING_STORE,
    StoreKind,
    absolute_path,
    absolute_uri,
    check_store_uri,
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


def no_plugins(group: str) -> frozenset[str]:
    return frozenset()


def unasked(group: str) -> frozenset[str]:
    raise AssertionError(f"looked for plugins of {group}")


STORES = [
    "sqlite:///mlflow.db",
    "SQLite:///mlflow.db",
    "sqlite+pysqlite:///m.db",
    "postgresql://u@h/db",
    "postgresql:///db",
    "postgresql+psycopg2://u:p@h/db",
    "mysql+pymysql://h/db",
    "mssql+pyodbc://h/db?driver=x",
    "http://h:5000",
    "HTTPS://h",
    "databricks",
    "Databricks",
    "databricks://profile",
    "file:mlruns",
    "file:///abs/mlruns",
    "./mlruns",
    "/abs/mlruns",
    "mlruns",
    "./localhost:5000",
    "2026-01-31_12:30",
    "a/b:5000",
]


@pytest.mark.parametrize("kind", [TRACKING_STORE, MODEL_REGISTRY], ids=lambda kind: kind.noun)
@pytest.mark.parametrize("uri", STORES)
def test_stores_of_mlflow_are_taken(uri: str, kind: StoreKind) -> None:
    """
    An address that MLflow itself has a store for is taken, and no plugin is looked for.
    """
    check_store_uri(uri, kind, label="x", plugin_schemes=unasked)


@pytest.mark.parametrize("uri", ["databricks-uc", "databricks-uc://profile", "uc:http://h:8080"])
def test_unity_catalog_keeps_models_and_no_runs(uri: str) -> None:
    """
    An address of Unity Catalog is one for models only, as MLflow says at the first run.
    """
    check_store_uri(uri, MODEL_REGISTRY, label="x", plugin_schemes=unasked)
    with pytest.raises(SettingsError, match="no tracking store of MLflow has the scheme"):
        check_store_uri(uri, TRACKING_STORE, label="x", plugin_schemes=no_plugins)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("localhost:5000", "want http://localhost:5000"),
        ("mlflow:5000", "want http://mlflow:5000"),
        ("mlflow_server:5000", "want http://mlflow_server:5000"),
        ("mlflow.example.com:443/base", "want http://mlflow.example.com:443/base"),
        ("127.0.0.1:5000", "want http://127.0.0.1:5000"),
        ("[::1]:5000/", "want http://[::1]:5000/"),
        ("http:localhost:5000", "want http:// and a host, e.g. http://localhost:5000"),
        ("http:/h:5000", "want http:// and a host, e.g. http://localhost:5000"),
        ("https://", "want https:// and a host, e.g. https://localhost:5000"),
        ("https:///base", "want https:// and a host, e.g. https://localhost:5000"),
        ("databricks:profile", "want databricks:// and a profile, e.g. databricks://profile"),
        ("mysql:3306", "want mysql:// and a host, e.g. mysql://localhost/mlflow"),
    ],
)
def test_address_without_a_scheme_or_host_is_refused(uri: str, wanted: str) -> None:
    """
    A host alone, or a scheme without one, is an error with the address to write instead.
    """
    with pytest.raises(SettingsError) as caught:
        check_store_uri(uri, TRACKING_STORE, label="tracking_uri", plugin_schemes=unasked)
    assert str(caught.value) == f"tracking_uri={uri!r}: {wanted}"
    assert caught.value.kind is ErrorKind.BAD_SETTING


@pytest.mark.parametrize(
    ("uri", "scheme", "wanted"),
    [
        ("sqllite:///x.db", "sqllite", "sqlite:///x.db"),
        ("SQLite3:///x.db", "sqlite3", "sqlite:///x.db"),
        ("postgres://h/db", "postgres", "postgresql://h/db"),
        ("postgres+psycopg2://h/db", "postgres+psycopg2", "postgresql+psycopg2://h/db"),
        ("htps://h:5000", "htps", "https://h:5000"),
        ("http+ssl://h:5000", "http+ssl", "http://h:5000"),
        ("databrick://p", "databrick", "databricks://p"),
        ("databricks-uc", "databricks-uc", "databricks"),
        ("azurml://h", "azurml", "azureml://h"),
    ],
)
def test_near_miss_names_the_address(uri: str, scheme: str, wanted: str) -> None:
    """
    A misspelt scheme is an error with the address as it was probably meant, plugins included.
    """
    with pytest.raises(SettingsError) as caught:
        check_store_uri(
            uri, TRACKING_STORE, label="x", plugin_schemes=lambda group: frozenset({"azureml"})
        )
    assert str(caught.value) == (
        f"x={uri!r}: no tracking store of MLflow has the scheme {scheme}; want {wanted}"
    )


@pytest.mark.parametrize("uri", ["foo://x", "s3://bucket/a", "arn:aws:x", "mysql+a+b://h/db"])
def test_unknown_scheme_names_the_known(uri: str) -> None:
    """
    A scheme like no other is an error that names those there are; a plugin's scheme is taken.
    """
    scheme = uri.partition(":")[0]
    with pytest.raises(SettingsError) as caught:
        check_store_uri(uri, MODEL_REGISTRY, label="x", plugin_schemes=no_plugins)
    assert str(caught.value).startswith(
        f"x={uri!r}: no model registry of MLflow has the scheme {scheme}; want "
    )
    if scheme == "foo":
        assert str(caught.value).endswith(
            "want one of databricks, databricks-uc, file, http, https, mssql, mysql, postgresql, "
            "sqlite, uc, e.g. sqlite:///mlflow.db"
        )
    asked: list[str] = []

    def plugins(group: str) -> frozenset[str]:
        asked.append(group)
        return frozenset({scheme})

    check_store_uri(uri, MODEL_REGISTRY, label="x", plugin_schemes=plugins)
    assert asked == ["mlflow.model_registry_store"]


@pytest.mark.parametrize(
    "uri",
    [
        "me:pa55word@localhost:5000",
        "pa55word@localhost:5000",
        "htps://pa55word@h",
        "htps://me:pa55word@h",
        "postgres:me:pa55word@h/db",
        "mysql:me:pa55word@h/db",
        "foo:/me:pa55/w?o#r@pa55word@h",
        "foo://h?token=pa55word",
        "http:me:pa55 word@h pa55word@h",
        "sqlite://me:pa55word@h/db",
        "sqlite:me:pa55word@h/db",
        "sqlite:///:memory:?token=pa55word",
        "file://me:pa55word@h/a",
    ],
)
def test_refused_address_shows_no_password(uri: str) -> None:
    """
    What is secret stays so in the error, though the address is not of a form that tells it.
    """

    def take() -> None:
        check_store_uri(uri, TRACKING_STORE, label="x", plugin_schemes=no_plugins)
        absolute_uri(uri, FOLDER, label="x")

    with pytest.raises(SettingsError) as caught:
        take()
    assert "pa55" not in str(caught.value)
    assert "pa55" not in repr(caught.value.facts)
    assert "***" in str(caught.value)


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
