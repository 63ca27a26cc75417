"""Running, waiting and KV over time: what an engine logged every second, beside the simulation's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from servsim.simulation import Result

__all__ = ["SAMPLED", "Curves", "watched"]

SAMPLED = ("t", "running", "waiting", "kv_cache_pct")
"""The columns of an engine's samples."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Columns of one length: seconds, and each quantity as measured and as predicted (requests, share of KV)."""

    table: pd.DataFrame

    def mean_distance(self, quantity: str) -> float:
        """The mean of |predicted - measured|, as a share of the largest measured value; NaN where nothing was."""
        measured = self.table[f"measured_{quantity}"].to_numpy(dtype=float)
        highest = float(measured.max())
        if highest <= 0:
            return float("nan")
        return float(np.mean(np.abs(self.table[f"predicted_{quantity}"].to_numpy(dtype=float) - measured)) / highest)


def watched(samples: pd.DataFrame, result: Result) -> Curves:
    """The engine's samples (columns ``SAMPLED``, ``t`` in seconds) beside the simulation's."""
    at_s = samples.t.to_numpy(dtype=float)
    strides = result.strides.sort_values("end_s")
    place = np.searchsorted(strides.end_s.to_numpy(dtype=float), at_s)  # the stride under way
    place = np.minimum(place, len(strides) - 1)
    over = at_s > float(strides.end_s.iloc[-1])
    kv = (strides.kv_blocks_used / strides.kv_blocks_total).to_numpy(dtype=float)[place]
    waiting = strides.waiting.to_numpy(dtype=float)[place]
    inside = _inside(result.requests, at_s)
    table = pd.DataFrame(
        {
            "time_s": at_s,
            "measured_running": samples.running,
            "predicted_running": np.where(over, 0.0, np.maximum(0.0, inside - waiting)),
            "measured_waiting": samples.waiting,
            "predicted_waiting": np.where(over, 0.0, waiting),
            "measured_kv": samples.kv_cache_pct / 100,
            "predicted_kv": np.where(over, 0.0, kv),
        }
    )
    return Curves(table)


def _inside(requests: pd.DataFrame, at_s: np.ndarray) -> np.ndarray:
    """How many requests have arrived and not finished at each time."""
    arrived = np.searchsorted(np.sort(requests.arrival_s.to_numpy(dtype=float)), at_s, side="right")
    finished = np.searchsorted(np.sort(requests.finish_s.to_numpy(dtype=float)), at_s, side="right")
    return np.asarray(arrived - finished, dtype=float)
