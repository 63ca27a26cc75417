"""The roofline law of one kind of operator on one device."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.hardware import Device
from servsim.hardware.efficiency import Operator
from servsim.model.operators import RowOperator

__all__ = ["Line", "OperatorLaw"]

Line = tuple[float, float]  # constant and slope


@dataclass(frozen=True, slots=True)
class OperatorLaw:
    """``t = law(FLOPs / flops_per_s, bytes / bytes_per_s) + overhead_s``; what a device attains, overhead aside."""

    law: str  # maximum, sum, p_norm
    exponent: float
    flops_per_s: float
    bytes_per_s: float
    overhead_s: float

    @classmethod
    def of(cls, device: Device, kind: Operator, dtype: str) -> OperatorLaw:
        """The device's efficiency for such operators times its peaks.

        An operator whose time was found not to depend on FLOPs (``compute: null``) is still never faster
        than the peak.
        """
        compute_dtype = device.compute_dtype(dtype)  # type: ignore[arg-type]
        found = device.efficiency(kind, compute_dtype)
        attained = 1.0 if found.compute is None else found.compute
        return cls(
            found.law,
            found.exponent or 1.0,
            attained * device.peak_flops(compute_dtype),
            found.memory * device.memory_bandwidth_bytes_per_s,
            found.overhead_s,
        )

    def time_s(self, flops: float, size_bytes: float) -> float:
        """Seconds of one call."""
        compute_s, memory_s = flops / self.flops_per_s, size_bytes / self.bytes_per_s
        if self.law == "maximum":
            return max(compute_s, memory_s) + self.overhead_s
        if self.law == "sum":
            return compute_s + memory_s + self.overhead_s
        return float((compute_s**self.exponent + memory_s**self.exponent) ** (1.0 / self.exponent)) + self.overhead_s

    def rows_s(self, operator: RowOperator, rows: int) -> float:
        """Seconds of all calls of an operator in a step."""
        return operator.calls * self.time_s(operator.flops(rows), operator.bytes(rows))

    def lines(self, flops: Line, size_bytes: Line) -> list[Line]:
        """Time as the maximum of straight lines, where FLOPs and bytes are straight lines of the same variable.

        For laws that are :attr:`straight` only: a p-norm of two lines is none.
        """
        compute = (flops[0] / self.flops_per_s + self.overhead_s, flops[1] / self.flops_per_s)
        memory = (size_bytes[0] / self.bytes_per_s + self.overhead_s, size_bytes[1] / self.bytes_per_s)
        if self.law == "maximum":
            return [memory, compute]
        return [(compute[0] + memory[0] - self.overhead_s, compute[1] + memory[1])]

    @property
    def straight(self) -> bool:
        """Whether the law is piecewise linear."""
        return self.law != "p_norm"
