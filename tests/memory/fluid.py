"""Transfers over a link the slow way: remaining work rewritten at every event, no clock of SimPy, no virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from servsim.hardware import Direction, Route


class Start(NamedTuple):
    """A transfer that begins at ``at_s``, and is cancelled at ``cancel_s`` if it is still under way."""

    at_s: float
    size_bytes: float
    operations: int
    direction: Direction
    cancel_s: float = math.inf


@dataclass
class Fluid:
    """When each transfer ends (infinity: cancelled), and how many bytes of it moved."""

    ends_s: list[float] = field(default_factory=list)
    moved_bytes: list[float] = field(default_factory=list)
    closest_call_s: float = math.inf  # between a cancellation and the end of what was cancelled


def fluid(route: Route, starts: list[Start]) -> Fluid:
    """Step from event to event: a launch ends, bytes end, somebody cancels."""
    work_s = [route.work_s(one.size_bytes, one.operations, one.direction) for one in starts]
    left_s = list(work_s)
    coming = sorted((one.at_s + route.latency_s + one.operations * route.launch_s, i) for i, one in enumerate(starts))
    lines: dict[str, list[int]] = {"in": [], "out": []}
    moving: dict[str, list[int]] = {"in": [], "out": []}
    result = Fluid([math.inf] * len(starts), [0.0] * len(starts))
    gone: set[int] = set()
    now_s = 0.0

    def lane(i: int) -> str:
        return "in" if route.half_duplex else starts[i].direction

    while coming or any(moving.values()):
        ends = [now_s + min(left_s[i] for i in some) * len(some) for some in moving.values() if some]
        cancels = [one.cancel_s for i, one in enumerate(starts) if i not in gone]
        next_s = min([*ends, *cancels, *([coming[0][0]] if coming else [])])
        for some in moving.values():
            for i in some:
                left_s[i] -= (next_s - now_s) / len(some)
        now_s = next_s
        for i in [i for some in moving.values() for i in some if left_s[i] <= 1e-15 * max(1.0, now_s)]:
            result.ends_s[i] = now_s
            result.closest_call_s = min(result.closest_call_s, abs(starts[i].cancel_s - now_s))
            moving[lane(i)].remove(i)
            left_s[i] = 0.0
            gone.add(i)
        for i in [i for i, one in enumerate(starts) if i not in gone and one.cancel_s <= now_s]:
            gone.add(i)
            coming = [entry for entry in coming if entry[1] != i]
            for some in (lines[lane(i)], moving[lane(i)]):
                if i in some:
                    some.remove(i)
            result.closest_call_s = min(result.closest_call_s, left_s[i])
        while coming and coming[0][0] <= now_s:
            i = coming.pop(0)[1]
            lines[lane(i)].append(i)
        for name, line in lines.items():
            while line and len(moving[name]) < (route.queue_depth or math.inf):
                moving[name].append(line.pop(0))
    for i, one in enumerate(starts):
        share = 1 - left_s[i] / work_s[i] if work_s[i] else float(result.ends_s[i] < math.inf)
        result.moved_bytes[i] = one.size_bytes * share
    return result
