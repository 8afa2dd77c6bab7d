"""
`Reader` through MLflow's own client: any store; many histories at once where a server has a way to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.frames import (
    EXPERIMENTS,
    PAGE_ROWS,
    RunFrames,
    WantedRuns,
    check_history_request,
    check_runs_request,
    frame_of,
    history_frame,
    pairs_frame,
    runs_frame,
)
from allele_mlflow.tracking.run_filter import filter_of_ids, filter_of_tags

#: The most that MLflow's server gives of histories in one answer, and for how many runs.
SERVER_ROWS = 25_000
SERVER_RUNS = 100
_SEARCH_PAGE_SIZE = 1000
_BULK_ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class ClientReader:
    """
    `Reader` through MLflow's own client: any store. Imports mlflow.
    """

    def __init__(self, tracking_uri: str) -> None:
        """
        Args:
            tracking_uri: As MLflow takes it.
        """
        self._masked = mask_secrets(tracking_uri)
        with mapped_errors(f"open {self._masked}", can_refuse=False):
            from mlflow import MlflowClient
            from mlflow.store.tracking.rest_store import RestStore

            self._client = MlflowClient(tracking_uri=tracking_uri)
            self._store: Any = self._client._tracking_client.store
            self._is_server = type(self._store) is RestStore

    def experiments(self) -> pd.DataFrame:
        """
        See `Reader`.
        """
        from mlflow.entities import ViewType

        with mapped_errors(f"experiments of {self._masked}"):
            found = _all_pages(
                lambda token: self._client.search_experiments(
                    ViewType.ALL, order_by=["experiment_id ASC"], page_token=token
                )
            )
            return frame_of(
                [(e.experiment_id, e.name, e.lifecycle_stage) for e in found], EXPERIMENTS
            )

    def experiment_id_of(self, name: str) -> str | None:
        """
        See `Reader`.
        """
        with mapped_errors(f"experiments of {self._masked}"):
            found = self._client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    def runs(
        self,
        experiment_ids: Sequence[str] | None = None,
        *,
        run_ids: Sequence[str] | None = None,
        with_deleted: bool = False,
        with_tags: Mapping[str, str | None] | None = None,
        tag_keys: Sequence[str] | None = None,
        param_keys: Sequence[str] | None = None,
        metric_keys: Sequence[str] | None = None,
    ) -> RunFrames:
        """
        See `Reader`.
        """
        from mlflow.entities import ViewType

        wanted = check_runs_request(
            experiment_ids,
            run_ids=run_ids,
            with_deleted=with_deleted,
            with_tags=with_tags,
            tag_keys=tag_keys,
            param_keys=param_keys,
            metric_keys=metric_keys,
        )
        ids = wanted.experiment_ids
        if wanted.run_ids is not None and not wanted.run_ids:
            return _frames_of([], wanted)
        if ids is None:
            ids = list(self.experiments().experiment_id)
        with mapped_errors(f"runs of {self._masked}"):
            found = _all_pages(
                lambda token: self._client.search_runs(
                    ids,
                    _filter_of(wanted),
                    run_view_type=ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY,
                    max_results=_SEARCH_PAGE_SIZE,
                    order_by=["attributes.start_time DESC", "attributes.run_id ASC"],
                    page_token=token,
                )
            )
            return _frames_of(found, wanted)

    def history(
        self,
        run_ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """
        See `Reader`. A server is asked for a hundred runs at a time.
        """
        check_history_request(run_ids, keys, page_rows)
        return self._pages(run_ids, keys, page_rows)

    def _pages(
        self, run_ids: Sequence[str], keys: Sequence[str] | None, page_rows: int
    ) -> Iterator[pd.DataFrame]:
        waiting: list[Sequence[Any]] = []
        for rows in self._histories(run_ids, keys):
            waiting += rows
            while len(waiting) >= page_rows:
                yield history_frame(waiting[:page_rows])
                waiting = waiting[page_rows:]
        if waiting:
            yield history_frame(waiting)

    def close(self) -> None:
        """
        See `Reader`. MLflow keeps its connections for the life of the process.
        """

    def _histories(
        self, run_ids: Sequence[str], keys: Sequence[str] | None
    ) -> Iterator[list[Sequence[Any]]]:
        for start in range(0, len(run_ids), SERVER_RUNS):
            some = run_ids[start : start + SERVER_RUNS]
            runs_by_key: dict[str, list[str]] = {}
            for run_id in some:
                with mapped_errors(f"run {run_id}"):
                    found = self._client.get_run(run_id).data.metrics
                for key in sorted(found):
                    if keys is None or key in keys:
                        runs_by_key.setdefault(key, []).append(run_id)
            for key, ids in runs_by_key.items():
                rows = self._ask_for_many(ids, key) if self._is_server else None
                if rows is not None:
                    yield rows
                    continue
                for run_id in ids:
                    yield from self._ask_for_one(run_id, key)

    def _ask_for_many(self, run_ids: Sequence[str], key: str) -> list[Sequence[Any]] | None:
        """
        The readings of one key of many runs, None where the server has no way to, or too many.
        """
        from mlflow.utils.rest_utils import http_request

        with mapped_errors(f"histories of {key!r}"):
            answer = http_request(
                self._store.get_host_creds(),
                _BULK_ENDPOINT,
                "GET",
                params={"run_id": list(run_ids), "metric_key": key, "max_results": SERVER_ROWS},
            )
            if answer.status_code != 200:
                return None
            try:
                found = answer.json()["metrics"]
            except (ValueError, KeyError, TypeError):
                return None
        if len(found) >= SERVER_ROWS:
            return None
        rows = [(m["run_id"], key, m["step"], m["timestamp"], m["value"], False) for m in found]
        return sorted(rows, key=_order)

    def _ask_for_one(self, run_id: str, key: str) -> Iterator[list[Sequence[Any]]]:
        token = None
        while True:
            with mapped_errors(f"history of {key!r} of run {run_id}"):
                if self._is_server:
                    page = self._store.get_metric_history(run_id, key, SERVER_ROWS, token)
                else:
                    page = self._client.get_metric_history(run_id, key)
            rows = [(run_id, key, m.step, m.timestamp, m.value, False) for m in page]
            yield sorted(rows, key=_order)
            token = getattr(page, "token", None)
            if not token:
                return


def _frames_of(runs: Iterable[Any], wanted: WantedRuns) -> RunFrames:
    """
    Frames of MLflow's runs, one at a time: of each, only what is wanted is kept.
    """
    rows: list[Sequence[Any]] = []
    params: list[Sequence[Any]] = []
    tags: list[Sequence[Any]] = []
    metrics: list[Sequence[Any]] = []
    for run in runs:
        info, data, uid = run.info, run.data, run.info.run_id
        if not _has(data.tags, wanted.with_tags):
            continue
        if wanted.run_ids is not None and uid not in wanted.run_ids:
            continue
        rows.append(
            (
                *(uid, info.experiment_id, info.run_name, info.status),
                *(info.lifecycle_stage, info.start_time, info.end_time),
                info.artifact_uri,
            )
        )
        params += [(uid, *pair) for pair in _kept(data.params, wanted.param_keys)]
        tags += [(uid, *pair) for pair in _kept(data.tags, wanted.tag_keys)]
        latest = {str(metric.key): metric for metric in data._metric_objs}
        metrics += [
            (uid, key, m.step, m.timestamp, m.value, False)
            for key, m in _kept(latest, wanted.metric_keys)
        ]
    return RunFrames(
        runs_frame(rows), pairs_frame(params), pairs_frame(tags), history_frame(metrics)
    )


def _filter_of(wanted: WantedRuns) -> str:
    """
    A filter that lets through every run that is wanted, and perhaps others.
    """
    parts = [filter_of_tags(wanted.with_tags)]
    if wanted.run_ids is not None:
        parts.append(filter_of_ids(wanted.run_ids))
    return " AND ".join(part for part in parts if part)


def _has(tags: Mapping[str, str], wanted: Mapping[str, str | None]) -> bool:
    return all(
        tags.get(key, "") != "" if value is None else tags.get(key) == value
        for key, value in wanted.items()
    )


def _kept(items: Mapping[str, Any], keys: Sequence[str] | None) -> list[tuple[str, Any]]:
    wanted = items if keys is None else items.keys() & keys
    return [(key, items[key]) for key in sorted(wanted)]


def _all_pages(ask: Any) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _order(row: Sequence[Any]) -> tuple[Any, ...]:
    value = row[4]
    return (row[0], row[2], row[3], value != value, value)
