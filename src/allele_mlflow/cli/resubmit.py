"""
`allele-mlflow rejected --resubmit`: each run's letters to the run's own store.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, json_text, say, shown
from allele_mlflow.cli.targets import explain_left, find_target
from allele_mlflow.errors import SettingsError, TrackingError
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import HeldLock, try_lock_folder
from allele_mlflow.records import RunId, RunSpec, RunState
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar.dead_letters import DeadLetters
from allele_mlflow.sidecar.resubmission import GivenUpError, PatientCalls, send_again, settle
from allele_mlflow.sidecar.store import open_store
from allele_mlflow.tracking.protocol import Tracking


@dataclass
class _Result:
    """
    What became of one run's letters. `problem`: why they were left, `code` what that ends with.
    """

    run_uid: str
    label: str
    delivered: int = 0
    refused: int = 0
    of_the_logger: int = 0
    words: str = ""
    problem: str | None = None
    code: ExitCode = ExitCode.FINE


class _LeftError(Exception):
    """
    A run's letters stay where they are; the text says why.
    """

    def __init__(self, text: str, code: ExitCode) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class _Stores:
    """
    The stores by address, each opened once; one that gave no answer is not asked again.
    """

    settings: Settings
    give_up_after_s: float
    opened: dict[str, Tracking] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)

    def patience(self) -> PatientCalls:
        return PatientCalls(self.give_up_after_s)

    def open(self, target: str) -> Tracking:
        if target in self.away:
            raise GivenUpError(self.away[target])
        if target not in self.opened:
            theirs = settings_module.load({"tracking_uri": target})
            self.opened[target] = self.patience().insist(partial(open_store, theirs))
        return self.opened[target]


def resubmit_all(
    runs: list[tuple[str, Path]], settings: Settings, *, give_up_after_s: float, as_json: bool
) -> ExitCode:
    """
    Send the letters of these runs, given by label and folder, and say what became of them.
    """
    stores = _Stores(settings, give_up_after_s)
    results = []
    for label, folder in runs:
        result = _Result(folder.name, label)
        results.append(result)
        try:
            _resubmit(folder, stores, result)
        except _LeftError as exc:
            result.problem, result.code = str(exc), exc.code
        if not as_json:
            _show(result)
    if as_json:
        say(json_text({"runs": [asdict(result) for result in results]}))
    elif not results:
        say("nothing was refused")
    for result in results:
        if result.problem is not None:
            complain(f"{result.label}: {shown(result.problem)}")
    codes = {result.code for result in results}
    for code in (ExitCode.USAGE, ExitCode.FAILED, ExitCode.UNREACHABLE):
        if code in codes:
            return code
    has_refused = any(result.refused for result in results) or ExitCode.LOST in codes
    return ExitCode.LOST if has_refused else ExitCode.FINE


def _show(result: _Result) -> None:
    parts = []
    if result.problem is None:
        parts.append(f"{result.delivered:,} delivered, {result.refused:,} still refused")
        if result.words:
            parts[-1] += f" ({shown(result.words)})"
    if result.of_the_logger:
        parts.append(f"{result.of_the_logger:,} were refused by the logger and cannot be sent")
    if parts:
        say(f"{result.label}: {'; '.join(parts)}")


def _resubmit(folder: Path, stores: _Stores, result: _Result) -> None:
    letters = DeadLetters(folder)
    result.of_the_logger = sum(not letter.is_of_the_store for letter in letters.letters)
    if result.of_the_logger == len(letters.letters):
        return
    lock = _lock(folder)
    try:
        _resubmit_locked(folder, stores, result)
    except OSError as exc:
        raise _LeftError(f"its files cannot be written: {exc}", ExitCode.FAILED) from exc
    finally:
        lock.release()


def _resubmit_locked(folder: Path, stores: _Stores, result: _Result) -> None:
    spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    if spec is None or state is None or state.run_id is None:
        raise _LeftError("its description cannot be read", ExitCode.LOST)
    own = msgspec.structs.replace(
        spec, tracking_uri_masked=state.store or spec.tracking_uri_masked, offline=False
    )
    target = find_target(own, stores.settings.tracking_uri, is_explicit=False)
    if target is None:
        raise _LeftError(f"left, for {explain_left(own)}", ExitCode.USAGE)
    letters = DeadLetters(folder)
    letters.drop_repeats(state.ledger.rejected)
    found = [letter for letter in letters.letters if letter.is_of_the_store]
    run_id, calls = RunId(state.run_id), stores.patience()
    try:
        tracking = stores.open(target)
        outcome = send_again(
            found,
            folder=folder,
            run_id=run_id,
            tracking=tracking,
            calls=calls,
            batch_size=spec.batch_size,
        )
        taken = [found[number] for number in outcome.taken]
        if taken:
            _check_still_done(folder)
            old = settle(
                letters,
                taken,
                folder=folder,
                state=state,
                run_id=run_id,
                tracking=tracking,
                calls=calls,
            )
            if old is not None:
                complain(f"{result.label}: its list in the store is the old one: {shown(old)}")
    except GivenUpError as exc:
        stores.away[target] = str(exc)
        text = f"{mask_secrets(target)} cannot be reached: {exc}; all letters are kept"
        raise _LeftError(text, ExitCode.UNREACHABLE) from exc
    except SettingsError as exc:
        raise _LeftError(f"{mask_secrets(target)} is no store: {exc}", ExitCode.USAGE) from exc
    except TrackingError as exc:
        raise _LeftError(f"the store refused its ledger: {exc}", ExitCode.LOST) from exc
    result.delivered, result.refused = len(taken), len(outcome.refused)
    result.words = next(iter(outcome.refused.values()), "")


def _lock(folder: Path) -> HeldLock:
    """
    The lock of a delivered run's folder.
    """
    _check_still_done(folder)
    try:
        lock = try_lock_folder(folder)
    except OSError as exc:
        raise _LeftError(f"its folder cannot be opened: {exc}", ExitCode.FAILED) from exc
    if lock is None:
        raise _LeftError("left, for another process works on it just now", ExitCode.LOST)
    return lock


def _check_still_done(folder: Path) -> None:
    """
    See that the run is delivered and nobody goes on with it: a sidecar counts its ledger anew.
    """
    going_on = folder.parent.parent / spool.RUNS / folder.name
    if folder.parent.name == spool.RUNS or going_on.exists() or (folder / spool.STREAMS).exists():
        raise _LeftError(
            "left, for it is not delivered yet: `allele-mlflow sync` first, or wait for its "
            "sidecar",
            ExitCode.LOST,
        )
