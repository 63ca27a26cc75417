"""All measured datasets by name, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from servsim.errors import ScenarioError, suggestion
from servsim.validation.measured.closed_loop import CLOSED_LOOP
from servsim.validation.measured.load_stages import LOAD_STAGES
from servsim.validation.measured.per_request import PER_REQUEST
from servsim.validation.measured.run import Dataset, MeasuredRun
from servsim.validation.measured.static_batch import STATIC_BATCH
from servsim.validation.measured.tp_scaling import TP_SCALING

__all__ = ["DATASETS", "data_folder", "find_datasets", "read_runs"]

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (PER_REQUEST, LOAD_STAGES, CLOSED_LOOP, TP_SCALING, STATIC_BATCH)
}
"""Every dataset by its name, which is that of its folder under the data's ``serving``."""

_VARIABLE = "SERVSIM_DATA"


def find_datasets(names: Sequence[str]) -> list[Dataset]:
    """The datasets of these names, each once; all for no name. Raises ScenarioError for an unknown one."""
    for name in names:
        if name not in DATASETS:
            raise ScenarioError(f"unknown dataset '{name}'", remedy=suggestion(name, DATASETS))
    return [DATASETS[name] for name in dict.fromkeys(names or DATASETS)]


def data_folder(given: Path | None = None) -> Path:
    """The folder of real measurements: as given, or that of the environment. Raises ScenarioError if there is none."""
    text = os.environ.get(_VARIABLE)
    folder = given or (Path(text) if text else None)
    if folder is None:
        raise ScenarioError(
            "nobody says where the measurements are", remedy=f"give --data DIR, or set {_VARIABLE} (docs/data.md)"
        )
    if not (folder / "serving").is_dir():
        raise ScenarioError(f"'{folder}' has no folder 'serving'", remedy="see docs/data.md for what lies where")
    return folder


def read_runs(dataset: Dataset, data: Path) -> list[MeasuredRun]:
    """The dataset's runs; raises ScenarioError where its folder is missing."""
    folder = data / "serving" / dataset.folder
    if not folder.is_dir():
        raise ScenarioError(f"'{folder}' does not exist", remedy="leave the dataset out, or see docs/data.md")
    return dataset.read(folder)
