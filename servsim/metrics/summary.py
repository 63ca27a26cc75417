"""The summary of a run: the content of ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.metrics.latencies import Latencies, judge_requests, latencies
from servsim.metrics.occupancy import Span, batches, kv_memory
from servsim.metrics.slo import Judgement, attainment, bounds_by_class
from servsim.metrics.stationarity import steady_state
from servsim.metrics.statistics import describe
from servsim.metrics.token_times import TokenGaps
from servsim.records import FINISHED, REJECTED, UNFINISHED

if TYPE_CHECKING:
    from servsim.records import Records
    from servsim.scenario import Scenario

__all__ = ["SCHEMA_VERSION", "summarise"]

SCHEMA_VERSION = 1


def summarise(
    records: Records,
    scenario: Scenario,
    *,
    calibration: str,
    version: str,
    scheduler: Mapping[str, Any] | None = None,
    outside_range: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Everything that one run says, as nested plain Python values; None where a figure is undefined.

    The figures at the top are those of the whole run. Where the scenario cuts a warm-up or a cool-down off,
    ``measured_window`` holds the same figures for the requests that arrived in between: their latencies,
    and the state of batches and memory during the window. Latencies are those of finished requests.
    ``calibration`` says how far the device's efficiencies were measured, ``version`` is servsim's, ``scheduler`` what
    the scheduler was set to, defaults included; ``memory`` is what the allocators counted; ``outside_range`` counts
    where the cost model left what was measured.
    """
    figures = _Figures(records, scenario)
    everybody = np.ones(len(records.requests["request_id"]), dtype=bool)
    whole = figures.of(everybody, _whole_run(records))
    window = _window(records, scenario)
    measured = None
    if window is not None:
        arrival_s = records.requests["arrival_s"]
        inside = (arrival_s >= window.start_s) & (arrival_s <= window.end_s)
        measured = {"start_s": window.start_s, "end_s": window.end_s, **figures.of(inside, window)}
    steadiness = steady_state(records)
    bounds = bounds_by_class(scenario.slo, records.slo_classes)
    return {
        "schema_version": SCHEMA_VERSION,
        "servsim_version": version,
        "name": scenario.name,
        "seed": scenario.seed,
        "calibration": calibration,
        "outside_measured_range": dict(outside_range or {}),
        "scheduler": None if scheduler is None else dict(scheduler),
        "partial": records.partial,
        "warnings": [*records.notes, *_warnings(records, scenario, measured, steadiness)],
        "slo_bounds": bounds if any(bounds.values()) else None,
        **whole,
        "memory": dict(records.memory) or None,
        "steady_state": steadiness,
        "measured_window": measured,
    }


class _Figures:
    """What the figures of any set of requests are made from."""

    def __init__(self, records: Records, scenario: Scenario) -> None:
        self._records = records
        self._instances = scenario.num_engines
        self._latencies: Latencies = latencies(records)
        self._judgement: Judgement = judge_requests(records, self._latencies, scenario.slo)
        self._gaps = TokenGaps(records)

    def of(self, select: NDArray[np.bool_], span: Span) -> dict[str, Any]:
        """The figures of the selected requests; batches and memory during ``span``."""
        requests, found = self._records.requests, self._latencies
        finished = select & found.finished
        duration_s = _duration_s(requests, select, finished)
        slo = attainment(
            self._judgement,
            select,
            groups={
                "class": (self._records.slo_classes, requests["slo_class"]),
                "tenant": (self._records.tenants, requests["tenant"]),
            },
        )
        tokens = {name: int(requests[name][finished].sum()) for name in _TOKENS}
        if self._records.further_tokens is not None:
            tokens["output_tokens"] += int(self._records.further_tokens[finished].sum())
        return {
            "counts": _counts(requests, select, slo),
            "duration_s": duration_s,
            "arrival_rate_per_s": _arrival_rate(requests["arrival_s"][select]),
            "tokens": tokens,
            "throughput": {
                "requests_per_s": _per_s(int(finished.sum()), duration_s),
                "output_tokens_per_s": _per_s(tokens["output_tokens"], duration_s),
                "total_tokens_per_s": _per_s(tokens["prompt_tokens"] + tokens["output_tokens"], duration_s),
            },
            "goodput_per_s": None if slo is None else _per_s(slo["met"], duration_s),
            "slo": slo,
            "ttft_s": describe(found.ttft_s[finished]),
            "tpot_s": describe(found.tpot_s[finished]),
            "itl_s": self._gaps.of(select).describe(),
            "e2e_s": describe(found.e2e_s[finished]),
            "queue_s": describe(found.queue_s[finished]),
            "transfer_wait_s": describe(requests["transfer_wait_s"][finished]),
            "preemptions": _preemptions(requests["preemptions"][select]),
            "batches": batches(self._records, span, self._instances),
            "prefix_cache": _prefix_cache(requests, select),
            "kv_memory": kv_memory(self._records, span, self._instances),
            "littles_law": _littles_law(self._records, found, finished, span),
        }


_TOKENS = ("prompt_tokens", "output_tokens", "cached_tokens")


def _counts(requests: Mapping[str, NDArray[Any]], select: NDArray[np.bool_], slo: Any) -> dict[str, int]:
    status = requests["status"][select]
    return {
        "submitted": len(status),
        "finished": int((status == FINISHED).sum()),
        "rejected": int((status == REJECTED).sum()),
        "unfinished": int((status == UNFINISHED).sum()),
        "single_token": int(((status == FINISHED) & (requests["output_tokens"][select] == 1)).sum()),
        "not_judged": len(status) if slo is None else slo["not_judged"],
    }


def _prefix_cache(requests: Mapping[str, NDArray[Any]], select: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Prompt tokens that were found when their request was first scheduled, of all prompt tokens scheduled so."""
    scheduled = select & np.isfinite(requests["scheduled_s"])
    prompt_tokens = int(requests["prompt_tokens"][scheduled].sum(dtype=np.int64))
    cached_tokens = int(requests["cached_tokens"][scheduled].sum(dtype=np.int64))
    hit_ratio = cached_tokens / prompt_tokens if prompt_tokens else None
    miss_ratio = None if hit_ratio is None else 1.0 - hit_ratio
    return {
        "cached_tokens": cached_tokens,
        "prompt_tokens": prompt_tokens,
        "hit_ratio": hit_ratio,
        "miss_ratio": miss_ratio,
    }


def _preemptions(preemptions: NDArray[Any]) -> dict[str, int]:
    return {"total": int(preemptions.sum()), "requests": int((preemptions > 0).sum())}


def _whole_run(records: Records) -> Span:
    """From the first arrival to the last thing that happened."""
    requests, strides = records.requests, records.strides
    if not len(requests["arrival_s"]):
        return Span(0.0, 0.0)
    happened_s = strides["end_s"] if len(strides["end_s"]) else requests["arrival_s"]
    return Span(float(requests["arrival_s"].min()), float(happened_s.max()))


def _window(records: Records, scenario: Scenario) -> Span | None:
    """The measured window, where a cut was asked for."""
    cut = scenario.metrics
    if not (cut.warmup_s or cut.cooldown_s):
        return None
    return Span(float(cut.warmup_s), float(records.requests["arrival_s"].max(initial=0.0) - cut.cooldown_s))


def _duration_s(
    requests: Mapping[str, NDArray[Any]], select: NDArray[np.bool_], finished: NDArray[np.bool_]
) -> float | None:
    """From the first arrival to the last finish."""
    if not finished.any():
        return None
    return float(requests["finish_s"][finished].max() - requests["arrival_s"][select].min())


def _arrival_rate(arrival_s: NDArray[np.float64]) -> float | None:
    """Gaps between arrivals a second; undefined when all arrive at once."""
    period_s = float(np.ptp(arrival_s)) if len(arrival_s) else 0.0
    return (len(arrival_s) - 1) / period_s if period_s else None


def _per_s(count: int, duration_s: float | None) -> float | None:
    if duration_s:
        return count / duration_s
    return None if count else 0.0


def _littles_law(
    records: Records, found: Latencies, finished: NDArray[np.bool_], span: Span
) -> dict[str, float | None]:
    """The mean number in the system over the span, counted, beside arrival rate times mean time in it.

    In a steady state the two agree but for noise and the edges of the span; over a whole run in which
    everything finished, they agree exactly.
    """
    requests = records.requests
    inside = requests["status"] != REJECTED
    left_s = np.nan_to_num(requests["finish_s"][inside], nan=np.inf)
    in_system_s = float(span.overlap_s(requests["arrival_s"][inside], left_s).sum())
    time_in_system_s = float(found.e2e_s[finished].sum())
    return {
        "mean_in_system": in_system_s / span.length_s if span.length_s else None,
        "rate_times_mean_time": time_in_system_s / span.length_s if span.length_s else None,
    }


def _warnings(
    records: Records, scenario: Scenario, measured: Mapping[str, Any] | None, steadiness: Mapping[str, Any]
) -> list[str]:
    found = []
    status = records.requests["status"]
    rejected, unfinished = int((status == REJECTED).sum()), int((status == UNFINISHED).sum())
    if rejected:
        shortest = int(records.requests["prompt_tokens"][status == REJECTED].min())
        found.append(
            f"{rejected} of {len(status)} requests could never fit and were rejected"
            f" (prompts from {shortest:,} tokens; servsim check tells the longest request and the KV capacity)"
        )
    if unfinished:
        found.append(f"{unfinished} of {len(status)} requests had not finished at the end; latencies leave them out")
    if measured is not None and not measured["counts"]["submitted"]:
        found.append("no request arrived in the measured window; shorten metrics.warmup_s or metrics.cooldown_s")
    if steadiness["verdict"] == "growing":
        found.append(_growth(steadiness))
    if isinstance(scenario.slo, Mapping):
        without = [name for name in records.slo_classes if name not in scenario.slo]
        if without:
            found.append(f"no SLO bounds for {', '.join(without)}: its requests are not judged")
    return found


def _growth(steadiness: Mapping[str, Any]) -> str:
    waiting, in_system = (
        ", ".join(f"{mean:.4g}" for mean in steadiness[f"{name}_by_third"]) for name in ("waiting", "in_system")
    )
    return (
        "requests were still piling up when arrivals ended: no steady state, and latencies depend on the run's length "
        f"(means over thirds of the arrival period: waiting {waiting}; in the system {in_system})"
    )
