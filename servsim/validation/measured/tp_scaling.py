"""vLLM 0.6 on eight H100 at tensor parallel 2, 4 and 8, low load, with the traces served (APEX+, MIT)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from servsim.errors import ScenarioError
from servsim.validation.measured.figures_of_a_run import mean_latencies
from servsim.validation.measured.reading import filled, read_table
from servsim.validation.measured.run import Dataset, MeasuredRun, Role, Target

__all__ = ["TP_SCALING"]

_MODELS = {"llama": "llama-3.1-70b", "mistral": "mistral-large"}

_NUMBERS = ("mean_ttft_s", "mean_tpot_s")


def _read(folder: Path) -> list[MeasuredRun]:
    path = folder / "runs.csv"
    rows = read_table(path, ("run", "model", "layout", "trace_file", "usable"), _NUMBERS)
    rows = filled(
        rows[(rows.usable == "True") & rows.model.isin(list(_MODELS))], path, ("run", "trace_file", *_NUMBERS)
    )
    runs = []
    for told in rows.to_dict("records"):
        trace = folder / "traces" / f"{told['model']}_{Path(told['trace_file']).stem}.csv"
        if trace.exists():
            runs.append(_run(told, trace))
    return runs


def _run(row: dict[Any, Any], trace: Path) -> MeasuredRun:
    found = re.search(r"(\d)TP", str(row["layout"]))
    if found is None:
        raise ScenarioError(f"layout '{row['layout']}' of {row['run']} names no tensor parallelism, as 2DP4TP does")
    tp = int(found[1])
    scenario = {
        "name": row["run"],
        "model": _MODELS[row["model"]],
        "instance": {
            "engine": "vllm-0.6",
            "hardware": "h100-sxm",
            "tensor_parallel_size": tp,
            "dtype": "fp16",
            "quantization": "fp8" if row["model"] == "mistral" else "none",
        },
        "workload": {"trace": str(trace), "format": "table"},
    }
    measured = {"ttft_mean": row["mean_ttft_s"], "tpot_mean": row["mean_tpot_s"]}
    role: Role = "fit" if row["model"] == "llama" and tp == 4 else "test"
    return MeasuredRun(row["run"], TP_SCALING.name, f"{_MODELS[row['model']]} TP{tp}", role, scenario, measured)


TP_SCALING = Dataset(
    name="vllm_0.6_tp_scaling",
    source="APEX+ (MIT)",
    folder="vllm_0.6_tp_scaling",
    read=_read,
    measure=mean_latencies,
    engines=("vllm-0.6",),
    fitted_on="Llama-3.1-70B at TP 4",
    targets=tuple(Target(("tpot_mean",), "median", 0.10, where=f"TP{tp}") for tp in (2, 4, 8)),
    notes=("13 runs are left out: their traces are not there",),
)
