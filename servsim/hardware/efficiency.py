"""How much of a device's peaks the kernels of one kind reach."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from servsim.documents import Spec, refusal

__all__ = ["Dtype", "Efficiency", "Law", "Operator", "default_efficiency"]

Operator = Literal["gemm", "experts", "attention_prefill", "attention_decode", "elementwise"]
Dtype = Literal["bf16", "fp16", "fp32", "fp8", "int8", "int4", "any"]
Law = Literal["maximum", "sum", "p_norm"]


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

    ``compute: null`` says that the time does not depend on FLOPs. ``median_error`` and ``p90_error``
    are relative errors against the measurements that the numbers were fitted to, so 0.05 is 5 %; both
    are missing where the numbers are an assumption.
    """

    operator: Operator
    dtype: Dtype = "any"
    law: Law = "maximum"
    exponent: float | None = Field(default=None, ge=1)
    compute: float | None = Field(gt=0, le=1)
    memory: float = Field(gt=0, le=1)
    overhead_s: float = Field(ge=0)
    median_error: float | None = Field(default=None, ge=0)
    p90_error: float | None = Field(default=None, ge=0)
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
