"""CSV files of measurements, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from servsim.errors import ScenarioError

__all__ = ["filled", "read_table"]

_REMEDY = "docs/data.md says where these files come from; leave the dataset out by naming the others"


def read_table(path: Path, words: Iterable[str] = (), numbers: Iterable[str] = ()) -> pd.DataFrame:
    """The CSV at ``path``, which has these columns: ``words`` as text, ``numbers`` as numbers or gaps.

    Raises ScenarioError, with the file, for one that is missing, unreadable or empty, lacks columns, or has
    something else where a number belongs.
    """
    words, numbers = tuple(words), tuple(numbers)
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(words, str))
    except FileNotFoundError:
        raise ScenarioError("no such file", place=str(path), remedy=_REMEDY) from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"cannot be read: {str(error).splitlines()[0]}", place=str(path), remedy=_REMEDY) from None
    lacking = [name for name in (*words, *numbers) if name not in table.columns]
    if lacking:
        raise ScenarioError(f"no column {', '.join(lacking)}", place=str(path), remedy=_REMEDY)
    if table.empty:
        raise ScenarioError("no rows", place=str(path), remedy=_REMEDY)
    for name in numbers:
        wrong = table[name].notna() & ~np.isfinite(pd.to_numeric(table[name], errors="coerce"))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ScenarioError(
                f"'{table[name].iloc[row]}' in column {name} is no number", place=f"{path}:{row + 2}", remedy=_REMEDY
            )
    return table


def filled(rows: pd.DataFrame, path: Path, names: Iterable[str]) -> pd.DataFrame:
    """``rows`` of the CSV at ``path``, as they are; raises ScenarioError where one has a gap in these columns."""
    for name in names:
        gaps = rows[name].isna()
        if gaps.any():
            line = int(rows.index[gaps][0]) + 2
            raise ScenarioError(f"nothing in column {name}", place=f"{path}:{line}", remedy=_REMEDY)
    return rows
