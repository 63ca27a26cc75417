"""Figures that claims are judged by, measured on one run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from servsim.metrics.token_times import all_token_times
from servsim.records import FINISHED
from servsim.simulation import Result
from servsim.validation.claim import ratio

__all__ = [
    "evictions",
    "highest_within",
    "latencies_by_class",
    "longest_gaps_s",
    "normalized_latency_s",
    "overtime",
    "quantile",
    "within",
]


def quantile(values: NDArray[np.float64], share: float) -> float:
    """A quantile by linear interpolation, NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else float("nan")


def longest_gaps_s(result: Result) -> NDArray[np.float64]:
    """The longest wait of each finished request between two tokens, 0 for a single token; in request order."""
    longest = {
        request: float(np.diff(times).max()) if len(times) > 1 else 0.0
        for request, times in all_token_times(result.records)
    }
    requests = result.records.requests
    ids = requests["request_id"][requests["status"] == FINISHED]
    return np.array([longest[int(one)] for one in ids])


def within(result: Result, ttft_s: float, longest_gap_s: float) -> float:
    """Requests per second whose first token and whose every further token came in time.

    Per second of the time from the first arrival to the last finish, as for goodput.
    """
    requests = result.records.requests
    finished = requests["status"] == FINISHED
    in_time = requests["first_token_s"][finished] - requests["arrival_s"][finished] <= ttft_s
    met = int((in_time & (longest_gaps_s(result) <= longest_gap_s)).sum())
    duration_s = result.summary["duration_s"]
    return met / duration_s if duration_s else float("nan")


def normalized_latency_s(result: Result) -> float:
    """The mean of seconds from arrival to last token for each output token, as vLLM's paper measures; NaN of nobody."""
    requests = result.records.requests
    finished = requests["status"] == FINISHED
    if not finished.any():
        return float("nan")
    e2e_s = requests["finish_s"][finished] - requests["arrival_s"][finished]
    return float((e2e_s / requests["output_tokens"][finished]).mean())


def highest_within(by_rate: Mapping[float, float], bound: float) -> float:
    """The highest rate up to which the figures of all rates are at most ``bound``; NaN if the lowest one's is not."""
    highest = float("nan")
    for rate, found in sorted(by_rate.items()):
        if not found <= bound:
            break
        highest = rate
    return highest


def evictions(result: Result) -> float:
    """Preemptions for each request."""
    return float(result.summary["preemptions"]["total"] / max(1, result.summary["counts"]["submitted"]))


def latencies_by_class(result: Result) -> Mapping[str, NDArray[np.float64]]:
    """Seconds from arrival to last token of the finished requests of each class."""
    requests = result.records.requests
    finished = requests["status"] == FINISHED
    e2e_s = requests["finish_s"] - requests["arrival_s"]
    return {
        name: e2e_s[finished & (requests["slo_class"] == code)] for code, name in enumerate(result.records.slo_classes)
    }


def overtime(result: Result) -> float:
    """How much longer the run took than its arrivals, as a share: near 0 where the server keeps up."""
    last_s = float(result.records.requests["arrival_s"].max())
    return ratio(float(result.summary["duration_s"] or 0.0), last_s) - 1
