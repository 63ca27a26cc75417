"""What a transfer between a device and another memory costs when nothing else is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from servsim.hardware.link_spec import LinkSpec

__all__ = ["Direction", "Route"]

Direction = Literal["in", "out"]
"""``in`` is towards the device, ``out`` away from it."""


@dataclass(frozen=True, slots=True)
class Route:
    """The numbers of a link, or of a link with a drive behind it.

    ``in_operations_per_s`` and ``out_operations_per_s`` bound how many operations end in a second (a
    drive's IOPS); None where only bytes count. ``queue_depth`` transfers move at a time, None for any number.
    """

    in_bytes_per_s: float
    out_bytes_per_s: float
    latency_s: float = 0.0
    launch_s: float = 0.0
    half_duplex: bool = False
    queue_depth: int | None = None
    in_operations_per_s: float | None = None
    out_operations_per_s: float | None = None

    @classmethod
    def over(cls, link: LinkSpec) -> Route:
        """The route over a link alone."""
        return cls(
            in_bytes_per_s=link.read_bandwidth_bytes_per_s,
            out_bytes_per_s=link.write_bandwidth_bytes_per_s,
            latency_s=link.latency_s,
            launch_s=link.launch_s,
            half_duplex=link.duplex == "half",
            queue_depth=link.queue_depth,
        )

    def bytes_per_s(self, direction: Direction, granularity_bytes: float | None = None) -> float:
        """The bandwidth one way, for operations of ``granularity_bytes`` (None: as large as need be)."""
        bandwidth, rate = self._rates(direction)
        if rate is None or granularity_bytes is None:
            return bandwidth
        return min(bandwidth, rate * granularity_bytes)

    def lead_s(self, operations: int) -> float:
        """What passes before the first byte of a transfer moves: the latency, and the launch of each operation."""
        return self.latency_s + operations * self.launch_s

    def work_s(self, size_bytes: float, operations: int, direction: Direction) -> float:
        """How long the bytes then move: by bandwidth, or by operations where those take longer."""
        bandwidth, rate = self._rates(direction)
        moving_s = size_bytes / bandwidth
        return moving_s if rate is None else max(moving_s, operations / rate)

    def idle_time_s(self, size_bytes: float, operations: int, direction: Direction) -> float:
        """How long a transfer takes with the route to itself.

        Cost comparisons (swap or recompute, FastSwitch) use ``t = operations x t_launch + bytes / bandwidth``.
        """
        return self.lead_s(operations) + self.work_s(size_bytes, operations, direction)

    def round_trip_s(self, size_bytes: float, operations: int) -> float:
        """Out and later in again, each in ``operations`` operations, with the route to itself."""
        out_s = self.idle_time_s(size_bytes, operations, "out")
        return out_s + self.idle_time_s(size_bytes, operations, "in")

    def _rates(self, direction: Direction) -> tuple[float, float | None]:
        if direction == "in":
            return self.in_bytes_per_s, self.in_operations_per_s
        return self.out_bytes_per_s, self.out_operations_per_s
