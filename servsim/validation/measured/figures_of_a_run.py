"""What a simulated run says in the terms of the measurements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servsim.simulation import Result

__all__ = ["latencies", "mean_latencies", "throughput"]

_SHARES = {"p50": 50, "p90": 90, "p99": 99}


def latencies(result: Result, *, skip: int = 0) -> Mapping[str, float]:
    """Mean, p50, p90 and p99 of TTFT, TPOT and E2E over all requests but the first ``skip``, in seconds."""
    rows = result.requests.sort_values("request_id").iloc[skip:]
    figures: dict[str, float] = {}
    for name in ("ttft", "tpot", "e2e"):
        values = rows[f"{name}_s"].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        figures[f"{name}_mean"] = float(np.mean(values))
        figures |= {f"{name}_{key}": float(np.percentile(values, share)) for key, share in _SHARES.items()}
    return figures


def mean_latencies(result: Result) -> Mapping[str, float]:
    """The means of TTFT and TPOT: all that some measurements tell."""
    figures = latencies(result)
    return {key: figures[key] for key in ("ttft_mean", "tpot_mean")}


def throughput(result: Result, *, skip: int = 0) -> float:
    """Output tokens a second, from the first arrival to the last finish."""
    rows = result.requests.sort_values("request_id").iloc[skip:]
    return float(rows.output_tokens.sum() / (rows.finish_s.max() - rows.arrival_s.min()))
