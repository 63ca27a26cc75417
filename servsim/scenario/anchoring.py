"""Python's values made plain, and a file's relative paths made absolute, before anything is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from servsim.documents import KeyPath, dotted
from servsim.errors import ScenarioError
from servsim.scenario.catalogue import is_path

__all__ = ["DATA_VARIABLE", "anchored", "files"]

DATA_VARIABLE = "SERVSIM_DATA"
"""The environment variable that names the folder of real traces and measurements."""

_NAME_OR_PATH: frozenset[KeyPath] = frozenset(
    {
        ("model",),
        ("instance", "hardware"),
        ("instance", "engine"),
        ("instance", "memory", "compression", "link"),
        ("instance", "pipeline_link"),
        ("workload",),
    }
)
_ALWAYS_PATH = frozenset({"trace", "table"})  # under workload
_TRAINED_ON: KeyPath = ("instance", "scheduler", "predictor", "trace")
_TIERS: KeyPath = ("instance", "memory", "tiers")  # by name, each with a link and perhaps a device


def anchored(value: Any, base: Path, path: KeyPath = (), *, place: str) -> Any:
    """A plain copy of a scenario's data (or its part at ``path``), relative paths taken from ``base``.

    Tuples become lists, numpy's scalars and arrays Python's, paths text. Raises ScenarioError, placed
    after ``place``, for keys that are not text and for what is no plain data.
    """
    match value:
        case None | bool() | int():
            return value
        case float():  # numpy.float64 is one too
            return float(value)
        case str():
            return _absolute(value, base) if _means_file(value, path) else str(value)
        case os.PathLike():
            return _absolute(os.fspath(value), base)
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise ScenarioError(f"{place}: the key {key!r} is not text")
            return {key: anchored(item, base, (*path, key), place=place) for key, item in value.items()}
        case list() | tuple():
            return [anchored(item, base, (*path, index), place=place) for index, item in enumerate(value)]
    if type(value).__module__ == "numpy":
        return anchored(value.tolist(), base, path, place=place)
    raise ScenarioError(f"{place}: {dotted(path)}: {type(value).__name__} is no plain value")


def files(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every trace and table that the anchored data at ``path`` names, with the key path of its name."""
    if isinstance(value, str) and path[-1] in _ALWAYS_PATH:
        yield path, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from files(item, (*path, key))


def _means_file(text: str, path: KeyPath) -> bool:
    if path in _NAME_OR_PATH:
        return is_path(text)
    if path == _TRAINED_ON:
        return True
    if path[:3] == _TIERS:
        return path[4:] in (("link",), ("device",)) and is_path(text)
    if path[:1] != ("workload",):
        return False
    return path[-1] in _ALWAYS_PATH or (path[-1] == "lengths" and is_path(text))


def _absolute(text: str, base: Path) -> str:
    """The path made absolute; ``$SERVSIM_DATA`` at its beginning (no other variable) is replaced if it is set."""
    data = os.environ.get(DATA_VARIABLE)
    if data and text.startswith(f"${DATA_VARIABLE}/"):
        text = data + text.removeprefix(f"${DATA_VARIABLE}")
    return os.path.abspath(base / Path(text).expanduser()) if text.strip() else text
