"""A step that waits for KV which is copied to the device while it runs."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Many

import simpy

from servsim.clock import TRANSFER, schedule_at
from servsim.cost.stride import Stride
from servsim.memory.allocator import Fetch

__all__ = ["exposed_step"]


def exposed_step(env: simpy.Environment, stride: Stride, fetches: Many[Fetch]) -> Generator[simpy.Event, None, Stride]:
    """Wait until the last of the copies has ended; the step as it will have been, which begins where ``stride`` does.

    The copy brings one layer after the other; a layer is computed when it is there and the one before it is done. So
    of L layers the step ends a layer's computation after the copy, or a layer's copy later than without one, whichever
    is later; for L = 1 it computes after the copy. What the step becomes longer by, the copied sequences waited.
    """
    start_s, compute_s = stride.start_s, stride.first_s
    duration_s = compute_s
    for fetch in fetches:
        done = simpy.Event(env)
        fetch.on_end(lambda done=done: schedule_at(env, done, env.now, TRANSFER))  # type: ignore[misc]
        yield done
        after_copy_s = env.now - start_s + compute_s / fetch.layers
        duration_s = max(duration_s, after_copy_s, compute_s + fetch.idle_s / fetch.layers)
    for sequence in dict.fromkeys(fetch.sequence for fetch in fetches):
        sequence.transfer_wait_s += duration_s - compute_s
    return Stride(start_s, duration_s)
