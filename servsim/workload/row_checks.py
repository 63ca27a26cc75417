"""Checks of a column that a request must pass, each naming the first row that does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from servsim.errors import TraceError
from servsim.workload.blocks import Floats, Ints

__all__ = ["MOST_TOKENS", "Place", "check_rising", "check_times", "first_row", "token_counts"]

MOST_TOKENS = 1 << 40

Place = Callable[[int], str]
"""``place(row)``: where a row of the table stands, for a message: ``trace.csv:17``."""


def first_row(wrong: np.ndarray) -> int | None:
    """The first row for which ``wrong`` holds, or None."""
    rows = np.flatnonzero(wrong)
    return int(rows[0]) if len(rows) else None


def token_counts(values: Floats, name: str, place: Place, *, least: int = 1) -> Ints:
    """Whole numbers of tokens from ``least`` on; raises TraceError at the first row that is none."""
    if (row := first_row(~np.isfinite(values))) is not None:
        raise TraceError(f"{name} is {values[row]:g}", place=place(row), remedy="it must be a finite number")
    if (row := first_row((values < least) | (values > MOST_TOKENS))) is not None:
        remedy = f"it must be at least {least}" if values[row] < least else "that is more than anyone can mean"
        raise TraceError(f"{name} is {values[row]:g}", place=place(row), remedy=remedy)
    if (row := first_row(values != np.floor(values))) is not None:
        raise TraceError(f"{name} is {values[row]:g}", place=place(row), remedy="tokens come in whole numbers")
    return values.astype(np.int64)


def check_times(times_s: Floats, place: Place) -> None:
    """Raise TraceError at the first arrival that is NaN or infinite."""
    if (row := first_row(~np.isfinite(times_s))) is not None:
        raise TraceError(f"the arrival is at {times_s[row]:g}", place=place(row), remedy="it must be a finite number")


def check_rising(times_s: Floats, place: Place) -> None:
    """Raise TraceError at the first arrival that is earlier than the row before it; equal ones are fine."""
    if (row := first_row(np.diff(times_s) < 0)) is not None:
        raise TraceError(
            f"the request arrives {times_s[row] - times_s[row + 1]:g} s before the one above it",
            place=place(row + 1),
            remedy="sort the file by arrival: request ids count its rows, so servsim does not reorder them",
        )
