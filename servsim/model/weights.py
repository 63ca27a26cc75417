"""How many weights a network has, by kind, and where tensor parallelism puts them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # shape.py builds on this module
    from servsim.model.shape import ModelShape

__all__ = [
    "DTYPE_BYTES",
    "INT4_BYTES",
    "Quantization",
    "WeightGroup",
    "active_parameters",
    "rank_bytes",
    "weight_groups",
]

DTYPE_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}
"""Bytes of one number, by dtype (int4 without its scales)."""

Quantization = Literal["none", "fp8", "int4"]

_INT4_GROUP = 128  # weights that share a scale, as GPTQ and AWQ checkpoints have it
_SCALE_BYTES = 2
INT4_BYTES = DTYPE_BYTES["int4"] + _SCALE_BYTES / _INT4_GROUP
"""Bytes of one int4 weight with its share of the scales."""


class WeightGroup(NamedTuple):
    """Weights of one kind over all layers."""

    name: str  # embedding, lm_head, attention, mlp, experts, shared_experts, router, norms
    elements: int  # in the whole network
    elements_per_rank: int  # on one of the devices that share it; copies count
    quantizable: bool  # a linear layer that fp8 and int4 checkpoints shrink


def weight_groups(
    shape: ModelShape, tensor_parallel_size: int = 1, *, first: bool = True, last: bool = True
) -> tuple[WeightGroup, ...]:
    """Every weight of a network, once; the groups without weights are left out.

    Of the layers of a pipeline's stage only the ``first`` has the embedding, and the ``last`` the final norm
    and the LM head: if that is tied to the embedding, a copy of it.

    Linear layers and vocabulary tables are split over ``tensor_parallel_size`` devices, as Megatron-LM
    and vLLM split them; norms, the router, position tables and MLA's compressing projections are copied.
    """
    groups = [
        *_vocabulary(shape, tensor_parallel_size, first, last),
        *_attention(shape, tensor_parallel_size),
        *_mlps(shape, tensor_parallel_size),
        _norms(shape, last),
    ]
    return tuple(group for group in groups if group.elements)


def rank_bytes(groups: Iterable[WeightGroup], dtype: str, quantization: Quantization = "none") -> int:
    """Bytes of the groups on one device; see :meth:`ModelShape.weight_bytes` for what is quantized."""
    plain = DTYPE_BYTES[dtype]
    quantized = {
        "none": plain,
        "fp8": DTYPE_BYTES["fp8"],
        "int4": INT4_BYTES,
    }[quantization]
    return round(sum(group.elements_per_rank * (quantized if group.quantizable else plain) for group in groups))


def active_parameters(shape: ModelShape) -> int:
    """Parameters that one token passes through."""
    total = 0
    for group in weight_groups(shape):
        if group.name == "experts" and shape.moe is not None:
            total += group.elements * shape.moe.num_experts_per_tok // shape.moe.num_experts
        else:
            total += group.elements
    return total


def _split(name: str, elements: int, tensor_parallel_size: int) -> WeightGroup:
    return WeightGroup(name, elements, -(-elements // tensor_parallel_size), True)


def _copied(name: str, elements: int, *, quantizable: bool = False) -> WeightGroup:
    return WeightGroup(name, elements, elements, quantizable)


def _vocabulary(shape: ModelShape, tensor_parallel_size: int, first: bool, last: bool) -> list[WeightGroup]:
    table = _split("embedding", shape.vocab_size * shape.hidden_size, tensor_parallel_size)._replace(quantizable=False)
    groups = [table, _copied("embedding", shape.learned_positions * shape.hidden_size)] if first else []
    if last and not (first and shape.tie_word_embeddings):
        groups.append(table._replace(name="lm_head"))
    return groups


def _attention(shape: ModelShape, tensor_parallel_size: int) -> list[WeightGroup]:
    if shape.mla is not None:
        return _latent_attention(shape, tensor_parallel_size)
    layers, hidden, dim = shape.num_hidden_layers, shape.hidden_size, shape.head_dim
    query, keys = shape.num_attention_heads * dim, 2 * shape.num_key_value_heads * dim
    keys_on_rank = 2 * shape.kv_heads_per_rank(tensor_parallel_size) * dim
    biased = shape.qkv_bias
    return [
        _split("attention", layers * 2 * hidden * query, tensor_parallel_size),
        WeightGroup("attention", layers * hidden * keys, layers * hidden * keys_on_rank, True),
        _split("attention", layers * query * biased, tensor_parallel_size)._replace(quantizable=False),
        WeightGroup("attention", layers * keys * biased, layers * keys_on_rank * biased, False),
        _copied("attention", layers * hidden * shape.output_bias),
    ]


def _latent_attention(shape: ModelShape, tensor_parallel_size: int) -> list[WeightGroup]:
    mla = shape.mla
    assert mla is not None
    layers, hidden, heads = shape.num_hidden_layers, shape.hidden_size, shape.num_attention_heads
    query_in = hidden if mla.q_lora_rank is None else mla.q_lora_rank
    compressing = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim) + hidden * (mla.q_lora_rank or 0)
    per_head = (
        query_in * shape.head_dim + mla.kv_lora_rank * (mla.qk_nope_head_dim + mla.v_head_dim) + mla.v_head_dim * hidden
    )
    return [
        _copied("attention", layers * compressing, quantizable=True),
        _split("attention", layers * heads * per_head, tensor_parallel_size),
    ]


def _mlps(shape: ModelShape, tensor_parallel_size: int) -> list[WeightGroup]:
    hidden, matrices = shape.hidden_size, 3 if shape.gated_mlp else 2
    dense_layers, moe_layers = shape.num_dense_layers, shape.num_moe_layers
    width = shape.intermediate_size
    groups = [
        _split("mlp", dense_layers * matrices * hidden * width, tensor_parallel_size),
        _split("mlp", dense_layers * (matrices - 1) * width * shape.mlp_bias, tensor_parallel_size)._replace(
            quantizable=False
        ),
        _copied("mlp", dense_layers * hidden * shape.mlp_bias),
    ]
    if shape.moe is not None:
        expert = matrices * hidden * shape.moe.moe_intermediate_size
        shared = matrices * hidden * shape.moe.shared_intermediate_size
        groups += [
            _split("experts", moe_layers * shape.moe.num_experts * expert, tensor_parallel_size),
            _split("shared_experts", moe_layers * shared, tensor_parallel_size),
            _copied("router", moe_layers * shape.moe.num_experts * hidden),
        ]
    return groups


def _norms(shape: ModelShape, last: bool) -> WeightGroup:
    per_layer = 2 * shape.hidden_size
    if shape.qk_norm:
        per_layer += 2 * shape.head_dim
    if shape.mla is not None:
        per_layer += shape.mla.kv_lora_rank + (shape.mla.q_lora_rank or 0)
    elements = shape.num_hidden_layers * per_layer + shape.hidden_size * last
    return _copied("norms", elements * (2 if shape.norm_bias else 1))
