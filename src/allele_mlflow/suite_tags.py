"""
The tags by which runs in MLflow belong to a suite: what `--resume` and the analysis read again.
"""

from __future__ import annotations

from enum import StrEnum

RUN_UID = "allele.run_uid"
#: Which of a suite's runs this is: see `RunKind`.
KIND = "allele.kind"
SUITE = "allele.suite"
#: Uid of the run above, which is the execution of the suite.
EXECUTION = "allele.execution"
CELL = "allele.cell"
CELL_KEY = "allele.cell_key"
PARAMS_HASH = "allele.params_hash"
REPEAT = "allele.repeat"
ATTEMPT = "allele.attempt"
SEED = "allele.seed"
#: Place among all trials of the execution, from 0, and of its block.
ORDER = "allele.order"
BENCHMARK = "allele.benchmark"
BENCHMARK_VERSION = "allele.benchmark_version"
EXECUTOR = "allele.executor"
CONCURRENCY = "allele.concurrency"
HOST = "allele.host"
#: Of the host when the cell began: how many processes wanted to run, over the last minute.
LOAD = "allele.load_1m"
HASH_SEED = "allele.hash_seed"
#: Of the suite's checkout, under the name that MLflow's pages show.
COMMIT = "mlflow.source.git.commit"
#: The suite's folder, on the machine that ran it.
FOLDER = "allele.suite_folder"
ENVIRONMENT = "allele.environment"
#: Of an execution that is over: how many trials finished, failed, and were not run.
FINISHED_COUNT = "allele.suite.finished"
FAILED_COUNT = "allele.suite.failed"
NOT_RUN_COUNT = "allele.suite.not_run"
#: Of runs that try a recommendation: its id.
RECOMMENDATION = "allele.recommendation"
#: Of a confirmation's two runs: which side it is; of the candidate's, besides: what came out, the
#: uid of the baseline's run, and the finding that was to be confirmed.
SIDE = "allele.side"
CONFIRMATION = "allele.confirmation"
BASELINE = "allele.baseline"
FINDING = "allele.finding"
#: Of a verification's own run: the genome's identity in the registry, whether it has earned again
#: what was claimed of it, and the id of the run that claims it.
CONTENT = "allele.content"
VERIFIED = "allele.verified"
CLAIMED_BY = "allele.claimed_by"


class RunKind(StrEnum):
    """
    What a run of a suite is.
    """

    SUITE = "suite"
    CELL = "cell"
    #: A finished run of a trial of which another one counts.
    SUPERSEDED = "superseded"
    #: One side of a confirmation, and its cells: no execution of the suite.
    CONFIRMATION = "confirmation"
    CONFIRMATION_CELL = "confirmation_cell"
    #: A genome measured again on fresh seeds, and its cells: likewise.
    VERIFICATION = "verification"
    VERIFICATION_CELL = "verification_cell"


#: What has cells below it, and what they are.
CELLS_OF = {
    RunKind.SUITE: RunKind.CELL,
    RunKind.CONFIRMATION: RunKind.CONFIRMATION_CELL,
    RunKind.VERIFICATION: RunKind.VERIFICATION_CELL,
}
