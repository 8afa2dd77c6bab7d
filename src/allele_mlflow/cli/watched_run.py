"""
Which run `allele-mlflow watch` is told to show.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from allele_mlflow.watching.run_look import KnownRun

#: Runs that an ambiguous beginning of a name is answered with.
LISTED = 5


def find_run(known: Sequence[KnownRun], wanted: str | None) -> KnownRun | None:
    """
    The run that goes by a uid, MLflow id or name, or by the beginning of such an id; of several by
    one name the one that goes on, else the newest. Without `wanted`: the newest that is not over,
    else the newest; None where there is no run at all.

    Raises:
        click.BadParameter: no run, or several, fit.
    """
    if wanted is None:
        return max(known, key=_rank, default=None)
    exact = [run for run in known if wanted in run.names]
    if exact:
        return max(exact, key=_rank)
    begun = [run for run in known if any((n or "").startswith(wanted) for n in run.names[:2])]
    uids = list(dict.fromkeys(run.spec.run_uid for run in begun))
    if len(uids) == 1:
        return max(begun, key=_rank)
    if begun:
        more = ", ..." if len(uids) > LISTED else ""
        raise click.BadParameter(
            f"RUN={wanted!r} begins {len(uids)} ids: {', '.join(uids[:LISTED])}{more}"
        )
    raise click.BadParameter(
        f"RUN={wanted!r}: no such run in your spools (--spool names another); "
        "want a run_uid, a run's name or MLflow's id of it"
    )


def _rank(run: KnownRun) -> tuple[bool, bool, int]:
    return run.rank
