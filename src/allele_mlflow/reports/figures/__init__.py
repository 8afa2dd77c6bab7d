"""
Figures: a frame in, a plotly figure out. One module a figure; the only room that knows plotly.

No figure reads a store or raises for odd data: an empty frame gives a figure that says so, what is
not finite is left out and counted, and what is too much is bounded, which `layout.meta["note"]`
says. Only traces that are drawn as SVG are used: those of WebGL need a page that allows
`unsafe-eval`.
"""

from __future__ import annotations

from allele_mlflow.reports.figures.calibration import gain_calibration
from allele_mlflow.reports.figures.cells import objective_by_cell
from allele_mlflow.reports.figures.curves import convergence
from allele_mlflow.reports.figures.forest import forest_plot
from allele_mlflow.reports.figures.genomes import genome_lineage, genome_traits
from allele_mlflow.reports.figures.heat_map import suite_heat_map
from allele_mlflow.reports.figures.history import metric_history
from allele_mlflow.reports.figures.layout import axis_title, plotly_script
from allele_mlflow.reports.figures.overhead import logging_overhead
from allele_mlflow.reports.figures.parallel import parallel_coordinates
from allele_mlflow.reports.figures.runtimes import running_time_ecdf
from allele_mlflow.reports.figures.timeline import run_timeline
from allele_mlflow.reports.figures.versions import trait_profile, version_fitness

__all__ = [
    "axis_title",
    "convergence",
    "forest_plot",
    "gain_calibration",
    "genome_lineage",
    "genome_traits",
    "logging_overhead",
    "metric_history",
    "objective_by_cell",
    "parallel_coordinates",
    "plotly_script",
    "run_timeline",
    "running_time_ecdf",
    "suite_heat_map",
    "trait_profile",
    "version_fitness",
]
