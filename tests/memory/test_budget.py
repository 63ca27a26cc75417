"""KV blocks that follow from a device and a model, against what vLLM printed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from servsim.errors import CapacityError
from servsim.hardware import load_device
from servsim.memory.budget import RUNTIME_BYTES, MemoryBudget, kv_budget
from servsim.model import load_model
from servsim.model.stages import Stage

ROOT = Path(__file__).parents[2]
MODELS = {
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral-nemo",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5-7b",
    "01-ai/Yi-34B": "yi-34b",
}


def budget(device: str, model: str, tp: int = 1, **settings: Any) -> MemoryBudget:
    defaults = {
        "dtype": "bf16",
        "quantization": "none",
        "kv_dtype": "bf16",
        "gpu_memory_utilization": 0.9,
        "block_size": 16,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
    }
    return kv_budget(
        load_device(ROOT / "hardware" / f"{device}.yaml"),
        Stage(load_model(ROOT / "models" / f"{model}.yaml")),
        tensor_parallel_size=tp,
        **{**defaults, **settings},
    )


def test_llama_on_an_rtx_4090_has_the_blocks_that_vllm_printed() -> None:
    assert budget("rtx-4090", "llama-3.1-8b").num_blocks == pytest.approx(2588, rel=0.02)


def test_dense_models_on_h100_have_the_blocks_that_vllm_printed(servsim_data: Path) -> None:
    with (servsim_data / "serving" / "vllm_0.15_load_stages" / "specs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in MODELS]
    assert {row["model"] for row in rows} == set(MODELS)
    for row in rows:
        found = budget(
            "h100-sxm",
            MODELS[row["model"]],
            int(row["tp"]),
            max_num_seqs=int(row["max_num_seqs"]),
            max_num_batched_tokens=int(row["max_num_batched_tokens"]),
        )
        assert found.num_blocks == pytest.approx(int(row["total_kv_blocks"]), rel=0.02), row["model"]


def test_the_parts_of_a_budget_add_up() -> None:
    one = budget("h100-sxm", "llama-3.1-8b")
    assert one.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2
    assert one.block_bytes == 16 * one.kv_bytes_per_token
    assert one.runtime_bytes == RUNTIME_BYTES
    parts = one.weight_bytes + one.activation_bytes + one.runtime_bytes + one.kv_bytes
    assert parts == one.usable_bytes == int(one.device_bytes * 0.9)
    assert one.num_blocks == one.kv_bytes // one.block_bytes and not one.given


def test_fp8_kv_holds_twice_the_tokens_and_quantized_weights_leave_more() -> None:
    plain = budget("h100-sxm", "llama-3.1-8b").num_blocks
    assert budget("h100-sxm", "llama-3.1-8b", kv_dtype="fp8").num_blocks in (2 * plain, 2 * plain + 1)
    fp8 = budget("h100-sxm", "llama-3.1-8b", quantization="fp8")
    int4 = budget("h100-sxm", "llama-3.1-8b", quantization="int4")
    assert plain < fp8.num_blocks < int4.num_blocks


def test_given_blocks_override_what_would_be_derived_even_on_a_device_too_small() -> None:
    one = budget("rtx-4090", "llama-3.1-8b", num_blocks=7, gpu_memory_utilization=0.5)
    assert one.num_blocks == 7 and one.given


def test_a_model_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError) as raised:
        budget("h100-sxm", "llama-3.1-70b")
    message = str(raised.value)
    assert "llama-3.1-70b does not fit" in message
    assert "tensor_parallel_size 1" in message
    assert "weights 131.4" in message and "GiB" in message
    assert "raise tensor_parallel_size or pipeline_parallel_size, quantize" in message


def test_weights_that_do_not_fit_are_refused_even_with_given_blocks() -> None:
    with pytest.raises(CapacityError, match="does not fit"):
        budget("h100-sxm", "llama-3.1-70b", num_blocks=100)


def test_a_share_that_leaves_no_two_blocks_is_refused_with_the_numbers() -> None:
    fits = budget("h100-sxm", "llama-3.1-8b")
    needed = fits.weight_bytes + fits.activation_bytes + fits.runtime_bytes + 1.5 * fits.block_bytes
    with pytest.raises(CapacityError, match=r"less than two blocks of 2\.00 MiB") as raised:
        budget("h100-sxm", "llama-3.1-8b", gpu_memory_utilization=needed / fits.device_bytes)
    assert "for KV" in str(raised.value) and "max_num_batched_tokens" in str(raised.value)
