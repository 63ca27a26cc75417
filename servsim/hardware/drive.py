"""A device that stores: an SSD's capacity, bandwidths and latency."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servsim.documents import Spec, WholeNumber

__all__ = ["Drive"]


class Drive(Spec):
    """An SSD. The bandwidths are those of large transfers with ``queue_depth`` commands outstanding.

    ``latency_s`` is the time of one small random read on an idle drive; ``read_iops`` and ``write_iops``
    are the most 4 KiB commands a second. ``sources`` says for each number where it comes from.
    """

    name: str = Field(min_length=1)
    kind: Literal["ssd"]
    vendor: str = Field(min_length=1)
    capacity_bytes: WholeNumber = Field(gt=0)
    read_bandwidth_bytes_per_s: float = Field(gt=0)
    write_bandwidth_bytes_per_s: float = Field(gt=0)
    latency_s: float = Field(gt=0)
    queue_depth: WholeNumber = Field(gt=0)
    read_iops: float | None = Field(default=None, gt=0)
    write_iops: float | None = Field(default=None, gt=0)
    sources: dict[str, str] = Field(min_length=1)
