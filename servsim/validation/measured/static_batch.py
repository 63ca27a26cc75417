"""TensorRT-LLM 0.9 with a static batch: published throughput, Llama and Mistral on A100, L40S, H100 and H200."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servsim.simulation import Result
from servsim.validation.measured.figures_of_a_run import throughput
from servsim.validation.measured.reading import filled, read_table
from servsim.validation.measured.run import Dataset, MeasuredRun, Target

__all__ = ["STATIC_BATCH"]

_MODELS = {"Mistral 7B": "mistral-7b", "LLaMA 7B": "llama-2-7b", "LLaMA 70B": "llama-2-70b"}
_DEVICES = {"H200": "h200-sxm", "H100": "h100-sxm", "L40S": "l40s", "A100": "a100-80gb-sxm"}

_NUMBERS = ("batch", "isl", "osl", "tp", "gpus", "value")


def _read(folder: Path) -> list[MeasuredRun]:
    path = folder / "throughput.csv"
    rows = read_table(path, ("model", "gpu", "precision"), _NUMBERS)
    rows = filled(rows[rows.model.isin(list(_MODELS)) & rows.gpu.isin(list(_DEVICES))], path, _NUMBERS)
    return [_run(row) for row in rows.to_dict("records")]


def _run(row: dict[Any, Any]) -> MeasuredRun:
    model, device = _MODELS[row["model"]], _DEVICES[row["gpu"]]
    batch, prompt, output = int(row["batch"]), int(row["isl"]), int(row["osl"])
    fp8 = row["precision"] == "FP8"
    scenario = {
        "name": f"trtllm-0.9-{model}-{device}-{prompt}-{output}",
        "model": model,
        "instance": {
            "engine": "trtllm-0.9",
            "hardware": device,
            "tensor_parallel_size": int(row["tp"]),
            "dtype": "fp16",
            "quantization": "fp8" if fp8 else "none",
            "kv_cache_dtype": "fp8" if fp8 else "auto",
            # The batch fitted there, whatever our memory budget says.
            "memory": {"num_blocks": batch * (-(-(prompt + output) // 16) + 1) + 1, "block_size": 16},
            "scheduler": {"max_num_seqs": batch, "max_num_batched_tokens": max(batch, batch * prompt)},
        },
        "workload": {
            "arrivals": {"process": "closed_loop", "concurrency": batch},
            "lengths": {"prompt_tokens": prompt, "output_tokens": output},
            "num_requests": batch,
        },
    }
    measured = {"output_tokens_per_s": float(row["value"]) * int(row["gpus"])}
    name = f"{model} {device} TP{int(row['tp'])} {batch} x {prompt}+{output}"
    return MeasuredRun(name, STATIC_BATCH.name, device, "test", scenario, measured)


def _measure(result: Result) -> Mapping[str, float]:
    return {"output_tokens_per_s": throughput(result)}


STATIC_BATCH = Dataset(
    name="trtllm_0.9_static_batch",
    source="NVIDIA TensorRT-LLM 0.9 documentation (Apache-2.0)",
    folder="trtllm_0.9_static_batch",
    read=_read,
    measure=_measure,
    engines=(),
    fitted_on="nothing: the engine has no constants of its own, and all rows are the test",
    targets=(Target(("output_tokens_per_s",), "median", 0.15),),
    notes=("fp8 rows are taken to keep their KV in fp8 too: else the batches would not fit",),
)
