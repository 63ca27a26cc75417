"""Predicting measured runs, spread over processes, and how far each prediction is off."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from servsim.errors import ServsimError
from servsim.scenario import load_scenario
from servsim.setup import Setup
from servsim.simulation import simulate
from servsim.sweep import Failure
from servsim.sweep.processes import all_of
from servsim.validation.measured.datasets import DATASETS
from servsim.validation.measured.run import MeasuredRun
from servsim.validation.measured.watching import Curves, watched

__all__ = ["Compared", "Comparison", "compare_run", "compare_runs"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured run with what was predicted for it, by metric; curves and requests where they were measured."""

    run: MeasuredRun
    predicted: Mapping[str, float]
    requests: pd.DataFrame | None = field(default=None, repr=False)  # measured and predicted, side by side
    curves: Curves | None = field(default=None, repr=False)

    def error(self, metric: str) -> float | None:
        """(predicted - measured) / measured; None where either is missing. Errors themselves are taken as they are."""
        if metric == "each_e2e":
            return self.predicted.get(metric)
        return _relative(self.predicted.get(metric), self.run.measured.get(metric))

    def peer_error(self, peer: str, metric: str) -> float | None:
        """The same for a peer's prediction."""
        return _relative(self.run.peers.get(peer, {}).get(metric), self.run.measured.get(metric))


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of many runs, each in their order; ``unfinished`` are those that Ctrl-C kept from ending."""

    comparisons: list[Comparison]
    failures: list[Failure]
    unfinished: list[MeasuredRun]

    @property
    def in_whole_datasets(self) -> list[Comparison]:
        """The comparisons of those datasets of which no run is unfinished."""
        broken = {run.dataset for run in self.unfinished}
        return [one for one in self.comparisons if one.run.dataset not in broken]


def compare_run(run: MeasuredRun) -> Comparison | Failure | None:
    """Simulate a run and measure it in the terms of its dataset; None after Ctrl-C."""
    try:
        return _compared(run)
    except ServsimError as error:
        return Failure(run.name, str(error), traceback.format_exc(), is_bug=False)
    except Exception as error:
        # One run must not take the others' results away, whatever happened to it.
        return Failure(run.name, f"{type(error).__name__}: {error}", traceback.format_exc(), is_bug=True)


def compare_runs(
    runs: Sequence[MeasuredRun], num_processes: int | None = None, on_end: Callable[[], None] | None = None
) -> Compared:
    """Predict all runs; after Ctrl-C what has ended by then is kept."""
    found = all_of(compare_run, runs, num_processes, on_end)
    return Compared(
        [one for one in found if isinstance(one, Comparison)],
        [one for one in found if isinstance(one, Failure)],
        [run for run, one in zip(runs, found, strict=True) if one is None],
    )


def _compared(run: MeasuredRun) -> Comparison | None:
    result = simulate(run.scenario)
    if result.summary["partial"]:
        return None
    predicted = dict(DATASETS[run.dataset].measure(result))
    if "kv_blocks" in run.measured:
        predicted["kv_blocks"] = _kv_blocks(run)
    requests: pd.DataFrame | None = None
    curves: Curves | None = None
    if run.requests is not None:
        requests = _side_by_side(run, result.requests)
        predicted["each_e2e"] = float(np.mean(np.abs(requests.predicted_e2e_s / requests.measured_e2e_s - 1)))
    if run.samples is not None:
        curves = watched(pd.read_csv(run.samples), result)
    return Comparison(run, predicted, requests, curves)


def _kv_blocks(run: MeasuredRun) -> float:
    """What our memory budget gives, whatever number the scenario was given."""
    instance: dict[str, Any] = dict(run.scenario["instance"])
    memory = {key: value for key, value in instance.get("memory", {}).items() if key != "num_blocks"}
    scenario = load_scenario({**run.scenario, "instance": {**instance, "memory": memory}})
    return float(Setup.of(scenario).budget.num_blocks)


def _side_by_side(run: MeasuredRun, requests: pd.DataFrame) -> pd.DataFrame:
    assert run.requests is not None
    measured = pd.read_csv(run.requests).set_index("request_id").iloc[1:]
    ours = requests.set_index("request_id").loc[measured.index]
    return pd.DataFrame(
        {
            "prompt_tokens": measured.prompt_tokens,
            "output_tokens": measured.output_tokens,
            "measured_ttft_s": measured.ttft_from_arrival_s,
            "predicted_ttft_s": ours.ttft_s,
            "measured_tpot_s": measured.tpot_s,
            "predicted_tpot_s": ours.tpot_s,
            "measured_e2e_s": measured.e2e_from_arrival_s,
            "predicted_e2e_s": ours.e2e_s,
        }
    )


def _relative(value: float | None, measured: float | None) -> float | None:
    return None if value is None or not measured else value / measured - 1
