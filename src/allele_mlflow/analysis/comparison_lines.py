"""
What a comparison adds up to, in sentences: counts of verdicts, what is not known and why. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from allele_mlflow.analysis.comparison import Verdict
from allele_mlflow.analysis.suite_comparison import SuiteComparison, SuiteRanking

#: What matters most first.
VERDICT_ORDER = (
    Verdict.WORSE,
    Verdict.BETTER,
    Verdict.DIFFERENT,
    Verdict.EQUIVALENT,
    Verdict.INCONCLUSIVE,
)


def comparison_lines(compared: SuiteComparison) -> Iterator[str]:
    """
    Counts of verdicts, why the rest is not known, and what has to be known besides.
    """
    found = compared.found
    if found is not None:
        counts = ", ".join(f"{found.count(one)} {one}" for one in VERDICT_ORDER if found.count(one))
        yield f"{counts} of {len(found.rows)} (p after Holm over {found.family_count} hypotheses)"
        reasons: dict[str, int] = {}
        for row in found.rows:
            if row.verdict is Verdict.INCONCLUSIVE and row.smallest_p >= found.options.alpha:
                reasons[row.reason] = reasons.get(row.reason, 0) + 1
        for reason, count in list(reasons.items())[:3]:
            yield f"inconclusive ({count}): {reason}"
        for side, cells in (
            ("baseline", found.only_baseline),
            ("candidate", found.only_candidate),
        ):
            if cells:
                more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
                yield f"only the {side} has the cells {'; '.join(cells[:3])}{more}"
    if compared.comparability is not None:
        yield f"environments: {compared.comparability.line()}"
    if compared.not_compared:
        yield (
            f"not compared, for the environments differ: {', '.join(compared.not_compared)} "
            "(--across-environments does it all the same)"
        )
    yield from compared.notes


def ranking_lines(ranked: SuiteRanking) -> Iterator[str]:
    """
    Friedman's test, the critical difference and the pairs that differ.
    """
    ranking = ranked.ranking
    if ranking is None:
        return
    yield (
        f"Friedman: p = {ranking.friedman.p_value:.3g} ({ranking.friedman.method}); "
        f"critical difference of mean ranks {ranking.critical_difference:.3g}"
    )
    differing = [pair for pair in ranking.pairs if pair.is_different]
    for pair in differing:
        yield f"{pair.better} is better than {pair.worse} (p = {pair.p_holm:.2g} after Holm)"
    if not differing:
        yield "no two of them are told apart"
