"""A link between a device's memory and another memory: what it carries each way, and what a copy costs to start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal

__all__ = ["LinkSpec"]


class LinkSpec(Spec):
    """PCIe, NVLink-C2C, CXL or a network, as one device sees it.

    ``read`` is towards the device, ``write`` away from it. The two bandwidths are those that large copies
    reach; ``peak_bandwidth_bytes_per_s`` is what the wires carry one way, for comparison. With ``duplex:
    half`` both directions share the time of one. ``latency_s`` passes before the first byte of a transfer
    arrives; ``launch_s`` is what the host and its driver spend on one copy operation, one after the other.
    At most ``queue_depth`` transfers move at a time, by default any number. ``sources`` says for each number
    where it comes from.
    """

    name: str = Field(min_length=1)
    kind: Literal["link"]
    read_bandwidth_bytes_per_s: float = Field(gt=0)
    write_bandwidth_bytes_per_s: float = Field(gt=0)
    peak_bandwidth_bytes_per_s: float | None = Field(default=None, gt=0)
    duplex: Literal["full", "half"] = "full"
    latency_s: float = Field(ge=0)
    launch_s: float = Field(ge=0)
    queue_depth: WholeNumber | None = Field(default=None, gt=0)
    sources: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_peak(self) -> LinkSpec:
        peak = self.peak_bandwidth_bytes_per_s
        for key in ("read_bandwidth_bytes_per_s", "write_bandwidth_bytes_per_s"):
            if peak is not None and getattr(self, key) > peak:
                raise refusal(
                    f"{getattr(self, key):g} bytes/s, but the link's peak is {peak:g}",
                    remedy="bandwidths are bytes per second one way, the peak those on the wires",
                    at=(key,),
                )
        return self
