"""Rows of a JSON Lines file, each a mapping, with their line numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from servsim.errors import TraceError, suggestion

__all__ = ["number", "rows"]


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every row with its line, blank lines passed over; raises TraceError at a line that is no JSON mapping."""
    line = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.isspace():
                    yield line, _mapping(text, f"{path}:{line}")
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", place=str(path)) from None
    except UnicodeDecodeError:
        raise TraceError("this is not a text file", place=f"{path}:{line + 1}") from None


def number(row: Mapping[str, Any], key: str, place: str) -> float:
    """A finite number of a row; raises TraceError where it is missing or something else."""
    value = row.get(key)
    if value is None:
        raise TraceError(f"{key} is missing", place=place, remedy=f"{suggestion(key, row)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise TraceError(f"{key} is {value!r}", place=place, remedy="it must be a finite number")
    try:
        return float(value)
    except OverflowError:
        raise TraceError(f"{key} is too large", place=place) from None


def _mapping(text: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # too long a number is a ValueError of its own
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or too long a number"
        raise TraceError(f"not valid JSON: {reason}", place=place, remedy="write one request a line") from None
    if not isinstance(row, dict):
        raise TraceError(f"a {type(row).__name__} where a request was expected", place=place)
    return row
