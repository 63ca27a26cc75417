"""Two runs of vLLM 0.19, measured request by request and second by second (LLMServingSim, MIT)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from servsim.errors import ScenarioError
from servsim.simulation import Result
from servsim.validation.measured.figures_of_a_run import latencies, throughput
from servsim.validation.measured.reading import filled, read_table
from servsim.validation.measured.run import Dataset, MeasuredRun, Role, Target
from servsim.validation.measured.watching import SAMPLED

__all__ = ["PER_REQUEST"]

_HARDWARE: dict[str, tuple[str, Role]] = {"RTX4090": ("rtx-4090", "test"), "RTXPRO6000": ("rtx-pro-6000", "fit")}
_SHAREABLE = 0.076  # of all prompt tokens, under prefix caching (the data's README)
_SHARES = {"mean": None, "p50": 0.5, "p90": 0.9, "p99": 0.99}

_OBSERVED = ("arrival_s", "output_tokens", "tpot_s", "ttft_from_arrival_s", "e2e_from_arrival_s")
_PREDICTED = ("arrival_s", "output_tokens", "tpot_s", "ttft_s", "e2e_s")


def _figures(rows: pd.DataFrame, ttft: str, e2e: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, column in (("ttft", ttft), ("tpot", "tpot_s"), ("e2e", e2e)):
        for key, share in _SHARES.items():
            values = rows[column]
            found[f"{name}_{key}"] = float(values.mean() if share is None else values.quantile(share))
    end_s = rows.last_token_s if "last_token_s" in rows else rows.arrival_s + rows.e2e_s
    found["output_tokens_per_s"] = float(rows.output_tokens.sum() / (end_s.max() - rows.arrival_s.min()))
    return found


def _read(folder: Path) -> list[MeasuredRun]:
    runs = []
    for prefix, (hardware, role) in _HARDWARE.items():
        stem = folder / f"{prefix}_Llama-3.1-8B"
        truth = Path(f"{stem}.truth.csv")
        asked, num_blocks = _engine(Path(f"{stem}.meta.json"))
        rows = _requests(truth, ("request_id", "prompt_tokens", "last_token_s", *_OBSERVED))
        peer = _requests(Path(f"{stem}.llmservingsim.csv"), _PREDICTED)
        measured = _figures(rows, "ttft_from_arrival_s", "e2e_from_arrival_s")
        instance: dict[str, Any] = {
            "engine": "vllm-0.19",
            "hardware": hardware,
            "scheduler": asked,
            "memory": {"prefix_hit_fraction": _SHAREABLE},
        }
        if num_blocks is not None:
            measured["kv_blocks"] = instance["memory"]["num_blocks"] = num_blocks
        scenario = {
            "name": f"vllm-0.19-{hardware}",
            "model": "llama-3.1-8b",
            "instance": instance,
            "workload": {"trace": str(truth), "format": "table"},
        }
        peers = {"LLMServingSim": _figures(peer, "ttft_s", "e2e_s")}
        name, log = f"Llama-3.1-8B on {hardware}", Path(f"{stem}.timeseries.csv")
        read_table(log, numbers=SAMPLED)
        runs.append(MeasuredRun(name, PER_REQUEST.name, "vllm-0.19", role, scenario, measured, peers, truth, log))
    return runs


def _requests(path: Path, numbers: tuple[str, ...]) -> pd.DataFrame:
    """Every request but the first, which holds the warm-up."""
    return filled(read_table(path, numbers=numbers), path, numbers).iloc[1:]


def _engine(path: Path) -> tuple[dict[str, int], int | None]:
    """The engine's limits as it was started with, and its KV blocks where it logged them."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        asked = {key: int(told["engine_kwargs"][key]) for key in ("max_num_seqs", "max_num_batched_tokens")}
        return asked, int(told["kv_cache"]["num_gpu_blocks"]) if "kv_cache" in told else None
    except FileNotFoundError:
        raise ScenarioError("no such file", place=str(path), remedy="see docs/data.md for what lies where") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ScenarioError(
            f"not an engine's start as LLMServingSim logs it ({type(error).__name__}: {error})",
            place=str(path),
            remedy="see docs/data.md for where these files come from",
        ) from None


def _measure(result: Result) -> Mapping[str, float]:
    figures = dict(latencies(result, skip=1))  # request 0 holds the warm-up
    return figures | {"output_tokens_per_s": throughput(result, skip=1)}


PER_REQUEST = Dataset(
    name="vllm_0.19_per_request",
    source="LLMServingSim's validation runs (MIT)",
    folder="vllm_0.19_per_request",
    read=_read,
    measure=_measure,
    engines=("vllm-0.19",),
    fitted_on="the run on the RTX PRO 6000; the RTX 4090 is the test",
    targets=(
        Target(("ttft_mean", "tpot_mean", "e2e_mean", "output_tokens_per_s"), "worst", 0.03),
        Target(("ttft_p99", "tpot_p99", "e2e_p99"), "worst", 0.05),
        Target(("each_e2e",), "worst", 0.03),
    ),
    notes=(
        "TTFT and E2E count from the client's arrival; request 0 is left out",
        "7.6 % of each prompt is taken to be in the prefix cache; the RTX 4090 has the 2,588 blocks that were logged",
        "each_e2e is the mean of |predicted - measured| / measured over the requests",
    ),
)
