"""A memory below the device's own, with what its link and its drive let through."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.hardware.drive import Drive
from servsim.hardware.link_spec import LinkSpec
from servsim.hardware.route import Route

__all__ = ["Tier"]


@dataclass(frozen=True, slots=True)
class Tier:
    """``capacity_bytes`` of memory behind a link, on a drive or not."""

    name: str
    kind: str  # cpu, cxl, ssd or remote
    capacity_bytes: int
    link: LinkSpec
    drive: Drive | None = None

    @property
    def route(self) -> Route:
        """What transfers to and from it cost: bandwidth and latency of the slower of link and drive.

        A drive bounds the operations per second as well (its IOPS), and the transfers at a time by its queue.
        """
        alone = Route.over(self.link)
        drive = self.drive
        if drive is None:
            return alone
        return Route(
            in_bytes_per_s=min(alone.in_bytes_per_s, drive.read_bandwidth_bytes_per_s),
            out_bytes_per_s=min(alone.out_bytes_per_s, drive.write_bandwidth_bytes_per_s),
            latency_s=max(alone.latency_s, drive.latency_s),  # a drive's latency is measured over a link
            launch_s=alone.launch_s,
            half_duplex=alone.half_duplex,
            queue_depth=min(alone.queue_depth or drive.queue_depth, drive.queue_depth),
            in_operations_per_s=drive.read_iops,
            out_operations_per_s=drive.write_iops,
        )

    def blocks(self, block_bytes: float) -> int:
        """How many blocks of ``block_bytes`` it holds."""
        return int(self.capacity_bytes // block_bytes)
