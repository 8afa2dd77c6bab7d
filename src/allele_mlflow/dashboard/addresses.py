"""
Where pages, figures and files are: below a server's address, or beside each other in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote

from allele_mlflow.dashboard.views import View


class Addresses(Protocol):
    """
    How pages refer to each other.
    """

    #: Whether a page can be seen in other ways than as it was written.
    is_live: bool

    def page(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        Of a page by its path, in which names stand in braces.
        """

    def api(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        Of what a page says as JSON; empty where there is none.
        """

    def figure(
        self, path: str, params: Mapping[str, str], name: str, view: View | None = None
    ) -> str:
        """
        Of a figure of a page; empty where the page holds it itself.
        """

    def static(self, name: str) -> str:
        """
        Of one of our own files.
        """


class ServerAddresses:
    """
    Below the path at which an app is mounted.
    """

    is_live = True

    def __init__(self, root: str = "") -> None:
        """
        Args:
            root: Where the app is mounted, without a slash at its end; usually nothing.
        """
        self._root = root.rstrip("/")

    def page(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        See `Addresses`.
        """
        return f"{self._root}{fill(path, params)}{_query(view)}"

    def api(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        See `Addresses`.
        """
        return f"{self._root}{fill(api_path(path), params)}{_query(view)}"

    def figure(
        self, path: str, params: Mapping[str, str], name: str, view: View | None = None
    ) -> str:
        """
        See `Addresses`.
        """
        filled = fill(figure_path(path), {**params, "figure": name})
        return f"{self._root}{filled}{_query(view)}"

    def static(self, name: str) -> str:
        """
        See `Addresses`.
        """
        return f"{self._root}/static/{name}"


def api_path(path: str) -> str:
    """
    Where the JSON of a page is.
    """
    return f"/api{'/suites' if path == '/' else path}.json"


def figure_path(path: str) -> str:
    """
    Where the figures of a page are; `{figure}` is the name of one.
    """
    return f"/api{'/suites' if path == '/' else path}/figures/{{figure}}.json"


def fill(path: str, params: Mapping[str, str]) -> str:
    """
    A path with a value for each name in braces, none of which can leave its place.
    """
    for name, value in params.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def _query(view: View | None) -> str:
    query = view.query() if view is not None else ""
    return f"?{query}" if query else ""
