"""Describe a trace by tables: how the profiles in ``workloads/`` were made.

    python benchmarks/profile_trace.py AzureLLMInferenceTrace_conv.csv --source "..." --licence "..." > profile.yaml

The profile holds a quantile table of prompt lengths, one of output lengths for each range of prompt lengths, and the
arrival rate over time as steps. Beside it, on stderr, the trace is compared with requests drawn from the profile.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload
from servsim.streams import Streams
from servsim.workload import open_stream
from servsim.workload.replay import read_trace

TAIL_ERROR = 0.04  # of a quantile table, relative to the share of requests that are shorter, or longer if fewer are
LARGEST_ERROR = 0.008  # of the distribution function anywhere
SMALLEST_ERROR = 2e-4
PROMPT_RANGES = 12
RATE_BINS = 1000  # the finest steps that the rate is looked at in
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def quantile_table(lengths: np.ndarray, coarseness: float = 1.0) -> list[list[float]]:
    """Rows [share, length] between which the distribution function is linear, within the errors stated above."""
    values, counts = np.unique(lengths, return_counts=True)
    below = np.cumsum(counts) / len(lengths)
    # A whole length stands for the half-open interval around it, whence its rounding brings all of it back.
    edges = np.repeat(values.astype(float), 2) + np.tile([-0.5, 0.5], len(values))
    shares = np.append(0.0, np.repeat(below, 2)[:-1])
    edges[0], edges[-1] = values[0], values[-1]
    tolerance = np.clip(TAIL_ERROR * np.minimum(shares, 1 - shares), SMALLEST_ERROR, LARGEST_ERROR) * coarseness
    kept = _kept_points(edges, shares, tolerance)
    table: list[list[float]] = []
    for share, edge in zip(shares[kept].round(6).tolist(), edges[kept].tolist(), strict=True):
        if table and share <= table[-1][0]:
            share = round(table[-1][0] + 1e-6, 6)
        table.append([share, edge])
    table[-1][0] = 1.0
    return [row for row, following in zip(table, [*table[1:], [2.0]], strict=True) if row[0] < following[0]]


def _kept_points(x: np.ndarray, y: np.ndarray, tolerance: np.ndarray) -> list[int]:
    """Points of a polyline that keep it within the tolerance everywhere (Ramer, Douglas and Peucker)."""
    kept, open_ends = {0, len(x) - 1}, [(0, len(x) - 1)]
    while open_ends:
        first, last = open_ends.pop()
        if last - first < 2:
            continue
        inner = slice(first + 1, last)
        line = np.interp(x[inner], x[[first, last]], y[[first, last]])
        excess = np.abs(y[inner] - line) / tolerance[inner]
        worst = int(excess.argmax())
        if excess[worst] > 1:
            middle = first + 1 + worst
            kept.add(middle)
            open_ends += [(first, middle), (middle, last)]
    return sorted(kept)


def output_bins(prompts: np.ndarray, outputs: np.ndarray) -> list[dict[str, Any]]:
    """A quantile table of outputs for each of about equally large ranges of prompt lengths."""
    limits = np.unique(np.quantile(prompts, np.arange(1, PROMPT_RANGES) / PROMPT_RANGES, method="inverted_cdf"))
    number = np.searchsorted(limits, prompts, side="left")
    bins: list[dict[str, Any]] = []
    for index in np.unique(number):
        up_to = {"up_to": int(limits[index])} if index < len(limits) else {}
        bins.append({**up_to, "table": quantile_table(outputs[number == index], coarseness=2)})
    bins[-1].pop("up_to", None)
    return bins


def rate_steps(arrival_s: np.ndarray, bins: int = RATE_BINS) -> list[dict[str, float]]:
    """The rate as a step function: the change points that maximise the Poisson likelihood less 2 log(bins) a step."""
    width_s = float(arrival_s[-1]) / bins
    counts = np.histogram(arrival_s, bins=bins, range=(0, float(arrival_s[-1])))[0]
    total = np.append(0, np.cumsum(counts)).astype(float)
    best, previous = np.zeros(bins + 1), np.zeros(bins + 1, dtype=int)
    for end in range(1, bins + 1):
        inside, length = total[end] - total[:end], np.arange(end, 0, -1) * width_s
        likelihood = np.where(inside > 0, inside * np.log(np.maximum(inside, 1) / length) - inside, 0.0)
        score = best[:end] + likelihood - 2 * np.log(bins)
        previous[end] = int(score.argmax())
        best[end] = score[previous[end]]
    steps, end = [], bins
    while end:
        start = int(previous[end])
        rate = (total[end] - total[start]) / ((end - start) * width_s)
        steps.append({"start_s": round(start * width_s, 1), "rate_per_s": float(f"{rate:.4g}")})
        end = start
    return steps[::-1]


def profile(prompts: np.ndarray, outputs: np.ndarray, arrival_s: np.ndarray) -> dict[str, Any]:
    """The workload that imitates the trace, as a workload file says it."""
    return {
        "arrivals": {
            "process": "piecewise",
            "period_s": round(float(arrival_s[-1]), 1),
            "rates": rate_steps(arrival_s),
        },
        "lengths": {
            "prompt_tokens": {"distribution": "quantiles", "table": quantile_table(prompts)},
            "output_tokens": {"distribution": "given_prompt", "bins": output_bins(prompts, outputs)},
        },
        "num_requests": len(prompts),
    }


def gap_variation(arrival_s: np.ndarray) -> float:
    """The coefficient of variation of the gaps; 1 for a Poisson process."""
    gaps = np.diff(arrival_s)
    return float(gaps.std() / gaps.mean())


def dispersion(arrival_s: np.ndarray, width_s: float) -> float:
    """Variance over mean of the requests in windows of this width; 1 for a Poisson process."""
    counts = np.histogram(arrival_s, bins=np.arange(0, arrival_s[-1], width_s))[0]
    return float(counts.var() / counts.mean())


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; ties share their mean rank."""
    ranks = []
    for values in (x, y):
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[where])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest difference of the distribution functions."""
    at = np.union1d(x, y)
    below = [np.searchsorted(np.sort(values), at, side="right") / len(values) for values in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def comparison(trace: tuple[np.ndarray, ...], drawn: tuple[np.ndarray, ...]) -> Iterable[str]:
    """Lines that set the trace beside requests drawn from its profile."""
    for name, real, made in zip(("prompt tokens", "output tokens"), trace, drawn, strict=False):
        yield f"{name}: mean {real.mean():.1f} / {made.mean():.1f}, KS distance {distance(real, made):.4f}"
        for q in QUANTILES:
            yield f"  {100 * q:g} %: {np.quantile(real, q):.0f} / {np.quantile(made, q):.0f}"
    yield f"rank correlation: {rank_correlation(*trace[:2]):.3f} / {rank_correlation(*drawn[:2]):.3f}"
    linear = [np.corrcoef(pair[0], pair[1])[0, 1] for pair in (trace, drawn)]
    yield f"linear correlation: {linear[0]:.3f} / {linear[1]:.3f}"
    rates = [len(times) / times[-1] for times in (trace[2], drawn[2])]
    yield f"rate per s: {rates[0]:.3f} / {rates[1]:.3f}"
    yield f"variation of gaps: {gap_variation(trace[2]):.2f} / {gap_variation(drawn[2]):.2f}"
    for width_s in (1, 10, 60):
        yield f"dispersion in {width_s} s: {dispersion(trace[2], width_s):.2f} / {dispersion(drawn[2], width_s):.2f}"


def as_yaml(data: dict[str, Any], comments: Iterable[str]) -> str:
    """The profile as a file: comments first, one line a table or list of rates."""
    lines = [f"# {comment}".rstrip() for comment in comments]
    arrivals, lengths = data["arrivals"], data["lengths"]
    lines += ["arrivals:", "  process: piecewise", f"  period_s: {arrivals['period_s']}", "  rates:"]
    lines += [f"    - {{start_s: {one['start_s']:g}, rate_per_s: {one['rate_per_s']:g}}}" for one in arrivals["rates"]]
    lines += ["lengths:", "  prompt_tokens:", "    distribution: quantiles", "    table:"]
    lines += _table(lengths["prompt_tokens"]["table"], " " * 6)
    lines += ["  output_tokens:", "    distribution: given_prompt", "    bins:"]
    for one in lengths["output_tokens"]["bins"]:
        lines.append(f"      - up_to: {one['up_to']}" if "up_to" in one else "      - up_to: null")
        lines += ["        table:", *_table(one["table"], " " * 10)]
    return "\n".join([*lines, f"num_requests: {data['num_requests']}", ""])


def _table(table: list[list[float]], indent: str) -> list[str]:
    rows = [
        f"[{share:g}, {length:g}]" if share in (0, 1) else f"[{share:.6g}, {length:.9g}]" for share, length in table
    ]
    lines = [", ".join(rows[first : first + 5]) for first in range(0, len(rows), 5)]
    return [
        f"{indent}{'[' if not n else ' '}{line}{']' if n == len(lines) - 1 else ','}" for n, line in enumerate(lines)
    ]


def main() -> None:
    """Read the arguments, print the profile and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--format", default="azure", help="the reader; default: azure")
    parser.add_argument("--source", default="", help="whose trace it is, for the comment")
    parser.add_argument("--licence", default="", help="under which licence, for the comment")
    arguments = parser.parse_args()
    table = read_trace(TraceWorkload.model_validate({"trace": arguments.trace, "format": arguments.format}))
    if table.arrival_s is None:
        parser.error(f"{arguments.trace}: a profile needs arrival times")
    trace = (table.prompt_tokens, table.output_tokens, table.arrival_s - table.arrival_s[0])
    data = profile(*trace)
    block = list(open_stream(SyntheticWorkload.model_validate(data), Streams(0)).blocks())
    drawn = tuple(
        np.concatenate([getattr(one, name) for one in block])
        for name in ("prompt_tokens", "output_tokens", "arrival_s")
    )
    rate = len(table) / trace[2][-1]
    comments = [
        f"{arguments.trace.name}, described by tables (benchmarks/profile_trace.py).",
        f"Source: {arguments.source}." if arguments.source else "",
        f"Licence: {arguments.licence}." if arguments.licence else "",
        f"Measured: {len(table)} requests in {trace[2][-1]:.1f} s, {rate:.3f} per second; the coefficient of "
        f"variation of the gaps is {gap_variation(trace[2]):.2f} (Poisson: 1), the dispersion of counts in 10 s "
        f"is {dispersion(trace[2], 10):.1f} (Poisson: 1). Set arrivals.rate_scale for another load.",
    ]
    comments = [line for comment in comments for line in textwrap.wrap(comment, 110)]
    print(as_yaml(data, comments), end="")
    print("trace / profile", *comparison(trace, drawn), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
