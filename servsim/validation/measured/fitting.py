"""Fitting an engine's constants on the runs named ``fit``: a pattern search, the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from servsim.errors import ScenarioError
from servsim.scenario.engine_preset import load_preset
from servsim.simulation import simulate
from servsim.validation.measured.run import Dataset, MeasuredRun

__all__ = ["CONSTANTS", "Constant", "Fit", "fit_engine", "loss_of"]

_WEIGHTS = {"tpot_mean": 1.0, "e2e_mean": 0.5, "ttft_mean": 0.3, "output_tokens_per_s": 1.0}
_HALVINGS = 2
_MOST_RUNS = 20  # of many fit runs every so-manieth is taken: a fit takes minutes then


@dataclass(frozen=True, slots=True)
class Constant:
    """One number of an engine's file: its place under ``instance``, the step of the search, and its bounds."""

    part: str
    key: str
    step: float
    highest: float
    lowest: float = 0.0

    @property
    def name(self) -> str:
        """As a scenario writes it."""
        return f"{self.part}.{self.key}"


_GAP = Constant("cost", "gap_s", 4e-4, 0.02)
_SEQUENCE_GAP = Constant("cost", "sequence_gap_s", 1e-5, 2e-4)
_LAYER = Constant("cost", "eager_layer_s", 1e-4, 2e-3)
_ELEMENTWISE = Constant("cost", "elementwise_launch_s", 1e-6, 6e-6, 1e-6)
_RAGGED = Constant("cost", "ragged_attention", 0.1, 2.0, 1.0)
_MIXED = Constant("cost", "mixed_attention", 0.2, 2.0, 1.0)
_FP8 = Constant("cost", "fp8_gemm_launch_s", 2e-6, 2e-5)
_REQUEST = Constant("frontend", "request_s", 4e-3, 0.5)
_PROMPT_TOKEN = Constant("frontend", "prompt_token_s", 4e-6, 1e-4)
_HOST = Constant("cost", "host_step_s", 4e-4, 0.02)
_HOST_SEQUENCE = Constant("cost", "host_sequence_s", 1e-5, 2e-4)
_IN_SERIES = (_HOST, _HOST_SEQUENCE, _LAYER, _ELEMENTWISE, _REQUEST)
_PLAIN = (_GAP, _SEQUENCE_GAP, _LAYER, _ELEMENTWISE, _REQUEST)

CONSTANTS: Mapping[str, tuple[Constant, ...]] = {
    "vllm-0.19": (_SEQUENCE_GAP,),
    "vllm-0.15": (_GAP, _SEQUENCE_GAP, _LAYER, _REQUEST),
    "vllm-0.12": _IN_SERIES,
    "vllm-0.11": (*_PLAIN, _FP8),
    "vllm-0.6": (*_IN_SERIES, _FP8, _PROMPT_TOKEN),
    "trtllm-1.0": (*_PLAIN, _FP8),
    "sglang-0.5": _PLAIN,
}
"""What is fitted, by engine; everything else in its file is stated, not fitted."""


@dataclass(frozen=True, slots=True)
class Fit:
    """An engine's constants by name, and the loss at the start and at the end."""

    engine: str
    runs: int
    values: Mapping[str, float]
    loss_before: float
    loss_after: float


def loss_of(dataset: Dataset, runs: Sequence[MeasuredRun], values: Mapping[str, float]) -> float:
    """The weighted mean of |ln(predicted / measured)| over the runs' mean figures, with these constants.

    Raises KeyboardInterrupt after Ctrl-C: a loss over part of a run would lead the search astray.
    """
    total = weights = 0.0
    for run in runs:
        result = simulate(_with(run.scenario, values))
        if result.summary["partial"]:
            raise KeyboardInterrupt
        predicted = dataset.measure(result)
        for name, weight in _WEIGHTS.items():
            if name in run.measured and predicted.get(name, 0.0) > 0:
                total += weight * abs(math.log(predicted[name] / run.measured[name]))
                weights += weight
    return total / weights


def fit_engine(
    dataset: Dataset, runs: Sequence[MeasuredRun], engine: str, on_step: Callable[[float], None] | None = None
) -> Fit:
    """The constants that make the loss on the engine's runs named ``fit`` smallest, from those in its file.

    One constant at a time goes a step up or down while that helps; when none helps, all steps are halved, twice
    in all. Of many runs, evenly spaced ones are taken. Raises ScenarioError where no run is named ``fit``.
    """
    ours = [run for run in runs if run.role == "fit" and run.scenario["instance"]["engine"] == engine]
    if not ours:
        raise ScenarioError(f"no run of {dataset.name} is there to fit {engine} on")
    ours = ours[:: math.ceil(len(ours) / _MOST_RUNS)]
    constants = CONSTANTS[engine]
    values = _start(engine, constants)
    before = best = loss_of(dataset, ours, values)
    scale = 1.0
    for _ in range(_HALVINGS + 1):
        moved = True
        while moved:
            moved = False
            for constant in constants:
                for direction in (1.0, -1.0):
                    found = _walk(dataset, ours, values, constant, direction * scale, best)
                    if found < best:
                        best, moved = found, True
                        break
                if on_step is not None:
                    on_step(best)
        scale /= 2
    return Fit(engine, len(ours), values, before, best)


def _walk(
    dataset: Dataset, runs: Sequence[MeasuredRun], values: dict[str, float], constant: Constant, by: float, best: float
) -> float:
    """Step while it helps; ``values`` is left where it was best. Returns the smallest loss found."""
    while True:
        tried = min(constant.highest, max(constant.lowest, values[constant.name] + by * constant.step))
        if tried == values[constant.name]:
            return best
        found = loss_of(dataset, runs, {**values, constant.name: tried})
        if found >= best * (1 - 1e-4):
            return best
        values[constant.name], best = tried, found


def _start(engine: str, constants: Sequence[Constant]) -> dict[str, float]:
    preset = load_preset(engine)
    defaults = {_RAGGED.name: 1.0, _MIXED.name: 1.0, _ELEMENTWISE.name: 4e-6, _FP8.name: 1e-5}
    return {one.name: float(getattr(preset, one.part).get(one.key, defaults.get(one.name, 0.0))) for one in constants}


def _with(scenario: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    changed = deepcopy(dict(scenario))
    for name, value in values.items():
        part, key = name.split(".")
        changed["instance"].setdefault(part, {})[key] = value
    return changed
