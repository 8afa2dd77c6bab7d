"""
A store in which every text that can be anybody's is hostile: names, tags, params, metrics, errors.

Rows are written in SQL: MLflow's client refuses some of these keys, other writers need not.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from html.parser import HTMLParser
from itertools import count
from pathlib import Path

from allele_mlflow import suite_tags as tags

PAYLOADS = (
    "<script>alert({n})</script>",
    "</script><script>alert({n})</script>",
    "<img src=x onerror=alert({n})>",
    "<svg/onload=alert({n})>",
    "\"><b id=x{n} onmouseover='alert({n})'>",
    "' onfocus='alert({n})' autofocus='",
    "javascript:alert({n})",
    "data:text/html,<script>alert({n})</script>",
    "{{{{ 7*{n} }}}}{{% for x in y %}}",
    "${{7*{n}}} #{{7*{n}}} <%= {n} %>",
    "%{{customdata[{n}]}}<extra></extra>",
    "<a href='javascript:alert({n})'>x</a>",
    "<style>*{{background:url(//evil.example/{n})}}</style>",
    "<meta http-equiv=refresh content='0;url=//evil.example/{n}'>",
    "<iframe src=//evil.example/{n}></iframe><base href=//evil.example>",
    "--><!-- {n} ]]> <![CDATA[",
    "' OR '1'='1' -- {n}",
    "'; DROP TABLE runs; -- {n}",
    "../../../../etc/passwd?{n}",
    "..%2f..%2f{n}\\..\\windows",
    "/static/../{n}//evil.example",
    "\r\nSet-Cookie: a={n}\r\n\r\n<b>",
    "\u202e{n}\u2066 rtl \u200f",
    "\x00\x07\x1b[2J{n}",
    "ostile {n} ☃ \ud7ff 日本 🧬",
    "{n}" + "A" * 300,
    "nan",
    "1e9999",
    "-{n}",
    "   ",
    "&lt;b&gt;{n}&amp;",
    "<table><tr><td>{n}",
)
#: What pages are made of; whatever else becomes an element came from the store.
ELEMENTS = frozenset(
    [
        *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "nav", "ul"),
        *("li", "main", "p", "h1", "h2", "footer", "form", "label", "input", "select", "option"),
        *("datalist", "button", "div", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("span", "dl", "dt", "dd", "code", "section", "figure", "figcaption", "strong"),
        *("svg", "polyline", "h3", "textarea"),
    ]
)


def hostile_texts(seed: int = 7) -> Iterator[str]:
    """
    Without end: each payload in turn, with a number of its own, some with others around it.
    """
    chance = random.Random(seed)
    for number in count(1):
        text = PAYLOADS[number % len(PAYLOADS)].format(n=number)
        if chance.random() < 0.2:
            text = f"{chance.choice(PAYLOADS).format(n=number)} {text}"
        yield text


class HostileStore:
    """
    A store with one experiment, one execution, and runs with so many texts.
    """

    def __init__(self, path: Path, *, texts: int) -> None:
        """
        Args:
            path: Of an SQLite file with MLflow's tables.
            texts: How many hostile texts are written.
        """
        self.path = path
        self.run_ids: list[str] = []
        self.count = 0
        self._texts = hostile_texts()
        with closing(sqlite3.connect(path)) as connection:
            self._connection = connection
            self.experiment_id = self._add_experiment()
            self.parent_id = self._add_run("suite")
            while self.count < texts:
                self.run_ids.append(self._add_run("cell"))
            connection.commit()

    def _text(self) -> str:
        self.count += 1
        # no surrogates: SQLite stores UTF-8
        return next(self._texts).encode("utf-8", "replace").decode()

    def _add_experiment(self) -> str:
        cursor = self._connection.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES (?, ?, ?)",
            (self._text(), "file:///nowhere", "active"),
        )
        return str(cursor.lastrowid)

    def _add_run(self, kind: str) -> str:
        number = len(self.run_ids)
        run_id = f"{number:032x}" if kind == "cell" else "f" * 32
        status = "FAILED" if number % 3 == 2 else "FINISHED"
        self._connection.execute(
            "INSERT INTO runs (run_uuid, experiment_id, name, status, start_time, end_time,"
            " lifecycle_stage, artifact_uri, user_id, source_type, source_name, entry_point_name,"
            " source_version) VALUES (?, ?, ?, ?, ?, ?, 'active', 'file:///nowhere', ?, 'LOCAL',"
            " '', '', '')",
            (run_id, self.experiment_id, self._text(), status, 1000, 2000, self._text()),
        )
        own = {tags.KIND: kind, tags.SUITE: self._text(), tags.HOST: self._text()}
        own |= {tags.COMMIT: self._text(), "allele.delivery": self._text()}
        if kind == "suite":
            own[tags.RUN_UID] = "exe"
        else:
            own |= {tags.EXECUTION: "exe", tags.REPEAT: str(number % 2), tags.ATTEMPT: "0"}
            own |= {tags.CELL: self._text(), tags.CELL_KEY: self._text()}
            own |= {f"allele.error.{name}": self._text() for name in ("category", "type")}
            own |= {"allele.error.message": self._text(), "mlflow.parentRunId": self._text()}
            own |= {"allele.alerts.warning": "2", "allele.alerts.active": self._text()}
        own |= {self._text(): self._text() for _ in range(6)}
        params = {self._text(): self._text() for _ in range(8)}
        metrics = {"score": float(number)} | {self._text(): float(number) for _ in range(4)}
        self._fill("tags", [(run_id, key, value) for key, value in own.items()])
        self._fill("params", [(run_id, key, value) for key, value in params.items()])
        for table in ("metrics", "latest_metrics"):
            rows = [(run_id, key, value, 0, 1000, 0) for key, value in metrics.items()]
            self._fill(table, rows, "run_uuid, key, value, step, timestamp, is_nan")
        return run_id

    def _fill(self, table: str, rows: Sequence[tuple[object, ...]], columns: str = "") -> None:
        names = columns or "run_uuid, key, value"
        marks = ", ".join("?" * len(names.split(", ")))
        query = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        self._connection.executemany(query, rows)


def make_hostile_store(empty_store: Path, folder: Path, *, texts: int) -> HostileStore:
    """
    One in a folder, from a file with MLflow's tables.
    """
    path = folder / "mlflow.db"
    shutil.copyfile(empty_store, path)
    return HostileStore(path, texts=texts)


class Elements(HTMLParser):
    """
    What a browser would make of a page: foreign elements, handlers and addresses in it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Notes what is none of ours.
        """
        told = dict(attrs)
        if tag not in ELEMENTS:
            self.problems.append(f"element {tag}")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.problems.append(f"attribute {name}={value!r}")
        for name in ("href", "src", "action"):
            address = told.get(name)
            if address and address not in ("data:,", "#main") and not address.startswith("/"):
                self.problems.append(f"{name}={address!r}")
            if address and address.startswith(("//", "/\\")):
                self.problems.append(f"{name}={address!r}")
        if tag == "script" and not (told.get("src") or told.get("type") == "application/json"):
            self.problems.append("inline script")
