"""``--set path=value``: one value of a scenario replaced from the command line or from a sweep."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from servsim.documents import Document, KeyPath, dotted, parse_scalar
from servsim.errors import ScenarioError
from servsim.scenario.anchoring import anchored

__all__ = ["apply_override", "with_override"]

# Where a bare name is short for a mapping: the key under which the name then stands.
_SHORT_FOR: Mapping[KeyPath, str] = {("router",): "policy", ("instance", "scheduler", "predictor"): "name"}


def with_override(document: Document, override: str) -> Document:
    """The document with one value replaced, remembering where that value was written.

    ``override`` is ``a.b=value`` with the value in YAML; a relative path in it is relative to the
    working directory. Raises ScenarioError, placed at ``--set a.b=value``.
    """
    path, _ = _parse(override)
    data = apply_override(document.data, override)

    def survives(other: KeyPath) -> bool:  # what lay beneath the replaced value is gone
        return other[: len(path)] != path

    return replace(
        document,
        data=data,
        lines={key: line for key, line in document.lines.items() if survives(key)},
        includes={key: part for key, part in document.includes.items() if survives(key)},
        overrides={key: text for key, text in document.overrides.items() if survives(key)} | {path: _place(override)},
    )


def apply_override(data: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of a scenario's plain data with one value replaced: ``apply_override(data, "seed=7")``.

    Numbers in the path count the items of a list from 0 (``workload.classes.0.share``). Whether the
    key exists at all is for the schema to say.
    """
    path, value = _parse(override)
    result: dict[str, Any] = copy.deepcopy(dict(data))
    part: Any = result
    for depth, key in enumerate(path[:-1], 1):
        index = _index(part, key, path[:depth], override)
        inner = part[index] if isinstance(part, list) else part.get(index)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and path[:depth] in _SHORT_FOR:
            inner = {_SHORT_FOR[path[:depth]]: inner}
        part[index] = inner
        part = inner
    part[_index(part, path[-1], path, override)] = value
    return result


def _parse(override: str) -> tuple[KeyPath, Any]:
    text, equals, value = override.partition("=")
    keys = [key.strip() for key in text.split(".")]
    if not equals or not all(keys):
        remedy = "write path=value, for example instance.scheduler.policy=sjf"
        raise ScenarioError("this sets nothing", place=_place(override), remedy=remedy)
    path = tuple(int(key) if key.isascii() and key.isdigit() else key for key in keys)
    try:
        return path, anchored(parse_scalar(value), Path.cwd(), path, place=_place(override))
    except ScenarioError as error:
        raise ScenarioError(error.message, place=_place(override), remedy=error.remedy) from None


def _place(override: str) -> str:
    return f"--set {override}"


def _index(part: Any, key: str | int, path: KeyPath, override: str) -> Any:
    """``key`` as it leads into ``part``; ``path`` is that of the key, for the message."""
    around = dotted(path[:-1])
    if isinstance(part, dict):
        return str(key)
    if not isinstance(part, list):
        raise ScenarioError(f"'{around}' is {part!r} and has no '{key}'", place=_place(override))
    if not isinstance(key, int) or key >= len(part):
        items = f"{len(part)} item{'s' if len(part) != 1 else ''}"
        remedy = f"write a number from 0 to {len(part) - 1}" if part else None
        raise ScenarioError(
            f"'{around}' is a list of {items} and has no '{key}'", place=_place(override), remedy=remedy
        )
    return key
