"""
One side of a confirmation: a commit in a worktree of its own, or a folder as it is, with the
interpreter that runs it. Whatever cannot be resolved is refused before anything runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.messages import Place, decode
from allele_mlflow.matrix.prepared import SUITE_FILE, Prepared
from allele_mlflow.matrix.side_probe import SideAnswer
from allele_mlflow.matrix.suite_file import parse_suite
from allele_mlflow.matrix.supervisor import environment_at
from allele_mlflow.matrix.worktree import find_commit, top_of, worktree
from allele_mlflow.version import __version__

SideName = Literal["baseline", "candidate"]
_PROBE = "allele_mlflow.matrix.side_probe"
#: Longest import of a benchmark, and longest installation.
PROBE_S = 300
INSTALL_S = 1800
_SHORT_COMMIT = 12
#: In its site-packages: what the interpreter that the environment was made with has, it has too.
_PARENT_FILE = "zzz_allele_mlflow_parent.pth"


class WantedSide(NamedTuple):
    """
    A side as the command line says it.

    Attributes:
        name: Which.
        text: A commit, or a folder; `.` is the checkout that one is in, as it is.
        python: The interpreter.
        is_installed: Whether what stands there is installed into an environment of its own first.
    """

    name: SideName
    text: str
    python: str
    is_installed: bool = False


@dataclass(frozen=True)
class Side:
    """
    A side that can be run.
    """

    name: SideName
    label: str
    commit: str | None
    prepared: Prepared
    place: Place


class Found(NamedTuple):
    """
    Where a side is: a commit of a checkout, or the root folder that stands for one.
    """

    label: str
    commit: str | None
    root: Path | None


def find_side(wanted: WantedSide, here: Path, top: Path | None) -> Found:
    """
    What a side's text means.

    Args:
        wanted: The side.
        here: The working folder.
        top: Of the checkout that it is in.
    Raises:
        MatrixError: neither a commit nor a folder, or both.
    """
    text, folder = wanted.text, here / wanted.text
    commit = find_commit(top, text) if top is not None else None
    if commit is not None and folder.is_dir():
        raise _refused(wanted, "both a commit and a folder: want ./NAME, or the commit's hash")
    if commit is not None:
        short = commit[:_SHORT_COMMIT]
        return Found(short if commit.startswith(text) else f"{text} ({short})", commit, None)
    if folder.is_dir():
        is_here = folder.resolve() == here.resolve()
        return Found(text, None, top if is_here and top is not None else folder.resolve())
    where = f"no commit of {top}" if top is not None else f"{here} is in no checkout of git's"
    raise _refused(wanted, f"{where}, and there is no such folder")


@contextlib.contextmanager
def open_side(wanted: WantedSide, found: Found, suite: str, here: Path) -> Iterator[Side]:
    """
    The side, ready to be run; worktree and environment are gone afterwards.

    Args:
        wanted: The side.
        found: Where it is.
        suite: As `allele-mlflow run` takes it.
        here: The working folder: suite and folder are looked for in the same place of the side.
    Raises:
        MatrixError: the suite or the interpreter cannot be used there.
    """
    top = top_of(here) or here.resolve()
    with contextlib.ExitStack() as closing:
        root = found.root
        if root is None:
            assert found.commit is not None
            root = closing.enter_context(worktree(top, found.commit))
        scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="allele-mlflow-")))
        folder = root / here.resolve().relative_to(top)
        if not folder.is_dir():
            raise _refused(wanted, f"it has no folder {here.resolve().relative_to(top)}")
        python = _interpreter(wanted, here)
        if wanted.is_installed:
            python = _install(wanted, python, root, scratch / "environment")
        path = () if wanted.is_installed else _source_folders(root)
        place = Place(python=python, folder=str(folder), path=path)
        answer = _ask(wanted, place, _suite_there(wanted, suite, top, root), root, top, scratch)
        yield Side(wanted.name, found.label, found.commit, _prepared(wanted, answer), place)


def _source_folders(root: Path) -> tuple[str, ...]:
    """
    Where packages of a checkout lie that is not installed.
    """
    return tuple(str(one) for one in (root / "src", root) if one.is_dir())


def _suite_there(wanted: WantedSide, suite: str, top: Path, root: Path) -> str:
    if not Path(suite).is_absolute():
        return suite
    try:
        return str(root / Path(suite).resolve().relative_to(top))
    except ValueError:
        raise _refused(wanted, f"suite {suite!r} lies outside of {top}") from None


def _interpreter(wanted: WantedSide, here: Path) -> str:
    found = shutil.which(wanted.python, path=None) or shutil.which(str(here / wanted.python))
    if found is None:
        raise _refused(wanted, f"there is no interpreter {wanted.python!r}")
    return os.path.abspath(found)  # a symbolic link is what makes it an environment's


def _install(wanted: WantedSide, python: str, root: Path, folder: Path) -> str:
    """
    Install what stands at the root, editable, into a new environment that sees all that the
    interpreter's own has: only what the commit asks beyond that is fetched.
    """
    if not any((root / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise _refused(wanted, "nothing to install: it has no pyproject.toml")
    tell_site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    parent = _output(wanted, [python, "-c", tell_site]).strip()
    _output(wanted, [python, "-m", "venv", str(folder)])
    own = str(folder / "bin" / "python")
    site = Path(_output(wanted, [own, "-c", tell_site]).strip())
    (site / _PARENT_FILE).write_text(f"import site; site.addsitedir({parent!r})\n", "utf-8")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _output(wanted, [*pip, "--editable", str(root)])
    return own


def _output(wanted: WantedSide, command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _refused(wanted, f"it cannot be installed: {exc}") from exc
    if done.returncode:
        raise _refused(wanted, f"it cannot be installed: {_last_line(done.stderr)}")
    return done.stdout


def _ask(
    wanted: WantedSide, place: Place, suite: str, root: Path, top: Path, scratch: Path
) -> SideAnswer:
    file = scratch / "answer"
    command = [place.python, "-m", _PROBE, str(file), suite, str(root), str(top)]
    try:
        done = subprocess.run(
            command,
            cwd=place.folder,
            env=environment_at(place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=PROBE_S,
            check=False,
        )
        answer = decode(file.read_bytes(), SideAnswer) if not done.returncode else None
    except (OSError, msgspec.MsgspecError, subprocess.TimeoutExpired) as exc:
        raise _refused(wanted, f"{place.python} does not answer: {exc}") from exc
    if answer is None:
        raise _refused(
            wanted,
            f"{place.python} cannot run allele-mlflow {__version__}: {_last_line(done.stderr)}",
        )
    return answer


def _prepared(wanted: WantedSide, answer: SideAnswer) -> Prepared:
    """
    The suite as the side has it.
    """
    if answer.package_version != __version__:
        raise _refused(
            wanted, f"its allele-mlflow is {answer.package_version}: want {__version__}, as here"
        )
    if answer.error:
        raise _refused(wanted, answer.error)
    if answer.strangers:
        raise _refused(
            wanted,
            f"its benchmark imports {', '.join(answer.strangers[:3])} from the checkout, and not "
            "from this side: want --install, or an interpreter of the side's own",
        )
    assert answer.environment is not None
    folder = Path(answer.folder)
    suite = parse_suite(answer.text, folder / SUITE_FILE)
    cells = make_cells(suite, version=answer.version)
    return Prepared(suite, folder, cells, answer.version, answer.text, answer.environment)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _refused(wanted: WantedSide, what: str) -> MatrixError:
    return MatrixError(f"{wanted.name} {wanted.text!r}: {what}", kind=ErrorKind.BAD_SUITE)
