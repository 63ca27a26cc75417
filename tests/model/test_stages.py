"""A network in stages: which layers each has, and that together they are the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from servsim.errors import ScenarioError
from servsim.model import ModelShape, load_model
from servsim.model.stages import pipeline_stages

MODELS = Path(__file__).parents[2] / "models"


def model(name: str, layers: int | None = None) -> ModelShape:
    shape = load_model(MODELS / f"{name}.yaml")
    return shape if layers is None else shape.model_copy(update={"num_hidden_layers": layers})


@pytest.mark.parametrize(
    ("layers", "size", "counts"),
    [
        (32, 4, [8, 8, 8, 8]),
        (22, 4, [5, 6, 6, 5]),
        (61, 4, [15, 15, 16, 15]),
        (61, 2, [31, 30]),
        (7, 3, [2, 3, 2]),
        (43, 10, [4, 4, 4, 4, 4, 4, 5, 5, 5, 4]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_layers_left_over_go_before_the_last_stage_as_in_vllm(layers: int, size: int, counts: list[int]) -> None:
    stages = pipeline_stages(model("llama-3.1-8b", layers), size)
    assert [stage.shape.num_hidden_layers for stage in stages] == counts
    assert [stage.first for stage in stages] == [True] + [False] * (size - 1)
    assert [stage.last for stage in stages] == [False] * (size - 1) + [True]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3"])
@pytest.mark.parametrize(("size", "tp"), [(1, 1), (2, 1), (3, 2), (5, 8)])
def test_the_weights_and_the_kv_of_all_stages_are_those_of_the_network(name: str, size: int, tp: int) -> None:
    shape = model(name)
    stages = pipeline_stages(shape, size)
    total_bytes = sum(stage.weight_bytes("bf16", "none", tp) for stage in stages)
    # Each stage rounds its share of a rank up by itself.
    assert total_bytes == pytest.approx(shape.weight_bytes("bf16", "none", tp), abs=64 * size)
    kv_bytes = sum(stage.shape.kv_bytes_per_token("bf16", tp) for stage in stages)
    assert kv_bytes == shape.kv_bytes_per_token("bf16", tp)
    assert sum(stage.shape.num_moe_layers for stage in stages) == shape.num_moe_layers


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b"])
def test_the_operators_of_all_stages_are_those_of_the_network(name: str) -> None:
    shape = model(name)
    whole = pipeline_stages(shape, 1)[0].operators(2, "bf16", "none", "bf16")
    parts = [stage.operators(2, "bf16", "none", "bf16") for stage in pipeline_stages(shape, 4)]

    def work(operators: tuple, rows: int) -> tuple[float, float]:
        return (
            sum(one.calls * one.flops(rows) for one in operators),
            sum(one.calls * one.bytes(rows) for one in operators),
        )

    for kind in ("per_token", "per_emitted"):
        found = [work(getattr(part, kind), 100) for part in parts]
        expected = work(getattr(whole, kind), 100)
        assert [sum(column) for column in zip(*found, strict=True)] == pytest.approx(list(expected))
    assert [len(part.per_emitted) for part in parts] == [0, 0, 0, len(whole.per_emitted)]
    assert sum(part.attention.calls for part in parts) == whole.attention.calls
    exchanges = [part.all_reduce for part in parts]
    assert whole.all_reduce is not None
    assert sum(one.calls for one in exchanges if one is not None) == whole.all_reduce.calls


def test_a_tied_head_is_copied_to_the_last_stage() -> None:
    shape = model("llama-3.1-8b").model_copy(update={"tie_word_embeddings": True})
    table_bytes = 2 * shape.vocab_size * shape.hidden_size
    stages = pipeline_stages(shape, 2)
    total_bytes = sum(stage.weight_bytes("bf16", "none", 1) for stage in stages)
    assert total_bytes == shape.weight_bytes("bf16", "none", 1) + table_bytes


def test_dense_layers_of_a_mixture_stay_where_they_are() -> None:
    shape = model("deepseek-v3")
    assert shape.moe is not None
    moe = shape.moe.model_copy(update={"first_k_dense_replace": 3, "dense_layers": (5,), "layer_frequency": 2})
    shape = shape.model_copy(update={"moe": moe, "num_hidden_layers": 10})
    expected = [moe.is_moe_layer(layer) for layer in range(10)]
    found: list[bool] = []
    for stage in pipeline_stages(shape, 5):
        experts = stage.shape.moe
        layers = range(stage.shape.num_hidden_layers)
        found += [experts is not None and experts.is_moe_layer(layer) for layer in layers]
    assert found == expected and True in found and False in found


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ScenarioError, match="32 layers, not enough for 33 stages"):
        pipeline_stages(model("llama-3.1-8b"), 33)
