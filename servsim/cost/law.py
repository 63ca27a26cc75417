"""The roofline law of one kind of operator on one device."""

from __future__ import annotations

from dataclasses import dataclass, field

from servsim.hardware import Device, Efficiency, Grid
from servsim.hardware.efficiency import Operator, Range
from servsim.hardware.waves import wave_factor
from servsim.model.operators import RowOperator

__all__ = ["Line", "OperatorLaw", "RowLaw"]

Line = tuple[float, float]  # constant and slope


@dataclass(frozen=True, slots=True)
class OperatorLaw:
    """``t = law(FLOPs / flops_per_s, bytes / bytes_per_s) + overhead_s``; what a device attains, overhead aside.

    Where the device has a correction for the operator it multiplies that time, which never falls below what the
    device's peaks (``least_s_per_flop``, ``least_s_per_byte``) allow.
    """

    law: str  # maximum, sum, p_norm
    exponent: float
    flops_per_s: float
    bytes_per_s: float
    overhead_s: float
    least_s_per_flop: float = 0.0
    least_s_per_byte: float = 0.0
    grid: Grid | None = None
    tile_rows: int = 1  # of experts
    wave_share: float = 0.0  # of products
    processors: int = 1
    regrouping_s: float = 0.0  # of decode attention, as is the next
    several_heads_s: float = 0.0
    prepares: bool = False  # whether operands are quantized by a kernel of its own
    covers: dict[str, Range] = field(default_factory=dict)

    @classmethod
    def of(cls, device: Device, kind: Operator, dtype: str, efficiency: Efficiency | None = None) -> OperatorLaw:
        """The device's efficiency for such operators times its peaks.

        An operator whose time was found not to depend on FLOPs (``compute: null``) is still never faster
        than the peak. ``efficiency`` stands in for the device's own (attention goes by the dtype of the KV).
        """
        compute_dtype = device.compute_dtype(dtype)  # type: ignore[arg-type]
        found = efficiency or device.efficiency(kind, compute_dtype)
        attained = 1.0 if found.compute is None else found.compute
        peak = device.peak_flops(compute_dtype)
        return cls(
            found.law,
            found.exponent or 1.0,
            attained * peak,
            found.memory * device.memory_bandwidth_bytes_per_s,
            found.overhead_s,
            1.0 / peak,
            1.0 / device.memory_bandwidth_bytes_per_s,
            found.correction.grid if found.correction else None,
            found.tile_rows or 1,
            found.wave_share or 0.0,
            device.processors or 1,
            found.regrouping_s or 0.0,
            found.several_heads_s or 0.0,
            compute_dtype == "fp8",
            found.covers,
        )

    def time_s(self, flops: float, size_bytes: float) -> float:
        """Seconds of one call, by the law alone."""
        compute_s, memory_s = flops / self.flops_per_s, size_bytes / self.bytes_per_s
        if self.law == "maximum":
            return max(compute_s, memory_s) + self.overhead_s
        if self.law == "sum":
            return compute_s + memory_s + self.overhead_s
        return float((compute_s**self.exponent + memory_s**self.exponent) ** (1.0 / self.exponent)) + self.overhead_s

    def least_s(self, flops: float, size_bytes: float) -> float:
        """No call is shorter."""
        return max(flops * self.least_s_per_flop, size_bytes * self.least_s_per_byte)

    def uncovered(self, place: dict[str, float]) -> bool:
        """Whether a value lies outside the range that was measured for it."""
        return any(not (low <= place[name] <= high) for name, (low, high) in self.covers.items() if name in place)

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


class RowLaw:
    """The law of one operator: how long all its calls in a step take, by the rows of the step."""

    def __init__(self, operator: RowOperator, law: OperatorLaw) -> None:
        self.operator = operator
        self._law = law
        if operator.kind == "experts":
            spread = operator.experts / operator.experts_per_row
            place = {"hidden": operator.k, "width": operator.n, "spread": spread}
        else:
            place = {"n": operator.n, "k": operator.k}
        corrected = law.grid is not None and operator.n > 0
        self._grid = law.grid.at_last(*place.values()) if law.grid is not None and corrected else None
        self._outside = operator.n > 0 and law.uncovered(place)
        self._range = law.covers.get("tokens" if operator.kind == "experts" else "m", (0.0, float("inf")))
        self._prepared_s = operator.prepared_bytes_per_row / law.bytes_per_s if law.prepares else 0.0

    def time_s(self, rows: int) -> float:
        """Seconds of all calls."""
        operator, law = self.operator, self._law
        flops, size_bytes = operator.flops(rows), operator.bytes(rows)
        worked = operator.padded_flops(rows, law.tile_rows) if law.tile_rows > 1 else flops
        if law.wave_share and rows and operator.n > 0:
            worked *= wave_factor(rows, operator.n, law.processors) ** law.wave_share
        time_s = law.time_s(worked, size_bytes) + self._prepared_s * rows
        if self._grid is not None and rows:
            time_s *= self._grid.factor_on_line(rows)
        return operator.calls * max(time_s, law.least_s(flops, size_bytes))

    def outside(self, rows: int) -> bool:
        """Whether so many rows lie outside the measured range."""
        low, high = self._range
        return self._outside or not low <= rows <= high
