"""
The files that every page needs: ours from the package, plotly.js from the plotly that is installed.

They are read once and named one by one, so no path of a client's ever reaches a file system.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import NamedTuple

from allele_mlflow.reports.figures import plotly_script

STYLE, SCRIPT = "dashboard.css", "dashboard.js"
#: Its name changes with the release, so that a browser may keep it for good.
PLOTLY = f"plotly-{version('plotly')}.min.js"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
NAMES = (STYLE, SCRIPT, PLOTLY)


class StaticFile(NamedTuple):
    """
    One file as it is sent.
    """

    body: bytes
    zipped: bytes
    media_type: str
    tag: str


@cache
def static_file(name: str) -> StaticFile | None:
    """
    A file by its name; None where we have none of it.

    Cost: plotly.js takes some 0.3 s the first time, and 6 MB from then on.
    """
    if name not in NAMES:
        return None
    if name == PLOTLY:
        body = plotly_script().encode()
    else:
        body = (resources.files("allele_mlflow.dashboard") / "static" / name).read_bytes()
    media_type = _TYPES[name.rpartition(".")[2]]
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return StaticFile(body, gzip.compress(body, 6, mtime=0), media_type, tag)
