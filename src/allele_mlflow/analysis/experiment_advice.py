"""
The advice of an experiment, read from MLflow, with what became of it.

A run follows a recommendation when it, or the execution that it is a trial of, has the tag
`allele.recommendation` with its id; such runs may be of any experiment. Where a follow-up ran the
old cell once more beside the new one, that is the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.advice_ledger import LedgerEntry, enter
from allele_mlflow.analysis.backtest import backtest
from allele_mlflow.analysis.frames import (
    ExperimentFrames,
    counted_runs,
    params_by_run,
    read_experiments,
    whole_histories,
)
from allele_mlflow.analysis.options import CompareOptions
from allele_mlflow.analysis.prediction_scores import Course, Settled, settle
from allele_mlflow.analysis.selection import Selection, SuiteFacts, read_facts, run_table
from allele_mlflow.analysis.told_advice import (
    Recommendation,
    ToldPrediction,
    is_like,
    read_predictions,
    read_recommendations,
)
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.tracking.frames import MOST_RUN_IDS, Reader

#: New runs of the old cell from which on they are the baseline.
FEWEST_BESIDE = 2
#: Of an id so many characters are enough, where they are one's own.
SHORTEST_ID = 8
_MS_PER_S = 1000


def find_experiment(reader: Reader, name: str, *, prefix: str = "") -> str:
    """
    The id of an experiment.

    Args:
        reader: Of the store.
        name: With or without the prefix.
        prefix: What may be left out.
    Raises:
        AnalysisError: there is none.
        TrackingError: the store does not answer.
    """
    for one in (name, f"{prefix}{name}"):
        found = reader.experiment_id_of(one)
        if found is not None:
            return found
    raise AnalysisError(f"{name!r}: there is no such experiment", kind=ErrorKind.BAD_DATA)


@dataclass
class AdviceReader:
    """
    Reads the advice of one experiment.

    Attributes:
        reader: Of the store.
        tracking_uri: The same store's address, for its artifacts.
        experiment_id: Of the experiment.
        most_runs: Whose artifacts are looked at, the newest first; None for all.
    """

    reader: Reader
    tracking_uri: str
    experiment_id: str
    most_runs: int | None = None
    _facts: dict[str | None, SuiteFacts] = field(default_factory=dict)

    def ledger(
        self,
        *,
        follow_ups: Mapping[str, Selection] | None = None,
        metric: str | None = None,
        options: CompareOptions | None = None,
    ) -> list[LedgerEntry]:
        """
        Every recommendation of the experiment, with its follow-ups.

        Args:
            follow_ups: Runs that follow a recommendation without the tag, by its id.
            metric: Of recommendations that do not say which; by default the suite's objective,
                where it has one.
            options: How follow-ups are compared; its directions go before the suite's.
        Raises:
            AnalysisError: a follow-up is of no recommendation that there is.
            TrackingError: the store does not answer.

        Cost: a look at the artifacts of each run, and at one tag of all runs of the store.
        """
        own = read_experiments(self.reader, [self.experiment_id], metric_keys=[])
        told = read_recommendations(self.tracking_uri, own.runs["run_id"][: self.most_runs])
        ids = [one.recommendation_id for one in told]
        sides: dict[str, list[ExperimentFrames]] = {}
        for given, selection in (follow_ups or {}).items():
            meant = _meant(given, ids)
            if meant is None:
                raise AnalysisError(
                    f"{given!r}: the experiment has no such recommendation, or several; it has "
                    f"{', '.join(ids[:5]) or 'none'}",
                    kind=ErrorKind.BAD_DATA,
                )
            sides.setdefault(meant, []).append(selection.frames)
        by_id = own.runs.set_index("run_id", drop=False)
        own = self._with_metrics(own, (_made_on(own, by_id.loc[one.run_id]).runs for one in told))
        for tag, frames in self._tagged().items():
            sides.setdefault(_meant(tag, ids) or "", []).append(frames)
        return [
            self._entry(
                one, own, sides.get(one.recommendation_id, []), metric, options or CompareOptions()
            )
            for one in told
        ]

    def predictions(self) -> list[Settled]:
        """
        Every prediction of the experiment, with what came.

        Raises:
            TrackingError: the store does not answer.
        """
        own = read_experiments(self.reader, [self.experiment_id], metric_keys=[])
        told = read_predictions(self.tracking_uri, own.runs["run_id"][: self.most_runs])
        runs = own.runs.set_index("run_id", drop=False)
        own = self._with_metrics(own, (runs.loc[[one.run_id]] for one in told))
        keys = {one.prediction_id: _key_of(one.metric, own.metrics, one.run_id) for one in told}
        wanted = sorted({key for key in keys.values() if key is not None})
        run_ids = list(dict.fromkeys(one.run_id for one in told))
        histories = whole_histories(self.reader, run_ids, wanted)
        found = []
        for one in told:
            is_its = histories["run_id"] == one.run_id
            readings = histories[is_its & (histories["key"] == keys[one.prediction_id])]
            found.append(settle(one, _course(one, readings, runs)))
        return found

    def backtest(self, metrics: Sequence[str] = ()) -> list[Settled]:
        """
        Our own predictions as they would have been made half-way through each finished run.

        Args:
            metrics: With a curve; by default the suite's objectives.
        Raises:
            AnalysisError: no objective is known.
            TrackingError: the store does not answer.
        """
        own = read_experiments(self.reader, [self.experiment_id])
        names = list(metrics)
        if not names:
            suites = own.runs[own.runs["kind"] == tags.RunKind.SUITE]
            told = self._facts_of(suites.iloc[0]).metrics if len(suites) else {}
            names = [name for name, one in told.items() if one.is_objective]
        if not names:
            raise AnalysisError(
                "no objective is known: name a metric (--metric)", kind=ErrorKind.BAD_DATA
            )
        histories = whole_histories(self.reader, list(own.runs["run_id"]), names)
        return [one for name in names for one in backtest(own, histories, name)]

    def _with_metrics(
        self, own: ExperimentFrames, runs: Iterable[pd.DataFrame]
    ) -> ExperimentFrames:
        """
        The same with the metrics of these runs alone.
        """
        ids = list(dict.fromkeys(run_id for one in runs for run_id in one["run_id"]))
        pieces = [
            self.reader.runs(
                run_ids=ids[start : start + MOST_RUN_IDS], tag_keys=[], param_keys=[]
            ).metrics
            for start in range(0, len(ids), MOST_RUN_IDS)
        ]
        return own._replace(metrics=pd.concat([own.metrics, *pieces], ignore_index=True))

    def _tagged(self) -> dict[str, ExperimentFrames]:
        """
        The runs that have the tag, by what it says.
        """
        told = self.reader.runs(
            with_tags={tags.RECOMMENDATION: None},
            tag_keys=[tags.RECOMMENDATION],
            param_keys=[],
            metric_keys=[],
        )
        experiments = dict(zip(told.runs["run_id"], told.runs["experiment_id"], strict=True))
        ids = sorted({experiments[run_id] for run_id in told.tags["run_id"]})
        if not ids:
            return {}
        frames = read_experiments(self.reader, ids)
        return {
            str(value): _follow_up_runs(frames, set(rows["run_id"]))
            for value, rows in told.tags.groupby("value")
        }

    def _entry(
        self,
        told: Recommendation,
        own: ExperimentFrames,
        follow_ups: Sequence[ExperimentFrames],
        metric: str | None,
        options: CompareOptions,
    ) -> LedgerEntry:
        run = own.runs[own.runs["run_id"] == told.run_id].iloc[0]
        facts = self._facts_of(run)
        known = {
            name: one.direction for name, one in facts.metrics.items() if one.direction != "none"
        }
        options = replace(options, directions={**known, **options.directions})
        objectives = [name for name, one in facts.metrics.items() if one.is_objective]
        judged_by = told.metric or metric or (objectives[0] if len(objectives) == 1 else None)
        baseline = _baseline(_having(_made_on(own, run), told.current_params), told, follow_ups)
        followed = [_having(one, told.params) for one in follow_ups]
        entry = enter(
            told,
            _stacked([run_table(one) for one in baseline]),
            _stacked([run_table(one) for one in followed]),
            metric=judged_by,
            options=options,
        )
        if any(len(one.runs) for one in follow_ups) and not entry.follow_ups:
            wanted = " ".join(f"{name}={value}" for name, value in told.params.items())
            return replace(entry, reason=f"no run that follows it has {wanted}")
        places = [_environments(sides) for sides in (baseline, followed)]
        if entry.found is not None and places[0] != places[1]:
            reason = f"{entry.reason}; the sides ran in different environments"
            return replace(entry, reason=reason)
        return entry

    def _facts_of(self, run: pd.Series[Any]) -> SuiteFacts:
        of_suite = run["run_id"] if run["kind"] == tags.RunKind.SUITE else run["parent_run_id"]
        if of_suite not in self._facts:
            self._facts[of_suite] = read_facts(self.tracking_uri, of_suite)
        return self._facts[of_suite]


def _meant(given: str, ids: Sequence[str]) -> str | None:
    """
    The id that is given, or the only one that begins so.
    """
    if given in ids:
        return given
    found = [one for one in ids if len(given) >= SHORTEST_ID and one.startswith(given)]
    return found[0] if len(found) == 1 else None


def _follow_up_runs(frames: ExperimentFrames, tagged: set[str]) -> ExperimentFrames:
    """
    The tagged runs that measure something, and the trials of tagged executions.
    """
    runs = frames.runs
    suites = runs[runs["run_id"].isin(tagged) & (runs["kind"] == tags.RunKind.SUITE)]
    is_trial = (runs["kind"] == tags.RunKind.CELL) & (
        runs["execution"].isin(suites["run_uid"]) | runs["run_id"].isin(tagged)
    )
    is_plain = runs["run_id"].isin(tagged) & runs["kind"].isna() & runs["is_failed"].notna()
    return frames.of(pd.concat([counted_runs(runs[is_trial]), runs[is_plain]]))


def _made_on(frames: ExperimentFrames, run: pd.Series[Any]) -> ExperimentFrames:
    """
    All repeats of what a recommendation was made on: an execution, a cell of it, or one run.
    """
    runs = frames.runs
    is_trial = runs["kind"] == tags.RunKind.CELL
    if run["kind"] == tags.RunKind.SUITE:
        return frames.of(counted_runs(runs[is_trial & (runs["execution"] == run["run_uid"])]))
    if run["kind"] == tags.RunKind.CELL:
        is_same = (runs["execution"] == run["execution"]) & (runs["cell_key"] == run["cell_key"])
        return frames.of(counted_runs(runs[is_trial & is_same]))
    is_it = (runs["run_id"] == run["run_id"]) & runs["is_failed"].notna()
    return frames.of(runs[is_it])


def _baseline(
    made_on: ExperimentFrames, told: Recommendation, follow_ups: Sequence[ExperimentFrames]
) -> Sequence[ExperimentFrames]:
    """
    What a follow-up is compared with: new runs of the same cell beside it where there are any, for
    the cell that a recommendation was made on was the best of many, and so a lucky one.
    """
    if not told.current_params:
        return [made_on]
    beside = [_having(one, told.current_params) for one in follow_ups]
    return beside if any(len(one.runs) >= FEWEST_BESIDE for one in beside) else [made_on]


def _environments(sides: Sequence[ExperimentFrames]) -> set[str]:
    return {place for one in sides for place in one.runs["environment"].dropna()}


def _having(frames: ExperimentFrames, wanted: Mapping[str, Any]) -> ExperimentFrames:
    """
    The runs whose params are these, of those that they have.
    """
    if not wanted:
        return frames
    told = params_by_run(frames.params)

    def has(run_id: str) -> bool:
        params = told.get(run_id, {})
        there = [name for name in wanted if name in params]
        return bool(there) and all(is_like(params[name], wanted[name]) for name in there)

    return frames.of(frames.runs[[has(one) for one in frames.runs["run_id"]]])


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    there = [table for table in tables if len(table)]
    if not there:
        return pd.DataFrame()
    whole = pd.concat(there)
    return whole[~whole.index.duplicated()]


def _key_of(metric: str, metrics: pd.DataFrame, run_id: str) -> str | None:
    """
    The key that a run has for a metric: Allele's are told with their component before them.
    """
    keys = metrics[metrics["run_id"] == run_id]["key"]
    alike = [key for key in keys if key == metric or key.endswith(f"/{metric}")]
    return min(alike, key=len) if alike else None


def _course(told: ToldPrediction, readings: pd.DataFrame, runs: pd.DataFrame) -> Course:
    run = runs.loc[told.run_id]
    began_ms = _ms(run["started_at"])
    ended_ms = None
    if not pd.isna(run["is_failed"]):
        ended_ms = began_ms + round(float(run["seconds"]) * _MS_PER_S)
    return Course(readings, began_ms, ended_ms, tuple(_past_seconds(run, runs, told.time_ms)))


def _past_seconds(run: pd.Series[Any], runs: pd.DataFrame, time_ms: int) -> list[float]:
    """
    How long runs of the same cell took that had finished by then.
    """
    found = []
    for other in runs.to_dict("records"):
        is_same = all(_same(other[name], run[name]) for name in ("kind", "suite", "cell_key"))
        if not is_same or other["is_failed"] is not False or other["run_id"] == run["run_id"]:
            continue
        if _ms(other["started_at"]) + other["seconds"] * _MS_PER_S <= time_ms:
            found.append(float(other["seconds"]))
    return found


def _same(one: Any, other: Any) -> bool:
    return one == other or (one is None and other is None)


def _ms(time: pd.Timestamp) -> int:
    return round(float(time.timestamp()) * _MS_PER_S)
