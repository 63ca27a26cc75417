"""How much of a device's peaks the kernels of one kind reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal
from servsim.hardware.correction import Correction

__all__ = ["CORRECTED_BY", "Dtype", "Efficiency", "Law", "Operator", "Range", "default_efficiency"]

Operator = Literal["gemm", "experts", "attention_prefill", "attention_decode", "elementwise"]
Dtype = Literal["bf16", "fp16", "fp32", "fp8", "int8", "int4", "any"]
Law = Literal["maximum", "sum", "p_norm"]
Range = Annotated[tuple[float, float], Field(strict=False)]

CORRECTED_BY: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "experts": ("tokens", "hidden", "width", "spread"),
    "attention_prefill": ("work", "length", "group", "kv_heads"),
    "attention_decode": ("work", "length", "group"),
}
"""The axes that a correction of each kind of operator has, in this order."""

_ONLY_OF: dict[str, Operator] = {
    "tile_rows": "experts",
    "wave_share": "gemm",
    "regrouping_s": "attention_decode",
    "several_heads_s": "attention_decode",
}


class Efficiency(Spec):
    """``t = law(FLOPs / (compute x peak), bytes / (memory x bandwidth)) + overhead_s`` for one kind of operator.

    FLOPs count a multiplication and an addition as two. Bytes are those that must cross the device's
    memory at least once: operands read and results written, each counted once. What each kind counts:

    - ``gemm``: ``2 m n k`` FLOPs; weights, activations in and out.
    - ``experts`` (the routed experts of one layer, one call): ``6 tokens x top_k x hidden x
      moe_intermediate`` FLOPs; the weights of the experts that were chosen at least once, activations in and out.
    - ``attention_prefill`` (one layer, one call): half of the full score matrix, ``2 length^2 x heads x
      head_dim`` FLOPs a sequence without a prefix; queries, keys, values and output.
    - ``attention_decode`` (one layer, one call): the KV that is read.
    - ``elementwise``: whatever is read and written.

    The dtype of attention is that of the KV. Experts with ``tile_rows`` compute whole tiles of so many tokens
    for every expert that is chosen. ``correction`` multiplies the law; its axes are, by operator:

    - ``gemm``: ``m`` (tokens), ``n``, ``k``;
    - ``experts``: ``tokens``, ``hidden``, ``width`` (of one expert, on this device), ``spread`` (experts / top_k);
    - ``attention_prefill``: ``work`` (sequences x heads), ``length``, ``group`` (heads a key-value head), ``kv_heads``;
    - ``attention_decode``: ``work`` (sequences x key-value heads), ``length``, ``group``.

    ``wave_share`` (of ``gemm``, on a device with ``processors``) says how far compute follows whole waves of tiles:
    FLOPs count :func:`~servsim.hardware.waves.wave_factor` to that power as often. Two constants of
    ``attention_decode`` come on top of law and correction: ``regrouping_s`` where several sequences, several key-value
    heads and more than one head a key-value head meet (FlashAttention 2 then copies queries and results into another
    order), and ``several_heads_s`` wherever there are several key-value heads.

    ``compute: null`` says that the time does not depend on FLOPs. ``median_error`` and ``p90_error``
    are relative errors, so 0.05 is 5 %, on ``held_back`` measurements that the fit to ``rows`` others did not see
    (on those of the fit where ``held_back`` is missing); all are missing where the numbers are an assumption.
    ``covers`` is the range of each variable in the measurements.
    """

    operator: Operator
    dtype: Dtype = "any"
    law: Law = "maximum"
    exponent: float | None = Field(default=None, ge=1)
    compute: float | None = Field(gt=0, le=1)
    memory: float = Field(gt=0, le=1)
    overhead_s: float = Field(ge=0)
    tile_rows: WholeNumber | None = Field(default=None, ge=1)
    wave_share: float | None = Field(default=None, gt=0, le=1)
    regrouping_s: float | None = Field(default=None, gt=0)
    several_heads_s: float | None = Field(default=None, gt=0)
    median_error: float | None = Field(default=None, ge=0)
    p90_error: float | None = Field(default=None, ge=0)
    rows: WholeNumber | None = Field(default=None, ge=1)
    held_back: WholeNumber | None = Field(default=None, ge=1)
    covers: dict[str, Range] = Field(default_factory=dict)
    correction: Correction | None = None
    source: str = Field(min_length=1)

    @property
    def measured(self) -> bool:
        """Whether the numbers were fitted to measurements (else they are an assumption)."""
        return self.median_error is not None

    @model_validator(mode="after")
    def _check_exponent(self) -> Efficiency:
        if self.law == "p_norm" and self.exponent is None:
            raise refusal("the law p_norm needs an exponent", remedy="add for example exponent: 4", at=("law",))
        if self.law != "p_norm" and self.exponent is not None:
            raise refusal(f"the law {self.law} has no exponent", remedy="leave it out", at=("exponent",))
        return self

    @model_validator(mode="after")
    def _check_correction(self) -> Efficiency:
        if self.correction is not None:
            wanted = CORRECTED_BY.get(self.operator)
            if wanted is None:
                raise refusal(f"{self.operator} has no correction", remedy="leave it out", at=("correction",))
            if self.correction.names != wanted:
                raise refusal(f"{self.operator} is corrected by {', '.join(wanted)}", at=("correction", "axes"))
        return self

    @model_validator(mode="after")
    def _check_extras(self) -> Efficiency:
        for name, operator in _ONLY_OF.items():
            if getattr(self, name) is not None and self.operator != operator:
                raise refusal(f"{name} is for {operator}", remedy="leave it out", at=(name,))
        return self


def default_efficiency(operator: Operator) -> Efficiency:
    """What is assumed where nobody has measured: 80 % of compute, 83 % of memory, 4 us a call.

    These are what GEMMs of the measured GPUs come to in the middle; attention on measured GPUs reaches
    less compute in prefill (52-66 %). Decode attention and elementwise work are bound by memory.
    """
    bound_by_memory = operator in ("attention_decode", "elementwise")
    return Efficiency(
        operator=operator,
        compute=None if bound_by_memory else 0.80,
        memory=0.83,
        overhead_s=4e-6,
        source="default where nothing was measured",
    )
