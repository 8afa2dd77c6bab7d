"""
Running `tracking.probe` as a sidecar is run, for as long as one is willing to wait.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import IO

import msgspec

from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar.launch import WORKING_FOLDER, module_command, sidecar_environment
from allele_mlflow.tracking.probe import ProbeStep, ProbeWish

#: mlflow takes 2 s on an idle machine; on a network disk and a busy one it may take much longer.
IMPORT_TIMEOUT_S = 60.0
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class ProbeResult:
    """
    What the probe told. `is_silent`: the step after the last one was still going on when its time
    was over; `last_words`: of a probe that ended without a word.
    """

    steps: list[ProbeStep] = field(default_factory=list)
    is_silent: bool = False
    last_words: str = ""

    def step(self, name: str) -> ProbeStep | None:
        """
        The step of that name, as far as it got there.
        """
        return next((one for one in self.steps if one.step == name), None)


def run_probe(settings: Settings, wish: ProbeWish, *, timeout_s: float) -> ProbeResult:
    """
    Try mlflow and the store in a process of its own, which is ended at the latest when it is late.

    Args:
        settings: Those of the sidecar that is stood in for.
        wish: What to try.
        timeout_s: For each step but the import, which has at least `IMPORT_TIMEOUT_S`.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            module_command("allele_mlflow.tracking.probe"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=WORKING_FOLDER,
            env=sidecar_environment(settings),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            try:
                process.stdin.write(msgspec.json.encode(wish))
                process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended; its last words say why
            steps, is_silent = _read_steps(process.stdout, timeout_s)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        has_failed = bool(steps) and steps[-1].error is not None
        is_done = bool(steps) and steps[-1].step == _last_step(wish)
        return ProbeResult(
            steps, is_silent, "" if is_done or has_failed or is_silent else _tail(errors)
        )


def _last_step(wish: ProbeWish) -> str:
    return "clean" if wish.experiment is not None else "import"


def _read_steps(output: IO[bytes], timeout_s: float) -> tuple[list[ProbeStep], bool]:
    steps: list[ProbeStep] = []
    rest = b""
    deadline_s = now_monotonic_s() + max(timeout_s, IMPORT_TIMEOUT_S)
    while True:
        left_s = deadline_s - now_monotonic_s()
        if left_s <= 0 or not select.select([output], [], [], left_s)[0]:
            return steps, True
        data = os.read(output.fileno(), 1 << 16)
        if not data:
            return steps, False
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            steps.append(msgspec.json.decode(line, type=ProbeStep))
            deadline_s = now_monotonic_s() + timeout_s


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TAIL_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return mask_secrets(lines[-1]) if lines else "it said nothing"
