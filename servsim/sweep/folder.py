"""The folder that a grid of runs leaves behind: which variants and seeds it holds, written and read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servsim.errors import ResultError
from servsim.report.folder import json_bytes
from servsim.sweep.grid import Axis
from servsim.sweep.runs import Batch, Job
from servsim.version import VERSION

__all__ = ["GRID_FILE", "GridFolder", "GridRun", "clear_unfinished", "read_grid", "write_grid"]

GRID_FILE = "grid.json"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class GridRun:
    """One finished run of a grid."""

    variant: str  # its label
    seed: int
    values: dict[str, str]  # path: value as written
    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GridFolder:
    """What ``servsim compare`` or ``servsim sweep`` wrote: its axes and its finished runs, variant by variant."""

    path: Path
    axes: tuple[Axis, ...]
    runs: tuple[GridRun, ...]
    planned_runs: int

    @property
    def partial(self) -> str | None:
        """What a reader has to know of a grid that is not complete; None for a complete one."""
        return f"partial: {len(self.runs)} of {self.planned_runs} runs" if len(self.runs) < self.planned_runs else None

    @property
    def by_variant(self) -> dict[str, list[GridRun]]:
        """The runs of each variant, seed by seed."""
        found: dict[str, list[GridRun]] = {}
        for run in self.runs:
            found.setdefault(run.variant, []).append(run)
        return found


def write_grid(folder: Path, axes: Sequence[Axis], jobs: Sequence[Job], batch: Batch) -> GridFolder:
    """Write ``grid.json``; ``partial`` in it says that some of the planned runs have no result.

    The jobs' folders lie below ``folder``, and are written relative to it.
    """
    order = list(dict.fromkeys(job.variant.label for job in jobs))
    runs = [
        GridRun(job.variant.label, job.seed, job.variant.values, job.folder or folder, batch.summaries[place])
        for place, job in sorted(enumerate(jobs), key=lambda one: order.index(one[1].variant.label))
        if place in batch.summaries
    ]
    content = {
        "schema_version": _SCHEMA_VERSION,
        "servsim_version": VERSION,
        "partial": len(runs) < len(jobs),
        "planned_runs": len(jobs),
        "axes": [{"path": axis.path, "values": list(axis.values)} for axis in axes],
        "runs": [
            {
                "variant": run.variant,
                "seed": run.seed,
                "values": run.values,
                "folder": run.folder.relative_to(folder).as_posix(),
            }
            for run in runs
        ],
        "failures": [{"run": failure.title, "message": failure.message} for failure in batch.failures],
    }
    (folder / GRID_FILE).write_bytes(json_bytes(content))
    return GridFolder(folder, tuple(axes), tuple(runs), len(jobs))


def read_grid(path: Path) -> GridFolder:
    """Read a grid back; raises ResultError where the folder is none, or one of its runs is gone."""
    file = path / GRID_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != _SCHEMA_VERSION:
            message = f"schema_version {version!r}, and this servsim reads {_SCHEMA_VERSION}"
            raise ResultError(message, place=str(file), remedy="run it again")
        axes = tuple(Axis(axis["path"], tuple(axis["values"])) for axis in content["axes"])
        runs = tuple(
            GridRun(run["variant"], run["seed"], run["values"], path / run["folder"], _summary(path / run["folder"]))
            for run in content["runs"]
        )
        planned = int(content["planned_runs"])
    except OSError as error:
        raise ResultError(f"cannot be read: {error.strerror}", place=str(error.filename or file)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"not what servsim wrote: {error!r}", place=str(file), remedy="run it again") from error
    return GridFolder(path, axes, runs, planned)


def clear_unfinished(folder: Path) -> None:
    """Remove what runs that were stopped in the middle of writing have left in the folders of a grid."""
    for leftover in folder.glob("*/.*.writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for variant in folder.glob("*"):
        if variant.is_dir() and not any(variant.iterdir()):
            variant.rmdir()


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary
