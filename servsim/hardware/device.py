"""A device that computes: its peaks, its memory, and how it exchanges data with its neighbours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal
from servsim.errors import ScenarioError
from servsim.hardware.correction import Correction
from servsim.hardware.efficiency import Dtype, Efficiency, Operator, Range, default_efficiency

__all__ = ["AllReduce", "Device", "Interconnect", "Peaks"]


class Peaks(Spec):
    """Dense peak rates in FLOP/s by the dtype of the operands (no sparsity); missing: no unit for it."""

    bf16: float | None = Field(default=None, gt=0)
    fp16: float | None = Field(default=None, gt=0)
    fp8: float | None = Field(default=None, gt=0)
    int8: float | None = Field(default=None, gt=0)
    fp32: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_any(self) -> Peaks:
        if not (self.bf16 or self.fp16 or self.fp32):
            raise refusal("a device needs a peak for bf16, fp16 or fp32", remedy="add for example bf16: 312e12")
        return self


class AllReduce(Spec):
    """An all-reduce over ``group`` devices: ``overhead_s`` + bytes on the wire / (``efficiency`` x bandwidth).

    ``correction`` multiplies that, by the ``bytes`` of the message; errors, rows and range as of :class:`Efficiency`.
    Messages below ``one_stage_below_bytes`` are summed in one stage, in which each device reads those of all others;
    ``switches_bytes`` are further messages from which the library takes another algorithm. Both are known from its
    sources; a fit puts two points of the correction at each, one for either side.
    """

    group: WholeNumber = Field(ge=2)
    overhead_s: float = Field(ge=0)
    efficiency: float = Field(gt=0, le=1)
    median_error: float | None = Field(default=None, ge=0)
    p90_error: float | None = Field(default=None, ge=0)
    rows: WholeNumber | None = Field(default=None, ge=1)
    held_back: WholeNumber | None = Field(default=None, ge=1)
    covers: dict[str, Range] = Field(default_factory=dict)
    one_stage_below_bytes: WholeNumber | None = Field(default=None, gt=0)
    switches_bytes: tuple[WholeNumber, ...] = Field(default=(), strict=False)
    correction: Correction | None = None

    @model_validator(mode="after")
    def _check_correction(self) -> AllReduce:
        if self.correction is not None and self.correction.names != ("bytes",):
            raise refusal("an all-reduce is corrected by bytes", at=("correction", "axes"))
        return self


class Interconnect(Spec):
    """The link between devices of one node; ``bandwidth_bytes_per_s`` is that of one device in one direction.

    ``measured`` says whether the all-reduce table was fitted to measurements or assumed.
    """

    name: str = Field(min_length=1)
    bandwidth_bytes_per_s: float = Field(gt=0)
    all_reduce: tuple[AllReduce, ...] = Field(min_length=1, strict=False)
    measured: bool
    source: str = Field(min_length=1)

    @property
    def largest_group(self) -> int:
        """The most devices that an all-reduce is known for."""
        return self.all_reduce[-1].group

    def all_reduce_for(self, group: int) -> AllReduce:
        """The table's row for ``group`` devices; a size between two rows takes the larger one.

        Raises ScenarioError for a group larger than any in the table: nothing is extrapolated.
        """
        for row in self.all_reduce:
            if row.group >= group:
                return row
        raise ScenarioError(
            f"{self.name} has no all-reduce over {group} devices",
            remedy=f"its largest group is {self.largest_group}",
        )

    def all_reduce_s(self, message_bytes: float, group: int) -> float:
        """Seconds to sum a message of ``message_bytes`` over ``group`` devices; 0 for a group of one.

        Each device puts ``2 (group - 1) / group`` times the message on the wire, as a ring does, or ``group - 1`` times
        in one stage.
        """
        if group == 1:
            return 0.0
        row = self.all_reduce_for(group)
        one_stage = message_bytes < (row.one_stage_below_bytes or 0)
        wire_s = (group - 1) * (1.0 if one_stage else 2 / group) * message_bytes / self.bandwidth_bytes_per_s
        time_s = row.overhead_s + wire_s / row.efficiency
        if row.correction is None or message_bytes <= 0:
            return time_s
        return max(wire_s, time_s * row.correction.grid.factor(message_bytes))

    @model_validator(mode="after")
    def _check_groups(self) -> Interconnect:
        groups = [row.group for row in self.all_reduce]
        if groups != sorted(set(groups)):
            raise refusal(f"the groups {groups} must rise, each given once", at=("all_reduce",))
        return self


class Device(Spec):
    """A GPU or a CPU: published peaks, and the share of them that kernels were measured to reach.

    ``memory_bytes`` is what the driver reports, not the data sheet's round number. ``l2_bytes`` is the
    last cache before that memory; ``l2_bandwidth_bytes_per_s`` is given only where decode attention was
    seen to run faster than the memory. ``processors`` are a GPU's streaming multiprocessors. ``sources`` says for each
    number where it comes from.
    """

    name: str = Field(min_length=1)
    kind: Literal["gpu", "cpu"]
    vendor: str = Field(min_length=1)
    memory_bytes: WholeNumber = Field(gt=0)
    memory_bandwidth_bytes_per_s: float = Field(gt=0)
    l2_bytes: WholeNumber | None = Field(default=None, gt=0)
    l2_bandwidth_bytes_per_s: float | None = Field(default=None, gt=0)
    processors: WholeNumber | None = Field(default=None, gt=0)
    peak_flops_per_s: Peaks
    interconnect: Interconnect | None = None
    efficiencies: tuple[Efficiency, ...] = Field(default=(), strict=False)
    calibrated: bool
    sources: dict[str, str] = Field(min_length=1)
    price_per_hour_usd: float | None = Field(default=None, ge=0)

    @property
    def l2_resident_bytes(self) -> int:
        """The most bytes of one call that stay in the L2; 0 where the L2 gives no advantage.

        On L40S and RTX PRO 6000 decode attention and experts measured alone fall back to the memory's bandwidth when
        their KV or weights pass the L2 (AIConfigurator silicon tables). In a step other weights flush it.
        """
        if self.l2_bytes is None or self.l2_bandwidth_bytes_per_s is None:
            return 0
        return self.l2_bytes

    def compute_dtype(self, dtype: Dtype) -> Dtype:
        """The dtype in which operands of ``dtype`` are multiplied on this device.

        int4 weights are widened to 16 bits, as Marlin kernels do, and so is fp8 where there are no fp8 units.
        Raises ScenarioError where the device has no unit that could do it.
        """
        peaks = self.peak_flops_per_s
        if dtype in ("bf16", "fp16", "fp32") and getattr(peaks, dtype) is not None:
            return dtype
        if dtype in ("fp8", "int8") and getattr(peaks, dtype) is not None:
            return dtype
        if dtype in ("fp8", "int8", "int4"):
            if peaks.bf16 is not None:
                return "bf16"
            if peaks.fp16 is not None:
                return "fp16"
        known = [name for name in Peaks.model_fields if getattr(peaks, name) is not None]
        raise ScenarioError(f"{self.name} has no peak rate for {dtype}", remedy=f"it has {', '.join(known)}")

    def peak_flops(self, dtype: Dtype) -> float:
        """FLOP/s, dense, for operands of ``dtype``; see :meth:`compute_dtype` for what stands in for what."""
        return float(getattr(self.peak_flops_per_s, self.compute_dtype(dtype)))

    def check_tensor_parallel(self, tensor_parallel_size: int) -> None:
        """Raise ScenarioError unless that many of these devices can exchange data, as far as is known."""
        if tensor_parallel_size == 1:
            return
        if self.interconnect is None:
            raise ScenarioError(f"{self.name} has no interconnect", remedy="tensor_parallel_size must be 1 on it")
        self.interconnect.all_reduce_for(tensor_parallel_size)

    def efficiency(self, operator: Operator, dtype: Dtype = "bf16") -> Efficiency:
        """How well ``operator`` does on operands of ``dtype``.

        Looked up for the dtype itself, then for ``any``, then for bf16 (fp16 runs at its rate, int4
        weights are widened to it), then :func:`default_efficiency`.
        """
        for wanted in (dtype, "any", "bf16"):
            for entry in self.efficiencies:
                if entry.operator == operator and entry.dtype == wanted:
                    return entry
        return default_efficiency(operator)

    @model_validator(mode="after")
    def _check_l2(self) -> Device:
        bandwidth = self.l2_bandwidth_bytes_per_s
        if bandwidth is not None and self.l2_bytes is None:
            raise refusal("an L2 bandwidth needs l2_bytes", at=("l2_bandwidth_bytes_per_s",))
        if bandwidth is not None and bandwidth < self.memory_bandwidth_bytes_per_s:
            raise refusal("the L2 is slower than the memory behind it", at=("l2_bandwidth_bytes_per_s",))
        return self

    @model_validator(mode="after")
    def _check_efficiencies(self) -> Device:
        seen: set[tuple[str, str]] = set()
        for index, entry in enumerate(self.efficiencies):
            key = (entry.operator, entry.dtype)
            if key in seen:
                raise refusal(f"{entry.operator} in {entry.dtype} is given twice", at=("efficiencies", index))
            seen.add(key)
            if entry.wave_share is not None and self.processors is None:
                raise refusal("a wave_share needs the device's processors", at=("efficiencies", index, "wave_share"))
        if self.calibrated and not any(entry.measured for entry in self.efficiencies):
            raise refusal(
                "a calibrated device needs an efficiency with a median_error",
                remedy="write calibrated: false where nothing was measured",
                at=("calibrated",),
            )
        return self
