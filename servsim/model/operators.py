"""What one step of a network has to do on one tensor-parallel rank: operators with their FLOPs and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from servsim.model.shape import ModelShape
from servsim.model.weights import DTYPE_BYTES, INT4_BYTES, Quantization

__all__ = ["AllReduce", "Attention", "RowOperator", "StepOperators", "step_operators"]

_LOGIT_BYTES = 4  # logits are sampled in fp32


@dataclass(frozen=True, slots=True)
class RowOperator:
    """Work that depends on how many rows (tokens, or sequences that emit) it is done for.

    FLOPs of a call: ``flops_per_row * rows``; bytes: ``weight_bytes + bytes_per_row * rows``. Of routed
    experts (``experts`` > 0) each row reads ``experts_per_row`` at random, so that of the weights the share
    ``1 - (1 - experts_per_row / experts) ** rows`` is expected to be read.
    """

    name: str
    kind: Literal["gemm", "experts", "elementwise"]
    dtype: str  # of the operands: bf16, fp16, fp32, fp8, int4
    calls: int  # a step
    flops_per_row: float
    weight_bytes: float
    bytes_per_row: float
    experts: int = 0
    experts_per_row: int = 0
    k: float = 0.0  # of products: the width that is summed over (of experts: the hidden size)
    n: float = 0.0  # of products: the width of the result (of experts: an expert's width)
    prepared_bytes_per_row: float = 0.0  # read and written by a kernel that goes before, to quantize the operands

    def flops(self, rows: float) -> float:
        """FLOPs of one call."""
        return self.flops_per_row * rows

    def bytes(self, rows: float) -> float:
        """Bytes of one call."""
        return self.weight_bytes * self.share_read(rows) + self.bytes_per_row * rows

    def share_read(self, rows: float) -> float:
        """The share of the weights that is expected to be read."""
        return 1.0 if not self.experts else 1.0 - (1.0 - self.experts_per_row / self.experts) ** rows

    def padded_flops(self, rows: float, tile_rows: int) -> float:
        """FLOPs of one call whose experts compute whole tiles of ``tile_rows`` rows.

        The last tile of a chosen expert is half full on average, the only one of an expert with few rows is
        computed in full.
        """
        if not self.experts or not rows:
            return self.flops(rows)
        load = rows * self.experts_per_row / self.experts
        chosen = self.share_read(rows)
        padded = max(chosen * tile_rows, load + chosen * (tile_rows - 1) / 2)
        return self.flops(rows) * padded / load


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one layer; a pair is one query token with one token that it attends to."""

    calls: int  # layers
    dtype: str
    decode_flops_per_pair: float
    prefill_flops_per_pair: float
    kv_bytes_per_token: float  # read for each token in the context
    io_bytes_per_token: float  # a new token's query and output
    kv_dtype: str = "bf16"
    heads: int = 1  # on this rank
    kv_heads: int = 1
    head_dim: int = 0  # 0 for latent attention: no kernel table speaks of it


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Sums over the tensor-parallel group."""

    calls: int
    group: int
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class StepOperators:
    """All operators of one step on one rank."""

    per_token: tuple[RowOperator, ...]  # rows: every token of the step
    per_emitted: tuple[RowOperator, ...]  # rows: every sequence that emits
    attention: Attention
    all_reduce: AllReduce | None


def step_operators(
    shape: ModelShape,
    tensor_parallel_size: int,
    dtype: str,
    quantization: Quantization,
    kv_dtype: str,
    *,
    first: bool = True,
    last: bool = True,
) -> StepOperators:
    """The operators of a decoder-only network, kernels fused as current engines fuse them.

    A layer is: norm (with the residual), qkv projection, rotary embedding with the write of KV, attention, output
    projection, norm, MLP (up and gate in one product, activation, down) or routed experts. fp8 and int4 shrink the
    linear layers; attention and the LM head stay in ``dtype``. Parallelism is Megatron's: two all-reduces a
    layer and one for the vocabulary-parallel embedding. Of a pipeline's stages only the ``first`` looks up the
    embedding, and the ``last`` normalises, projects to the vocabulary and samples.
    """
    builder = _Builder(shape, tensor_parallel_size, dtype, quantization)
    tp, item = tensor_parallel_size, DTYPE_BYTES[dtype]
    layers = shape.num_hidden_layers
    per_token = [
        *([builder.elementwise("embedding", 1, 2 * shape.hidden_size)] if first else []),
        builder.elementwise("norm", 2 * layers + last, 4 * shape.hidden_size),
        *(builder.latent_projections() if shape.mla else builder.projections()),
        *builder.mlps(),
    ]
    vocabulary = -(-shape.vocab_size // tp)
    per_emitted = [
        builder.gemm("lm_head", 1, shape.hidden_size, vocabulary, quantized=False),
        RowOperator("sampling", "elementwise", dtype, 1, 0.0, 0.0, shape.vocab_size * (item + 2 * _LOGIT_BYTES)),
    ]
    exchange = AllReduce(2 * layers + first, tp, shape.hidden_size * item) if tp > 1 else None
    attention = _attention(shape, tp, dtype, kv_dtype)
    return StepOperators(tuple(per_token), tuple(per_emitted) if last else (), attention, exchange)


def _attention(shape: ModelShape, tp: int, dtype: str, kv_dtype: str) -> Attention:
    heads, item = shape.heads_per_rank(tp), DTYPE_BYTES[dtype]
    kv_bytes = shape.kv_elements_per_token_per_layer(tp) * DTYPE_BYTES[kv_dtype]
    if shape.mla is None:
        pair = 4.0 * heads * shape.head_dim
        io_bytes = 2 * heads * shape.head_dim * item
        kv_heads = shape.kv_heads_per_rank(tp)
        return Attention(
            shape.num_hidden_layers, dtype, pair, pair, kv_bytes, io_bytes, kv_dtype, heads, kv_heads, shape.head_dim
        )
    # Decode multiplies in the latent space (the absorbed form); prefill expands keys and values first.
    mla = shape.mla
    latent = 2.0 * heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)
    expanded = 2.0 * heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim)
    io_bytes = heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim) * item
    return Attention(shape.num_hidden_layers, dtype, latent, expanded, kv_bytes, io_bytes, kv_dtype, heads)


class _Builder:
    """Rows of work with the dtypes of one network's layers."""

    def __init__(self, shape: ModelShape, tp: int, dtype: str, quantization: Quantization) -> None:
        self.shape, self.tp, self.dtype = shape, tp, dtype
        self.item = DTYPE_BYTES[dtype]
        self.linear_dtype = dtype if quantization == "none" else quantization
        self.weight_item = INT4_BYTES if quantization == "int4" else DTYPE_BYTES[self.linear_dtype]

    def gemm(self, name: str, calls: int, k: float, n: float, *, quantized: bool = True) -> RowOperator:
        """Rows times a k x n matrix; for fp8 the rows are quantized first, by a kernel of its own."""
        dtype, weight_item = (self.linear_dtype, self.weight_item) if quantized else (self.dtype, self.item)
        fp8 = dtype == "fp8"
        return RowOperator(
            name,
            "gemm",
            dtype,
            calls,
            2.0 * k * n,
            k * n * weight_item,
            (k if fp8 else k * self.item) + n * self.item,
            k=k,
            n=n,
            prepared_bytes_per_row=k * (self.item + 1) if fp8 else 0.0,
        )

    def elementwise(self, name: str, calls: int, elements_per_row: float) -> RowOperator:
        """Elements read and written a row."""
        return RowOperator(name, "elementwise", self.dtype, calls, 0.0, 0.0, elements_per_row * self.item)

    def projections(self) -> list[RowOperator]:
        """qkv, rotary embedding with the write of KV, and output projection."""
        shape, layers = self.shape, self.shape.num_hidden_layers
        query = shape.heads_per_rank(self.tp) * shape.head_dim
        both = query + 2 * shape.kv_heads_per_rank(self.tp) * shape.head_dim
        return [
            self.gemm("qkv_proj", layers, shape.hidden_size, both),
            self.elementwise("rotary_and_kv_write", layers, 2 * both),
            self.gemm("o_proj", layers, query, shape.hidden_size),
        ]

    def latent_projections(self) -> list[RowOperator]:
        """The same for multi-head latent attention: compress, expand the queries, absorb keys and values."""
        shape, mla, layers = self.shape, self.shape.mla, self.shape.num_hidden_layers
        assert mla is not None
        heads, latent = shape.heads_per_rank(self.tp), mla.kv_lora_rank + mla.qk_rope_head_dim
        query_in = mla.q_lora_rank or shape.hidden_size
        operators = [
            self.gemm("qkv_a_proj", layers, shape.hidden_size, latent + (mla.q_lora_rank or 0)),
            self.gemm("q_b_proj", layers, query_in, heads * shape.head_dim),
            self.gemm("kv_b_proj", layers, mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim)),
            self.elementwise("rotary_and_kv_write", layers, 2 * latent),
            self.gemm("o_proj", layers, heads * mla.v_head_dim, shape.hidden_size),
        ]
        return operators

    def mlps(self) -> list[RowOperator]:
        """The dense MLPs, and the routed and shared experts of a mixture."""
        shape, moe = self.shape, self.shape.moe
        operators = self._mlp("mlp", shape.num_dense_layers, shape.intermediate_size)
        if moe is None:
            return operators
        layers, width = shape.num_moe_layers, moe.moe_intermediate_size / self.tp
        matrices = 3 if shape.gated_mlp else 2
        expert = matrices * shape.hidden_size * width
        chosen = moe.num_experts_per_tok
        return [
            *operators,
            self.gemm("router", layers, shape.hidden_size, moe.num_experts, quantized=False),
            RowOperator(
                "experts",
                "experts",
                self.linear_dtype,
                layers,
                2.0 * chosen * expert,
                moe.num_experts * expert * self.weight_item,
                2 * shape.hidden_size * self.item,
                moe.num_experts,
                chosen,
                shape.hidden_size,
                width,
            ),
            *self._mlp("shared_experts", layers if moe.num_shared_experts else 0, moe.shared_intermediate_size),
        ]

    def _mlp(self, name: str, layers: int, width: int) -> list[RowOperator]:
        if not layers:
            return []
        shape, local = self.shape, width / self.tp
        gates = 2 if shape.gated_mlp else 1
        return [
            self.gemm(f"{name}_up", layers, shape.hidden_size, gates * local),
            self.elementwise(f"{name}_activation", layers, (gates + 1) * local),
            self.gemm(f"{name}_down", layers, local, shape.hidden_size),
        ]
