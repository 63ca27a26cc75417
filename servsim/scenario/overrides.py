"""``--set path=value``: one value of a scenario replaced from the command line or from a sweep."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from servsim.documents import Document, KeyPath, dotted, parse_scalar
from servsim.errors import ScenarioError
from servsim.scenario.anchoring import anchored

__all__ = ["apply_override", "with_override"]

_Part = TypeVar("_Part")

# Where a bare name is short for a mapping: the key under which the name then stands.
_SHORT_FOR: Mapping[KeyPath, str] = {("router",): "policy", ("instance", "scheduler", "predictor"): "name"}


def with_override(document: Document, override: str, option: str = "--set") -> Document:
    """The document with one value replaced, remembering where that value was written.

    ``override`` is ``a.b=value`` with the value in YAML; a relative path in it is relative to the
    working directory. Raises ScenarioError, placed at ``--set a.b=value``; ``option`` says where else it was written.
    """
    place = f"{option} {override}"
    path, value = _parse(override, place)
    data = _replaced(document.data, path, value, place)

    def surviving(parts: Mapping[KeyPath, _Part]) -> dict[KeyPath, _Part]:  # what lay beneath the value is gone
        return {key: part for key, part in parts.items() if key[: len(path)] != path}

    made = [path[:depth] for depth in range(1, len(path)) if not _stands(document.data, path[:depth])]
    return replace(
        document,
        data=data,
        lines=surviving(document.lines),
        includes=surviving(document.includes),
        overrides=surviving(document.overrides) | {path: place},
        made=surviving(document.made) | dict.fromkeys(made, place),
    )


def apply_override(data: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of a scenario's plain data with one value replaced: ``apply_override(data, "seed=7")``.

    Numbers in the path count the items of a list from 0 (``workload.classes.0.share``). Whether the
    key exists at all is for the schema to say.
    """
    place = f"--set {override}"
    return _replaced(data, *_parse(override, place), place)


def _replaced(data: Mapping[str, Any], path: KeyPath, value: Any, place: str) -> dict[str, Any]:
    result: dict[str, Any] = copy.deepcopy(dict(data))
    part: Any = result
    for depth, key in enumerate(path[:-1], 1):
        index = _index(part, key, path[:depth], place)
        inner = part[index] if isinstance(part, list) else part.get(index)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and path[:depth] in _SHORT_FOR:
            inner = {_SHORT_FOR[path[:depth]]: inner}
        part[index] = inner
        part = inner
    part[_index(part, path[-1], path, place)] = value
    return result


def _parse(override: str, place: str) -> tuple[KeyPath, Any]:
    text, equals, value = override.partition("=")
    keys = [key.strip() for key in text.split(".")]
    if not equals or not all(keys):
        remedy = "write path=value, for example instance.scheduler.policy=sjf"
        raise ScenarioError("this sets nothing", place=place, remedy=remedy)
    path = tuple(int(key) if key.isascii() and key.isdigit() else key for key in keys)
    try:
        return path, anchored(parse_scalar(value), Path.cwd(), path, place=place)
    except ScenarioError as error:
        raise ScenarioError(error.message, place=place, remedy=error.remedy) from None


def _stands(data: Any, path: KeyPath) -> bool:
    """Whether there is something at a path: null is nothing, as for whoever sets something in it."""
    for key in path:
        if isinstance(data, list):
            data = data[key] if isinstance(key, int) and key < len(data) else None
        else:
            data = data.get(str(key)) if isinstance(data, Mapping) else None
    return data is not None


def _index(part: Any, key: str | int, path: KeyPath, place: str) -> Any:
    """``key`` as it leads into ``part``; ``path`` is that of the key, for the message."""
    around = dotted(path[:-1])
    if isinstance(part, dict):
        return str(key)
    if not isinstance(part, list):
        raise ScenarioError(f"'{around}' is {part!r} and has no '{key}'", place=place)
    if not isinstance(key, int) or key >= len(part):
        items = f"{len(part)} item{'s' if len(part) != 1 else ''}"
        remedy = f"write a number from 0 to {len(part) - 1}" if part else None
        raise ScenarioError(f"'{around}' is a list of {items} and has no '{key}'", place=place, remedy=remedy)
    return key
