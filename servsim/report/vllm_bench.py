"""Results of ``vllm bench serve --save-result``: measured ones read, simulated ones written.

The names are those of vLLM's benchmarks/serve.py (009e6d4). Lists are in seconds, statistics in milliseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.errors import ResultError
from servsim.metrics import all_token_times, derive
from servsim.report.folder import json_bytes

if TYPE_CHECKING:
    from servsim.records import Records
    from servsim.scenario import Scenario

__all__ = ["BenchResult", "bench_result", "read_bench", "write_bench"]

# vLLM's name of a metric, and ours.
_METRICS = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_STATISTICS = {"mean": "mean", "median": "p50", "std": "std", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@dataclass(frozen=True)
class BenchResult:
    """One measured run, a row a completed request; latencies in seconds, TPOT NaN for a single token.

    ``content`` is the whole file as it was read; ``failed`` counts the requests that were left out.
    """

    label: str
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]
    itl_s: NDArray[np.float64]  # of all requests, one after the other; empty when the file has none
    failed: int
    content: dict[str, Any]


def read_bench(path: Path) -> BenchResult:
    """Read a result with per-request lists; raises ResultError where it has none or they do not fit together.

    A request's end-to-end latency is ``latencies`` where the file has it, else TTFT plus all of its ``itls``.
    """
    content = _load(path)
    lists = {name: _list(path, content, name) for name in ("input_lens", "output_lens", "ttfts")}
    errors = _list(path, content, "errors") if content.get("errors") else [""] * len(lists["ttfts"])
    itls = _list(path, content, "itls") if content.get("itls") is not None else None
    latencies = _list(path, content, "latencies") if "latencies" in content else None
    if itls is None and latencies is None:
        raise _not_detailed(path, "itls")
    sizes = {len(column) for column in (*lists.values(), errors, itls, latencies) if column is not None}
    if len(sizes) != 1:
        raise ResultError(f"the lists have different lengths: {sorted(sizes)}", place=str(path))
    try:
        gaps_s = [np.array(one, dtype=np.float64).reshape(len(one)) for one in itls or []]
        e2e = latencies or [ttft + math.fsum(one) for ttft, one in zip(lists["ttfts"], gaps_s, strict=True)]
        columns = {name: np.array(column, dtype=np.float64) for name, column in {**lists, "e2e": e2e}.items()}
    except (TypeError, ValueError) as error:
        raise ResultError(f"a list holds something that is no number: {error}", place=str(path)) from error
    # A failed request has an error or no output; vLLM leaves both out of its statistics.
    kept = np.array([not error for error in errors], dtype=bool) & (columns["output_lens"] > 0)
    prompt, output, ttft_s, e2e_s = (columns[name][kept] for name in ("input_lens", "output_lens", "ttfts", "e2e"))
    gaps = np.where(output > 1, output - 1, np.nan)
    return BenchResult(
        label=str(content.get("label") or content.get("model_id") or path.stem),
        prompt_tokens=prompt.astype(np.int64),
        output_tokens=output.astype(np.int64),
        ttft_s=ttft_s,
        tpot_s=(e2e_s - ttft_s) / gaps,
        e2e_s=e2e_s,
        itl_s=np.concatenate([np.empty(0), *(one for one, keep in zip(gaps_s, kept, strict=False) if keep)]),
        failed=int((~kept).sum()),
        content=content,
    )


def bench_result(
    records: Records, scenario: Scenario, summary: Mapping[str, Any], *, detailed: bool = True, date: str = ""
) -> dict[str, Any]:
    """A simulated run as vLLM would have measured it; ``detailed`` adds the lists, of every token's gap too.

    A request that did not finish is a failed one, with its status as the error. ``date`` is left empty unless
    given, so that the same run gives the same bytes. ``burstiness`` is unknown to us (null).
    """
    rate = summary["arrival_rate_per_s"]
    counts, throughput, tokens = summary["counts"], summary["throughput"], summary["tokens"]
    times = dict(all_token_times(records)) if detailed else {}
    found: dict[str, Any] = {
        "date": date,
        "endpoint_type": "servsim",
        "backend": "servsim",
        "label": scenario.name,
        "model_id": str(scenario.model),
        "tokenizer_id": str(scenario.model),
        "num_prompts": counts["submitted"],
        "request_rate": "inf" if rate is None else rate,
        "burstiness": None,
        "max_concurrency": None,
        "duration": summary["duration_s"],
        "completed": counts["finished"],
        "failed": counts["submitted"] - counts["finished"],
        "total_input_tokens": tokens["prompt_tokens"],
        "total_output_tokens": tokens["output_tokens"],
        "request_throughput": throughput["requests_per_s"],
        "request_goodput": summary["goodput_per_s"],
        "output_throughput": throughput["output_tokens_per_s"],
        "total_token_throughput": throughput["total_tokens_per_s"],
        "max_output_tokens_per_s": _most_tokens(records, times) if detailed else None,
        "max_concurrent_requests": _most_requests(records),
    }
    if detailed:
        found |= _lists(records, scenario, times)
    for theirs, ours in _METRICS.items():
        for statistic, our_statistic in _STATISTICS.items():
            value_s = summary[ours][our_statistic]
            found[f"{statistic}_{theirs}_ms"] = None if value_s is None else value_s * 1e3
    return found


def write_bench(path: Path, result: Mapping[str, Any]) -> None:
    """Write what :func:`bench_result` returned."""
    path.write_bytes(json_bytes(result))


def _lists(records: Records, scenario: Scenario, times: Mapping[int, NDArray[np.float64]]) -> dict[str, list[Any]]:
    columns = derive(records, scenario.slo)
    done = columns["status"] == "finished"

    def whenever(name: str) -> list[float]:
        return [float(value) for value in np.where(done, columns[name], 0.0)]

    none = np.empty(0)
    return {
        "input_lens": columns["prompt_tokens"].tolist(),
        "output_lens": np.where(done, columns["output_tokens"], 0).tolist(),
        "ttfts": whenever("ttft_s"),
        "itls": [np.diff(times.get(request_id, none)).tolist() for request_id in columns["request_id"].tolist()],
        "latencies": whenever("e2e_s"),
        "start_times": columns["arrival_s"].tolist(),
        "queue_times": whenever("queue_s"),
        "generated_texts": [""] * len(done),
        "errors": np.where(done, "", columns["status"]).tolist(),
    }


def _most_tokens(records: Records, times: Mapping[int, NDArray[np.float64]]) -> float | None:
    """Output tokens in the fullest second, counted from the first arrival as vLLM does; None where it is not known."""
    if not times or records.further_tokens is not None:  # a request with several outputs emits several at a time
        return None
    since_s = records.requests["arrival_s"].min()
    return float(np.bincount((np.concatenate(list(times.values())) - since_s).astype(np.int64)).max())


def _most_requests(records: Records) -> int:
    """The most requests that touched one second, counted from the first arrival as vLLM does."""
    requests = records.requests
    done = ~np.isnan(requests["finish_s"])
    if not done.any():
        return 0
    since_s = requests["arrival_s"].min()
    entered = (requests["arrival_s"][done] - since_s).astype(np.int64)
    left = (requests["finish_s"][done] - since_s).astype(np.int64) + 1
    size = int(left.max()) + 1
    return int(np.cumsum(np.bincount(entered, minlength=size) - np.bincount(left, minlength=size)).max())


_REMEDY = "give a result folder of servsim, or the JSON of vllm bench serve --save-result --save-detailed"


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"cannot be read: {error.strerror}", place=str(path)) from error
    except ValueError as error:
        raise ResultError(f"not JSON: {error}", place=str(path), remedy=_REMEDY) from error
    if not isinstance(content, dict):
        raise ResultError("not a result of vllm bench serve: not an object", place=str(path), remedy=_REMEDY)
    return content


def _list(path: Path, content: Mapping[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    if not isinstance(found, list):
        raise _not_detailed(path, name)
    return found


def _not_detailed(path: Path, name: str) -> ResultError:
    return ResultError(
        f"there is no list {name!r}", place=str(path), remedy="run vllm bench serve with --save-result --save-detailed"
    )
