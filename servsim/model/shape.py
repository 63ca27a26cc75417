"""The shape of a decoder-only network: everything that its cost and its memory follow from."""

from __future__ import annotations

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal
from servsim.errors import ScenarioError
from servsim.model.weights import DTYPE_BYTES, Quantization, active_parameters, rank_bytes, weight_groups

__all__ = ["MlaShape", "ModelShape", "MoeShape"]


class MoeShape(Spec):
    """Routed experts: layer ``i`` has them if ``i >= first_k_dense_replace``, ``i`` is none of
    ``dense_layers``, and ``i % layer_frequency == layer_offset``; every other layer has a dense MLP.

    ``shared_intermediate_size`` is the width of all shared experts of a layer together.
    """

    num_experts: WholeNumber = Field(gt=1)
    num_experts_per_tok: WholeNumber = Field(gt=0)
    moe_intermediate_size: WholeNumber = Field(gt=0)
    num_shared_experts: WholeNumber = Field(default=0, ge=0)
    shared_intermediate_size: WholeNumber = Field(default=0, ge=0)
    first_k_dense_replace: WholeNumber = Field(default=0, ge=0)
    layer_frequency: WholeNumber = Field(default=1, gt=0)
    layer_offset: WholeNumber = Field(default=0, ge=0)
    dense_layers: tuple[int, ...] = Field(default=(), strict=False)

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer ``layer`` (from 0) routes to experts."""
        if layer < self.first_k_dense_replace or layer in self.dense_layers:
            return False
        return layer % self.layer_frequency == self.layer_offset

    @model_validator(mode="after")
    def _check(self) -> MoeShape:
        if self.num_experts_per_tok > self.num_experts:
            raise refusal(
                f"a token cannot go to {self.num_experts_per_tok} of {self.num_experts} experts",
                at=("num_experts_per_tok",),
            )
        if (self.num_shared_experts > 0) != (self.shared_intermediate_size > 0):
            raise refusal("shared experts need both a number and a width", at=("num_shared_experts",))
        if self.layer_offset >= self.layer_frequency:
            raise refusal("no layer would have experts", at=("layer_offset",))
        return self


class MlaShape(Spec):
    """Multi-head latent attention (DeepSeek-V2): keys and values share one compressed vector a token.

    ``q_lora_rank`` is missing where queries are not compressed (DeepSeek-V2-Lite).
    """

    kv_lora_rank: WholeNumber = Field(gt=0)
    q_lora_rank: WholeNumber | None = Field(default=None, gt=0)
    qk_nope_head_dim: WholeNumber = Field(gt=0)
    qk_rope_head_dim: WholeNumber = Field(ge=0)
    v_head_dim: WholeNumber = Field(gt=0)


class ModelShape(Spec):
    """The shape of a network. Names are those of Hugging Face's config.json where it has one.

    ``head_dim`` of a network with MLA is that of its queries (``qk_nope_head_dim + qk_rope_head_dim``).
    ``learned_positions`` counts the rows of a position table (OPT has two more than positions). The
    biases, ``qk_norm`` (one norm each over a head of queries and of keys) and ``norm_bias`` (LayerNorm,
    not RMSNorm) matter only to the number of parameters. ``sliding_window`` is recorded, not modelled.
    """

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    num_hidden_layers: WholeNumber = Field(gt=0)
    hidden_size: WholeNumber = Field(gt=0)
    intermediate_size: WholeNumber = Field(gt=0)
    num_attention_heads: WholeNumber = Field(gt=0)
    num_key_value_heads: WholeNumber = Field(gt=0)
    head_dim: WholeNumber = Field(gt=0)
    vocab_size: WholeNumber = Field(gt=0)
    max_position_embeddings: WholeNumber = Field(gt=0)
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_bias: bool = False
    learned_positions: WholeNumber = Field(default=0, ge=0)
    sliding_window: WholeNumber | None = Field(default=None, gt=0)
    moe: MoeShape | None = None
    mla: MlaShape | None = None
    checkpoint_quantization: str | None = None
    other_features: tuple[str, ...] = Field(default=(), strict=False)

    @property
    def num_moe_layers(self) -> int:
        """Layers that route to experts."""
        if self.moe is None:
            return 0
        return sum(self.moe.is_moe_layer(layer) for layer in range(self.num_hidden_layers))

    @property
    def num_dense_layers(self) -> int:
        """Layers with a dense MLP."""
        return self.num_hidden_layers - self.num_moe_layers

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole network, embeddings included, a tied LM head counted once."""
        return sum(group.elements for group in weight_groups(self))

    @property
    def num_active_parameters(self) -> int:
        """Parameters that one token passes through: all but the experts it is not routed to."""
        return active_parameters(self)

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the network has and the cost of a step leaves out, a sentence each."""
        windows = (f"sliding window of {self.sliding_window} tokens: attention reads the whole context",)
        return (windows if self.sliding_window else ()) + self.other_features

    def heads_per_rank(self, tensor_parallel_size: int = 1) -> int:
        """Query heads on each of ``tensor_parallel_size`` devices."""
        return self.num_attention_heads // tensor_parallel_size

    def kv_heads_per_rank(self, tensor_parallel_size: int = 1) -> int:
        """Key/value heads on each device; with fewer heads than devices each has a copy of one, as in vLLM."""
        return max(1, self.num_key_value_heads // tensor_parallel_size)

    def kv_elements_per_token_per_layer(self, tensor_parallel_size: int = 1) -> int:
        """Numbers that one device keeps for one token in one layer.

        Keys and values of its heads; with MLA the latent vector and the rotary key, which every device
        holds in full.
        """
        if self.mla is not None:
            return self.mla.kv_lora_rank + self.mla.qk_rope_head_dim
        return 2 * self.kv_heads_per_rank(tensor_parallel_size) * self.head_dim

    def kv_bytes_per_token(self, kv_dtype: str = "bf16", tensor_parallel_size: int = 1) -> int:
        """Bytes of KV that one device keeps for one token, over all layers."""
        elements = self.kv_elements_per_token_per_layer(tensor_parallel_size)
        return int(self.num_hidden_layers * elements * DTYPE_BYTES[kv_dtype])

    def weight_bytes(
        self, dtype: str = "bf16", quantization: Quantization = "none", tensor_parallel_size: int = 1
    ) -> int:
        """Bytes of weights on one device.

        Under ``fp8`` and ``int4`` only the linear layers shrink; embeddings, LM head, router, norms
        and biases stay in ``dtype``, as vLLM keeps them. fp8 takes 1 byte a weight; int4 half a byte
        and a 16-bit scale for each group of 128 weights.
        """
        return rank_bytes(weight_groups(self, tensor_parallel_size), dtype, quantization)

    def check_tensor_parallel(self, tensor_parallel_size: int) -> None:
        """Raise ScenarioError unless the network divides over that many devices, by vLLM's rules.

        Query heads and MLP widths must divide; key/value heads must divide or be a divisor (then each
        is copied).
        """
        problem = self._indivisible(tensor_parallel_size)
        if problem is None:
            return
        works = [size for size in range(1, self.num_attention_heads + 1) if self._indivisible(size) is None]
        raise ScenarioError(
            f"{self.name} has {problem}, which {tensor_parallel_size} devices cannot share",
            remedy=f"tensor_parallel_size may be {', '.join(map(str, works))}",
        )

    def _indivisible(self, size: int) -> str | None:
        if self.num_attention_heads % size:
            return f"{self.num_attention_heads} attention heads"
        # With MLA there are no key/value heads to share: the latent vector is on every device.
        if self.mla is None and self.num_key_value_heads % size and size % self.num_key_value_heads:
            return f"{self.num_key_value_heads} key/value heads"
        if self.num_dense_layers and self.intermediate_size % size:
            return f"an MLP of width {self.intermediate_size}"
        if self.moe is not None:
            if self.moe.moe_intermediate_size % size:
                return f"experts of width {self.moe.moe_intermediate_size}"
            if self.moe.shared_intermediate_size % size:
                return f"shared experts of width {self.moe.shared_intermediate_size}"
        return None

    @model_validator(mode="after")
    def _check(self) -> ModelShape:
        if self.mla is None and self.num_attention_heads % self.num_key_value_heads:
            raise refusal(
                f"{self.num_attention_heads} attention heads cannot share {self.num_key_value_heads} key/value heads",
                remedy="num_key_value_heads must divide num_attention_heads",
                at=("num_key_value_heads",),
            )
        if self.mla is not None and self.head_dim != self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim:
            raise refusal(
                f"with mla it must be qk_nope_head_dim + qk_rope_head_dim, found {self.head_dim}", at=("head_dim",)
            )
        if self.moe is not None and self.num_moe_layers == 0:
            raise refusal("no layer would have experts", remedy="leave moe out for a dense network", at=("moe",))
        return self
