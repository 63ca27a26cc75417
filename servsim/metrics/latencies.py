"""Latencies of single requests, and the table of requests that a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.metrics.slo import Judgement, Slo, judge
from servsim.records import FINISHED, STATUSES

if TYPE_CHECKING:
    from servsim.records import Records

__all__ = ["REQUEST_COLUMNS", "Latencies", "derive", "judge_requests", "latencies"]

REQUEST_COLUMNS = (
    "request_id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "tenant",
    "slo_class",
    "instance",
    "scheduled_s",
    "first_token_s",
    "finish_s",
    "queue_s",
    "transfer_wait_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "preemptions",
    "status",
    "slo_met",
)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies in seconds, a row a request; NaN where one is undefined.

    The definitions are those of ``vllm bench serve``: TTFT is first token - arrival, TPOT is
    (last token - first token) / (n - 1) and undefined for n = 1, E2E is last token - arrival.
    ``queue_s`` is first scheduling - arrival. ``finished`` says who got its last token.
    """

    finished: NDArray[np.bool_]
    queue_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]


def latencies(records: Records) -> Latencies:
    """The latencies of every request of a run, in the order of ``records.requests``."""
    requests = records.requests
    arrival_s, first_token_s = requests["arrival_s"], requests["first_token_s"]
    gaps = (requests["output_tokens"] - 1).astype(np.float64)
    gaps[gaps <= 0] = np.nan
    finished = requests["status"] == FINISHED
    finish_s = np.where(finished, requests["finish_s"], np.nan)
    return Latencies(
        finished=finished,
        queue_s=requests["scheduled_s"] - arrival_s,
        ttft_s=first_token_s - arrival_s,
        tpot_s=(finish_s - first_token_s) / gaps,
        e2e_s=finish_s - arrival_s,
    )


def derive(records: Records, slo: Slo) -> dict[str, NDArray[Any]]:
    """The columns of ``requests.csv`` (:data:`REQUEST_COLUMNS`), a row a submitted request.

    ``tenant``, ``slo_class`` and ``status`` are strings; ``slo_met`` is a masked boolean array, masked
    where a request had no bound to meet. Times and latencies are in seconds, NaN where they never were.
    """
    requests = records.requests
    found = latencies(records)
    judgement = judge_requests(records, found, slo)
    columns: dict[str, NDArray[Any]] = dict(requests)
    columns["tenant"] = _named(records.tenants, requests["tenant"])
    columns["slo_class"] = _named(records.slo_classes, requests["slo_class"])
    columns["status"] = _named(STATUSES, requests["status"])
    for name in ("queue_s", "ttft_s", "tpot_s", "e2e_s"):
        columns[name] = getattr(found, name)
    columns["slo_met"] = np.ma.MaskedArray(judgement.met, mask=~judgement.judged)
    return {name: columns[name] for name in REQUEST_COLUMNS}


def judge_requests(records: Records, found: Latencies, slo: Slo) -> Judgement:
    """Who met the bounds of ``slo``, for every request of ``records``."""
    return judge(
        slo,
        classes=records.slo_classes,
        slo_class=records.requests["slo_class"],
        finished=found.finished,
        latencies_s={"ttft_s": found.ttft_s, "tpot_s": found.tpot_s, "e2e_s": found.e2e_s},
    )


def _named(names: tuple[str, ...], codes: NDArray[Any]) -> NDArray[np.str_]:
    texts: NDArray[np.str_] = np.array(names, dtype=np.str_)[codes]
    return texts
