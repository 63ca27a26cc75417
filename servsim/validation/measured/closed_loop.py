"""TTFT and TPOT at fixed concurrencies on H100: TensorRT-LLM, SGLang, vLLM; dense models, aggregated serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from servsim.validation.measured.figures_of_a_run import mean_latencies
from servsim.validation.measured.reading import filled, read_table
from servsim.validation.measured.run import Dataset, MeasuredRun, Role, Target

__all__ = ["CLOSED_LOOP"]

_MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
}
_ENGINES = {"trtllm": "trtllm-1.0", "sglang": "sglang-0.5", "vllm": "vllm-0.12"}
_DUMP_ENGINE = "vllm-0.11"  # of InferenceX; these rows have no version
_FIT_TP = 4
_PEER = "AIConfigurator"
_WORDS = ("id", "mode", "model_path", "backend", "source", "precision")
_NUMBERS = ("tp_size", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")
_TOLD = ("aic_predicted_ttft_ms", "aic_predicted_tpot_ms")
_WAVES = 10  # requests a user; the dumps: ten times the concurrency
_DUMP_WAVES = 10
_DRAWN = "InferenceX dump"  # draws lengths uniformly from 0.8 to 1.0 of the nominal ones


def _read(folder: Path) -> list[MeasuredRun]:
    path = folder / "measured.csv"
    rows = read_table(path, _WORDS, (*_NUMBERS, "batch_size", "concurrency", *_TOLD))
    rows = rows[(rows["mode"] == "agg") & rows.model_path.isin(list(_MODELS)) & rows.backend.isin(list(_ENGINES))]
    filled(rows.assign(batch_size=rows.concurrency.fillna(rows.batch_size)), path, ("id", *_NUMBERS, "batch_size"))
    return [_run(row) for row in rows.to_dict("records")]


def _run(row: dict[Any, Any]) -> MeasuredRun:
    drawn = row["source"] == _DRAWN
    model, engine = _MODELS[row["model_path"]], _DUMP_ENGINE if drawn else _ENGINES[row["backend"]]
    fp8 = row["precision"] == "fp8"
    users = int(row["batch_size"] if pd.isna(row["concurrency"]) else row["concurrency"])
    waiting = 1 if row["backend"] == "trtllm" else 0
    scenario = {
        "name": row["id"].replace("/", "-"),
        "model": model,
        "instance": {
            "engine": engine,
            "hardware": "h100-sxm",
            "tensor_parallel_size": int(row["tp_size"]),
            "quantization": "fp8" if fp8 else "none",
            "scheduler": {"max_num_seqs": users},
        },
        "workload": {
            "arrivals": {"process": "closed_loop", "concurrency": users + waiting},
            "lengths": {
                "prompt_tokens": _length(int(row["isl"]), drawn=drawn),
                "output_tokens": _length(int(row["osl"]), drawn=drawn),
            },
            "num_requests": (_DUMP_WAVES if drawn else _WAVES) * users,
        },
    }
    measured = {"ttft_mean": row["silicon_ttft_ms"] / 1e3, "tpot_mean": row["silicon_tpot_ms"] / 1e3}
    peers = {}
    if not pd.isna(row["aic_predicted_tpot_ms"]):
        told = {"ttft_mean": row["aic_predicted_ttft_ms"] / 1e3, "tpot_mean": row["aic_predicted_tpot_ms"] / 1e3}
        peers[_PEER] = told
    role: Role = "fit" if int(row["tp_size"]) == _FIT_TP and not peers else "test"
    group = f"{engine} {model} {'fp8' if fp8 else 'bf16'}"
    name = f"{row['id']}"
    return MeasuredRun(name, CLOSED_LOOP.name, group, role, scenario, measured, peers)


def _length(tokens: int, *, drawn: bool) -> Any:
    if not drawn:
        return tokens
    return {"distribution": "uniform", "min": int(0.8 * tokens), "max": tokens}


CLOSED_LOOP = Dataset(
    name="closed_loop_h100",
    source="NVIDIA AIConfigurator silicon sample (Apache-2.0) and InferenceX dumps",
    folder="closed_loop_h100",
    read=_read,
    measure=mean_latencies,
    engines=("trtllm-1.0", "sglang-0.5", "vllm-0.12", "vllm-0.11"),
    fitted_on="rows at TP 4 that carry no prediction of AIConfigurator",
    targets=(
        Target(("tpot_mean",), "median", 0.06, _PEER),
        Target(("tpot_mean",), "p90", 0.18, _PEER),
        Target(("ttft_mean",), "median", 0.20, _PEER),
    ),
    notes=(
        "TensorRT-LLM: one user more than the batch has places; measured TTFT grows with the output by the time "
        "between two finishes, as if every request waited for a place",
        "ten requests a user, the first burst included; of the rows that are no dump the number is not known",
        "TP 4 alone is fitted: TP 1, 2 and 8, and all rows with AIConfigurator's prediction, are the test",
    ),
)
