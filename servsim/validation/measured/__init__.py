"""Measured runs of real engines: rebuilt as scenarios, predicted, and compared."""

from servsim.validation.measured.comparing import Compared, Comparison, compare_runs
from servsim.validation.measured.datasets import DATASETS, data_folder, find_datasets, read_runs
from servsim.validation.measured.fitting import Fit, fit_engine
from servsim.validation.measured.run import Dataset, MeasuredRun, Target
from servsim.validation.measured.scoring import Line, Reached, lines_of, reached
from servsim.validation.measured.tables import error_tables, errors_markdown, write_validation

__all__ = [
    "DATASETS",
    "Compared",
    "Comparison",
    "Dataset",
    "Fit",
    "Line",
    "MeasuredRun",
    "Reached",
    "Target",
    "compare_runs",
    "data_folder",
    "error_tables",
    "errors_markdown",
    "find_datasets",
    "fit_engine",
    "lines_of",
    "reached",
    "read_runs",
    "write_validation",
]
