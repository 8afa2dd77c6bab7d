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
    recommendations,
    retention,
    run,
    runs,
    suite,
    suites,
    trend,
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
    alerts.PAGE,
    delivery.PAGE,
    retention.PAGE,
)
ACTIONS: tuple[Action, ...] = ()
