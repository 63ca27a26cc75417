"""What a step has to do, against numbers worked by hand from two published shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from servsim.model import load_model
from servsim.model.operators import RowOperator, StepOperators, step_operators

MODELS = Path(__file__).parents[2] / "models"


def operators(model: str, tp: int = 1, quantization: str = "none", kv_dtype: str = "bf16") -> StepOperators:
    return step_operators(load_model(MODELS / f"{model}.yaml"), tp, "bf16", quantization, kv_dtype)  # type: ignore[arg-type]


def named(step: StepOperators) -> dict[str, RowOperator]:
    return {one.name: one for one in (*step.per_token, *step.per_emitted)}


def test_the_linear_layers_of_llama_8b() -> None:
    # Hidden 4096, 32 query and 8 key/value heads of 128, MLP 14336, 32 layers, vocabulary 128256.
    found = named(operators("llama-3.1-8b"))
    by_hand = {
        "qkv_proj": (32, 4096, 6144),
        "o_proj": (32, 4096, 4096),
        "mlp_up": (32, 4096, 28672),
        "mlp_down": (32, 14336, 4096),
        "lm_head": (1, 4096, 128256),
    }
    for name, (calls, k, n) in by_hand.items():
        one = found[name]
        assert (one.kind, one.dtype, one.calls) == ("gemm", "bf16", calls)
        assert one.flops(10) == 2 * 10 * k * n
        assert one.bytes(10) == 2 * (k * n + 10 * k + 10 * n)


def test_llama_8b_does_two_flops_a_parameter_and_token() -> None:
    found = operators("llama-3.1-8b")
    assert sum(one.calls * one.flops(1) for one in found.per_token) == 2 * 6_979_321_856  # without embeddings
    shape = load_model(MODELS / "llama-3.1-8b.yaml")
    weights = sum(one.calls * one.weight_bytes for one in (*found.per_token, *found.per_emitted))
    norms_and_embedding = 65 * 4096 + 128256 * 4096
    assert weights == 2 * (shape.num_parameters - norms_and_embedding)


def test_attention_of_llama_8b() -> None:
    attention = operators("llama-3.1-8b").attention
    assert attention.calls == 32
    assert attention.decode_flops_per_pair == attention.prefill_flops_per_pair == 4 * 32 * 128
    assert attention.kv_bytes_per_token == 2 * 8 * 128 * 2
    assert (
        attention.io_bytes_per_token == 2 * 32 * 128 * 2
    )  # query and output; the write of KV goes with the rotary embedding
    assert operators("llama-3.1-8b", kv_dtype="fp8").attention.kv_bytes_per_token == 2 * 8 * 128


def test_elementwise_work_moves_bytes_and_no_weights() -> None:
    found = named(operators("llama-3.1-8b"))
    assert found["norm"].calls == 65 and found["norm"].bytes(3) == 3 * 4 * 4096 * 2  # with the residual
    assert found["rotary_and_kv_write"].bytes(1) == 2 * 6144 * 2
    assert found["mlp_activation"].bytes(1) == 3 * 14336 * 2
    assert found["embedding"].bytes(1) == 2 * 4096 * 2
    for one in found.values():
        if one.kind == "elementwise":
            assert one.flops(100) == 0 and one.weight_bytes == 0


def test_the_experts_of_mixtral_are_read_as_far_as_somebody_is_routed_to_them() -> None:
    # 8 experts of 3 x 4096 x 14336 weights, 2 a token.
    experts = named(operators("mixtral-8x7b"))["experts"]
    expert = 3 * 4096 * 14336
    assert (experts.calls, experts.experts, experts.experts_per_row) == (32, 8, 2)
    assert experts.flops(5) == 5 * 2 * 2 * expert
    rows = 2 * 4096 * 2  # in and out of the fused kernel
    assert experts.bytes(1) == pytest.approx(2 * expert * 2 + rows)  # two experts
    assert experts.bytes(2) == pytest.approx(8 * (1 - 0.75**2) * expert * 2 + 2 * rows)
    assert experts.bytes(1000) == pytest.approx(8 * expert * 2 + 1000 * rows)
    router = named(operators("mixtral-8x7b"))["router"]
    assert router.flops(1) == 2 * 4096 * 8 and "mlp_up" not in named(operators("mixtral-8x7b"))


@pytest.mark.parametrize("model", sorted(path.stem for path in MODELS.glob("*.yaml")))
def test_every_model_does_two_flops_an_active_parameter_and_token(model: str) -> None:
    shape, found = load_model(MODELS / f"{model}.yaml"), operators(model)
    flops = sum(one.calls * one.flops(1) for one in (*found.per_token, *found.per_emitted))
    embeddings = shape.vocab_size * shape.hidden_size * (0 if shape.tie_word_embeddings else 1)
    embeddings += shape.learned_positions * shape.hidden_size
    assert flops == pytest.approx(2 * (shape.num_active_parameters - embeddings), rel=2e-3)  # norms and biases apart


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_divides_the_weights_and_adds_two_sums_a_layer(tp: int) -> None:
    whole, shared = operators("llama-3.1-8b"), operators("llama-3.1-8b", tp)
    for one, part in zip((*whole.per_token, *whole.per_emitted), (*shared.per_token, *shared.per_emitted), strict=True):
        assert part.flops_per_row == one.flops_per_row / tp
        assert part.weight_bytes == one.weight_bytes / tp
    assert shared.attention.kv_bytes_per_token == whole.attention.kv_bytes_per_token / tp
    assert shared.attention.decode_flops_per_pair == whole.attention.decode_flops_per_pair / tp
    assert whole.all_reduce is None and shared.all_reduce is not None
    assert (shared.all_reduce.calls, shared.all_reduce.group) == (65, tp)
    assert shared.all_reduce.bytes_per_token == 4096 * 2


def test_key_value_heads_are_copied_where_there_are_fewer_than_ranks() -> None:
    assert operators("llama-3.1-8b", 16).attention.kv_bytes_per_token == 2 * 1 * 128 * 2


def test_fp8_and_int4_shrink_the_linear_layers_and_neither_lm_head_nor_router_nor_attention() -> None:
    plain = operators("mixtral-8x7b")
    for quantization, size in (("fp8", 1.0), ("int4", 0.5 + 2 / 128)):
        found = operators("mixtral-8x7b", quantization=quantization)
        for name, one in named(plain).items():
            now = named(found)[name]
            shrunk = name in ("qkv_proj", "o_proj", "experts")
            assert now.weight_bytes == pytest.approx(one.weight_bytes * (size / 2 if shrunk else 1))
            assert now.dtype == (quantization if shrunk else "bf16")
            assert now.flops_per_row == one.flops_per_row
            # Products in fp8 read rows that a kernel of its own has quantized.
            quantized = quantization == "fp8" and name in ("qkv_proj", "o_proj")
            assert now.bytes_per_row == one.bytes_per_row - (one.k if quantized else 0)
            assert now.prepared_bytes_per_row == (3 * one.k if quantized else 0)
        assert found.attention == plain.attention


def test_latent_attention_reads_the_latent_vector_and_multiplies_in_its_space() -> None:
    # DeepSeek-V3: 128 heads, latent 512, rotary 64, nope 128, values 128.
    attention = operators("deepseek-v3").attention
    assert attention.kv_bytes_per_token == (512 + 64) * 2
    assert attention.decode_flops_per_pair == 2 * 128 * (2 * 512 + 64)
    assert attention.prefill_flops_per_pair == 2 * 128 * (128 + 64 + 128)
    assert operators("deepseek-v3", 8).attention.kv_bytes_per_token == (512 + 64) * 2  # every rank holds all of it


def test_deepseek_routes_in_all_but_its_first_three_layers() -> None:
    found = named(operators("deepseek-v3"))
    assert found["mlp_up"].calls == 3 and found["experts"].calls == found["shared_experts_up"].calls == 58
