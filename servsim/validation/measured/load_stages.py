"""Fifteen steady load stages of dense models under vLLM 0.15 on H100 (BLIS's validation set)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from servsim.errors import ScenarioError
from servsim.simulation import Result
from servsim.validation.measured.figures_of_a_run import latencies
from servsim.validation.measured.reading import filled, read_table
from servsim.validation.measured.run import Dataset, MeasuredRun, Role, Target

__all__ = ["LOAD_STAGES"]

_MODELS = {
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral-nemo",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5-7b",
    "01-ai/Yi-34B": "yi-34b",
}
_FIT = ("60", "63", "64")
_PEERS = (
    "aiconfigurator-estimate", "blis-evolved-iter24", "blis-roofline", "blis-trained-physics",
    "llm-optimizer-estimate", "vidur",
)  # fmt: skip
_SPECS = (
    "tp", "max_num_seqs", "max_num_batched_tokens", "total_kv_blocks", "system_prompt_len", "question_len",
    "output_len",
)  # fmt: skip
_METRICS = {
    "itl_mean": "tpot_mean",
    **{f"{name}_{key}": f"{name}_{key}" for name in ("ttft", "e2e") for key in ("mean", "p90", "p99")},
}
_REQUESTS = 1500


def _read(folder: Path) -> list[MeasuredRun]:
    specs = read_table(folder / "specs.csv", ("exp_id", "model", "stages"), _SPECS)
    specs = filled(specs[specs.model.isin(list(_MODELS))], folder / "specs.csv", ("exp_id", "stages", *_SPECS))
    path = folder / "truth_and_predictions.csv"
    words, numbers = ("experiment", "metric_name"), ("stage_index", "actual_ms")
    truth = filled(read_table(path, words, (*numbers, *_PEERS)), path, (*words, *numbers))
    runs = []
    for told in specs.to_dict("records"):
        experiment = truth[truth.experiment.str.startswith(f"{told['exp_id']}-") & (truth.stage_index >= 0)]
        for index in sorted(experiment.stage_index.unique()):
            rows = experiment[experiment.stage_index == index].set_index("metric_name")
            lacking = [name for name in _METRICS if name not in rows.index]
            if lacking:
                of = f"stage {index} of {told['exp_id']}"
                raise ScenarioError(f"no {', '.join(lacking)} for {of}", place=str(path), remedy="see docs/data.md")
            rate = _rate(told["stages"], int(index), folder / "specs.csv")
            runs.append(_run(told, rows, int(index), rate))
    return runs


def _rate(stages: str, index: int, path: Path) -> float:
    """Of a stage, in requests per second; stages are written as ``8rps x 600s;20rps x 600s``."""
    try:
        return float(stages.split(";")[index].split("rps")[0])
    except (ValueError, IndexError):
        raise ScenarioError(
            f"'{stages}' gives no rate for stage {index}", place=str(path), remedy="stages: 8rps x 600s;20rps x 600s"
        ) from None


def _run(told: dict[Any, Any], rows: pd.DataFrame, index: int, rate: float) -> MeasuredRun:
    model = _MODELS[told["model"]]
    prompt_tokens = told["system_prompt_len"] + told["question_len"]
    scenario = {
        "name": f"vllm-0.15-{told['exp_id']}-{index}",
        "model": model,
        "instance": {
            "engine": "vllm-0.15",
            "hardware": "h100-sxm",
            "tensor_parallel_size": int(told["tp"]),
            "scheduler": {key: int(told[key]) for key in ("max_num_seqs", "max_num_batched_tokens")},
            "memory": {"prefix_hit_fraction": 1.0},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": rate},
            "lengths": {"prompt_tokens": int(prompt_tokens), "output_tokens": int(told["output_len"])},
            "num_requests": _REQUESTS,
        },
        "metrics": {"warmup_s": 60.0},
    }
    measured = {ours: float(rows.actual_ms[theirs]) / 1e3 for theirs, ours in _METRICS.items()}
    measured["tpot_generated"] = (measured["e2e_mean"] - measured["ttft_mean"]) / (int(told["output_len"]) - 1)
    if index == 0:
        measured["kv_blocks"] = float(told["total_kv_blocks"])
    peers = {
        peer: {
            ours: float(rows[peer][theirs]) / 1e3
            for theirs, ours in _METRICS.items()
            if not pd.isna(rows[peer][theirs])
        }
        for peer in _PEERS
    }
    role: Role = "fit" if told["exp_id"] in _FIT else "test"
    name = f"{told['exp_id']}/{index} {model} TP{int(told['tp'])} {rate:g}/s"
    return MeasuredRun(name, LOAD_STAGES.name, "vllm-0.15", role, scenario, measured, peers)


def _measure(result: Result) -> Mapping[str, float]:
    figures = dict(latencies(result, skip=200))
    generated = float(result.requests.output_tokens.mean())
    figures["tpot_generated"] = (figures["e2e_mean"] - figures["ttft_mean"]) / (generated - 1)
    return figures


LOAD_STAGES = Dataset(
    name="vllm_0.15_load_stages",
    source="BLIS's validation set",
    folder="vllm_0.15_load_stages",
    read=_read,
    measure=_measure,
    engines=("vllm-0.15",),
    fitted_on="experiments 60 (Llama-3.1-70B, TP 4), 63 (Mistral-Nemo, TP 1) and 64 (Qwen2.5-7B), five stages",
    targets=(
        Target(("tpot_mean",), "median", 0.05),
        Target(("ttft_mean",), "median", 0.10),
        Target(("e2e_mean",), "median", 0.05),
    ),
    notes=(
        "prompts repeat: all of each is taken to be in the prefix cache; arrivals are taken to be Poisson",
        "tpot_mean is their mean ITL, which for Llama-2-7B divides by re-tokenised lengths; tpot_generated is "
        "(mean E2E - mean TTFT) / (tokens asked for - 1)",
    ),
)
