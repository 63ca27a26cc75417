"""The folder that a run leaves behind: written whole or not at all, and read back."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.errors import ResultError
from servsim.metrics import SCHEMA_VERSION, derive
from servsim.records import PAUSE_REASONS
from servsim.report.columns import TABLE_FORMATS, read_columns, write_columns
from servsim.scenario import load_scenario
from servsim.writing import OTHER_FOLDER, check_within, writing

if TYPE_CHECKING:
    from servsim.records import Records
    from servsim.scenario import Scenario

__all__ = ["RunFolder", "check_free", "json_bytes", "pause_columns", "read_run", "result_folder", "write_run"]

_MARKS = ("summary.json", "comparison.csv", "sweep.csv", "claims.json", "validation.json")
_OURS = (".csv", ".json", ".md", ".parquet", ".pdf", ".png", ".svg", ".yaml")
_INTEGER, _FLOAT = "i8", "f8"
_REQUEST_TYPES = {
    "request_id": _INTEGER,
    "arrival_s": _FLOAT,
    "prompt_tokens": _INTEGER,
    "output_tokens": _INTEGER,
    "tenant": "U",
    "slo_class": "U",
    "scheduled_s": _FLOAT,
    "first_token_s": _FLOAT,
    "finish_s": _FLOAT,
    "queue_s": _FLOAT,
    "transfer_wait_s": _FLOAT,
    "ttft_s": _FLOAT,
    "tpot_s": _FLOAT,
    "e2e_s": _FLOAT,
    "status": "U",
    "slo_met": "?",
}
_STRIDE_TYPES = {
    "instance": _INTEGER,
    "start_s": _FLOAT,
    "end_s": _FLOAT,
    "steps": _INTEGER,
    "first_step_s": _FLOAT,
    "last_step_s": _FLOAT,
    "kv_external_fragmentation": _FLOAT,
}
_PAUSE_TYPES = {"request_id": _INTEGER, "start_s": _FLOAT, "end_s": _FLOAT, "reason": "U"}


def check_free(out: Path, overwrite: bool) -> None:
    """Raise ResultError, before anything is simulated, where results could not be written to ``out``.

    An existing folder is in the way unless ``overwrite`` is given, and even then unless servsim wrote
    everything in it; an empty one never is.
    """
    check_within(out)
    if not (out.exists() or out.is_symlink()):
        return
    if not out.is_dir() or out.is_symlink():
        raise ResultError("exists and is not a folder", place=str(out), remedy=OTHER_FOLDER)
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ResultError(
            "the result folder exists already", place=str(out), remedy=f"{OTHER_FOLDER}, or give --overwrite"
        )
    found = _foreign(out)
    if found:
        raise ResultError(
            f"not overwritten, since servsim did not write all of it: {found}",
            place=str(out),
            remedy=f"{OTHER_FOLDER}, or delete it yourself",
        )


def _foreign(out: Path) -> str | None:
    """What shows that servsim did not write everything in a folder."""
    if not any((out / mark).is_file() for mark in _MARKS):
        return f"it holds none of {', '.join(_MARKS)}"
    files = (entry for entry in sorted(out.rglob("*")) if not entry.is_dir())
    strange = next((file for file in files if file.suffix not in _OURS), None)
    return None if strange is None else f"it holds {strange.relative_to(out)}"


@contextmanager
def result_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write results into, which becomes ``out`` when the block ends without an error.

    Until then it is a hidden sibling, so that nothing half-written ever looks whole; after an error
    or Ctrl-C it is gone and what ``out`` held before is still there. Raises as :func:`check_free`.
    """
    given, out = out, Path(os.path.abspath(out))  # Path.resolve would follow links
    check_free(given, overwrite)
    staging = out.with_name(f".{out.name}.writing-{os.getpid()}")
    before = out.with_name(f".{out.name}.before-{os.getpid()}")
    with writing(given):
        staging.mkdir(parents=True)
    try:
        yield staging
        if out.exists():
            out.rename(before)
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if before.exists() and not out.exists():
            before.rename(out)
        raise
    shutil.rmtree(before, ignore_errors=True)


def write_run(
    out: Path,
    scenario: Scenario,
    records: Records,
    summary: Mapping[str, Any],
    *,
    overwrite: bool = False,
    table_format: str = "csv",
) -> None:
    """Write ``scenario.yaml``, ``summary.json`` and the tables requests, strides and pauses into ``out``.

    ``table_format`` is one of :data:`servsim.report.columns.TABLE_FORMATS`. Raises ResultError as
    :func:`check_free` does, or when the folder cannot be written.
    """
    if table_format not in TABLE_FORMATS:
        raise ResultError(f"unknown table format {table_format!r}", remedy=f"known are: {', '.join(TABLE_FORMATS)}")
    with writing(out), result_folder(out, overwrite) as folder:
        (folder / "scenario.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
        (folder / "summary.json").write_bytes(json_bytes(summary))
        write_columns(folder / f"requests.{table_format}", derive(records, scenario.slo))
        write_columns(folder / f"strides.{table_format}", records.strides)
        write_columns(folder / f"pauses.{table_format}", pause_columns(records))


def pause_columns(records: Records) -> dict[str, NDArray[Any]]:
    """The columns of ``pauses.csv``: those of ``records.pauses`` with the reason spelt out."""
    return {**records.pauses, "reason": np.array(PAUSE_REASONS)[records.pauses["reason"]]}


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON in the order given, two spaces deep, floats as short as reads back equal, NaN and infinity as null."""
    return (json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class RunFolder:
    """A run that was read back; its tables are read when somebody asks for them."""

    path: Path
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.summary["name"])

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario with which the run can be repeated."""
        return load_scenario(self.path / "scenario.yaml")

    @cached_property
    def requests(self) -> dict[str, NDArray[Any]]:
        """Columns of :data:`servsim.metrics.REQUEST_COLUMNS`; ``slo_met`` is a masked array."""
        return self._columns("requests", _REQUEST_TYPES)

    @cached_property
    def strides(self) -> dict[str, NDArray[Any]]:
        """The columns of ``records.strides``."""
        return self._columns("strides", _STRIDE_TYPES)

    @cached_property
    def pauses(self) -> dict[str, NDArray[Any]]:
        """The columns of ``records.pauses``, the reason as a string."""
        return self._columns("pauses", _PAUSE_TYPES)

    def _columns(self, name: str, types: Mapping[str, str]) -> dict[str, NDArray[Any]]:
        found = [self.path / f"{name}.{suffix}" for suffix in TABLE_FORMATS]
        return read_columns(next((path for path in found if path.is_file()), found[0]), types)


def read_run(path: Path) -> RunFolder:
    """A folder that ``servsim run`` wrote; raises ResultError when it is none, or of another schema."""
    file = path / "summary.json"
    if not file.is_file():
        found = "no such folder" if not path.is_dir() else "not a result folder: there is no summary.json"
        raise ResultError(found, place=str(path), remedy="give the folder that servsim run --out wrote")
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"not JSON: {error}", place=str(file)) from error
    version = summary.get("schema_version") if isinstance(summary, dict) else None
    if version != SCHEMA_VERSION:
        raise ResultError(
            f"schema_version {version!r}, and this servsim reads {SCHEMA_VERSION}",
            place=str(file),
            remedy="run it again",
        )
    return RunFolder(path, summary)
