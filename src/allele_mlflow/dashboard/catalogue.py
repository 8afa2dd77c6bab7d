"""
All pages, in the order of the bar at the top, and all actions. A new one is added here.
"""

from __future__ import annotations

from allele_mlflow.dashboard.pages import (
    alerts,
    anytime,
    compare,
    delivery,
    experiment,
    gate,
    journal,
    model,
    models,
    recommendations,
    registry_actions,
    retention,
    run,
    runs,
    suite,
    suites,
    trend,
    version,
    version_diff,
    ways_back,
)
from allele_mlflow.dashboard.pages.page import Action, Page

PAGES: tuple[Page, ...] = (
    suites.PAGE,
    experiment.PAGE,
    runs.PAGE,
    trend.PAGE,
    recommendations.PAGE,
    suite.PAGE,
    anytime.PAGE,
    run.PAGE,
    compare.PAGE,
    models.PAGE,
    model.PAGE,
    journal.PAGE,
    version.PAGE,
    version_diff.PAGE,
    gate.PAGE,
    ways_back.ROLLBACK,
    ways_back.ARCHIVING,
    alerts.PAGE,
    delivery.PAGE,
    retention.PAGE,
)
ACTIONS: tuple[Action, ...] = registry_actions.ACTIONS
