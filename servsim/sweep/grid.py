"""Grids: the values that are varied, and every combination of them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from servsim.errors import ScenarioError
from servsim.scenario import Scenario

__all__ = ["Axis", "Variant", "number", "parse_axis", "variants"]

_CLOSES = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True, slots=True)
class Axis:
    """One path of a scenario and the values it takes, each as it was written (a YAML scalar)."""

    path: str
    values: tuple[str, ...]

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The values as numbers, or None if one of them is none."""
        numbers = [found for value in self.values if (found := number(value)) is not None]
        return tuple(numbers) if len(numbers) == len(self.values) else None

    def label(self, value: str) -> str:
        """How a figure calls one value: a name speaks for itself, a number needs its key, a mapping its first value.

        A mapping of mappings, such as tiers, is called by its keys.
        """
        firsts = [_first_value(other) for other in self.values]
        if None not in firsts and len(set(firsts)) == len(firsts):
            return str(_first_value(value))
        plain_name = number(value) is None and value.lower() not in ("true", "false", "null", "~")
        return value if plain_name else f"{self.path.rpartition('.')[2]}={value}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of values: its name in tables, its folder, and what it sets."""

    label: str
    folder: str
    values: dict[str, str]  # path: value as written

    @property
    def overrides(self) -> tuple[str, ...]:
        """The values in the form of ``--set``."""
        return tuple(f"{path}={value}" for path, value in self.values.items())

    def of(self, scenario: Scenario, seed: int | None = None) -> Scenario:
        """The scenario with these values, and under another seed; raises ScenarioError, placed at ``--vary``."""
        seeds = [] if seed is None else [f"seed={seed}"]
        return scenario.with_overrides([*self.overrides, *seeds], option="--vary")


def parse_axis(text: str) -> Axis:
    """An axis from ``path=a,b,c``; commas in brackets and quotes belong to a value.

    Raises ScenarioError when there is no value, or one twice.
    """
    path, equals, rest = text.partition("=")
    values = tuple(value.strip() for value in _split(rest))
    place = f"--vary {text}"
    if not equals or not path.strip() or not all(values):
        remedy = "write path=value,value, for example instance.scheduler.policy=fcfs,sjf"
        raise ScenarioError("this varies nothing", place=place, remedy=remedy)
    twice = [value for place_, value in enumerate(values) if value in values[:place_]]
    if twice:
        raise ScenarioError(f"the value {twice[0]} stands here twice", place=place)
    return Axis(path.strip(), values)


def variants(axes: Sequence[Axis]) -> list[Variant]:
    """Every combination, the last axis running fastest; one variant that changes nothing for no axes.

    Raises ScenarioError for a path that is varied twice.
    """
    paths = [axis.path for axis in axes]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ScenarioError(f"{path} is varied twice", place=f"--vary {path}", remedy="join the values with commas")
    found: list[Variant] = []
    taken: set[str] = set()
    for values in itertools.product(*(axis.values for axis in axes)):
        label = ", ".join(axis.label(value) for axis, value in zip(axes, values, strict=True)) or "as written"
        folder = _unique(_folder(label), taken)
        taken.add(folder)
        found.append(Variant(label, folder, dict(zip(paths, values, strict=True))))
    return found


def number(text: str) -> float | None:
    """The finite number that a value is; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _first_value(text: str) -> str | None:
    """``poisson`` of ``{process: poisson, rate_per_s: 5}``, ``cpu+ssd`` of ``{cpu: {..}, ssd: {..}}``.

    ``none`` for an empty mapping; None for what is no mapping.
    """
    if re.fullmatch(r"\{\s*\}", text):
        return "none"
    nested = re.match(r"\{\s*[\w.-]+\s*:\s*\{", text)
    if nested and text.endswith("}"):
        return "+".join(part.partition(":")[0].strip() for part in _split(text[1:-1]))
    match = re.match(r"\{\s*\w+\s*:\s*([\w.-]+)\s*[,}]", text)
    return match[1] if match else None


def _split(text: str) -> Iterable[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    part, closing, quote = "", [], ""
    for mark in text:
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        elif mark in _CLOSES:
            closing.append(_CLOSES[mark])
        elif closing and mark == closing[-1]:
            closing.pop()
        elif mark == "," and not closing:
            yield part
            part = ""
            continue
        part += mark
    yield part


def _folder(label: str) -> str:
    """A folder's name that every system takes."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", label).strip("-.")[:80] or "variant"


def _unique(name: str, taken: set[str]) -> str:
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)
