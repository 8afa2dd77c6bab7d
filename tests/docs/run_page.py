"""
Does what one page of the documentation says, in the working folder: `run_page.py PAGE`.

    python          the page's blocks share one namespace and run in order, as one script; one
                    that begins with a comment `# name.py` is stored under that name instead
    console, sh     run by bash: what follows `$ `, or the whole block
    text output     what the block before it printed, `...` for what may differ
    toml            stored as the file that its first line names, where that is a comment

In a console block what stands under a command is its output, where anything does. A command has to
end well, except where the page shows its exit code. `make` targets are looked up and not run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

from tests.docs.pages import ROOT, Block, blocks_of, name_of

_FILE_NAME = re.compile(r"# ([\w.\-]+\.(?:py|toml))\n")
_MAKE = re.compile(r"make [a-z-]+")
COMMAND_DEADLINE_S = 90


class Page:
    """
    A page on its way from its first block to its last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.printed = ""
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module

    def run(self) -> None:
        """
        Do all of it.

        Raises:
            AssertionError: something ended badly or printed something else.
        """
        for block in blocks_of(self.path):
            match block.language:
                case "python":
                    self._python(block)
                case "console":
                    self._console(block)
                case "sh":
                    self.printed = _shell(f"set -e\n{block.text}", self._where(block))
                case "toml":
                    self._toml(block)
                case "text" if block.info == "output":
                    _compare(self.printed, block.text, self._where(block))

    def _where(self, block: Block) -> str:
        return f"{name_of(self.path)}:{block.line}"

    def _python(self, block: Block) -> None:
        name = _FILE_NAME.match(block.text)
        if name is not None:
            Path(name[1]).write_text(block.text, encoding="utf-8")
            return
        code = compile("\n" * (block.line - 1) + block.text, str(self.path), "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, self.module.__dict__)
        self.printed = output.getvalue()

    def _toml(self, block: Block) -> None:
        tomllib.loads(block.text)
        name = _FILE_NAME.match(block.text)
        if name is not None:
            Path(name[1]).write_text(block.text, encoding="utf-8")

    def _console(self, block: Block) -> None:
        for command, expected in commands_of(block.text):
            found = _shell(command, self._where(block))
            if expected:
                _compare(found, expected, self._where(block))


def commands_of(text: str) -> list[tuple[str, str]]:
    """
    The commands of a console block, each with the output that stands under it.
    """
    found: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (found[-1][0] + line[2:], "")
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
        elif line.strip():
            raise ValueError(f"output before a command: {line!r}")
    return found


def _shell(command: str, where: str) -> str:
    folder = Path.cwd()
    if _MAKE.match(command):
        command, folder = command.replace("make ", "make -n ", 1), ROOT
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{where}: {command.strip()}: {done.returncode}\n{done.stdout}"
    return done.stdout


def _compare(found: str, expected: str, where: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    is_same = doctest.OutputChecker().check_output(expected, found, flags)
    assert is_same, f"{where}: want\n{expected}\ngot\n{found}"


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    Page(Path(sys.argv[1])).run()
