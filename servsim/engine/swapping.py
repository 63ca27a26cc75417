"""What an instance does about KV that its policy swaps to a tier: copies, and who waits for them."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from servsim.clock import TRANSFER, schedule_at
from servsim.engine.parts import Parts
from servsim.memory.swap_space import SwapSpace
from servsim.request import Sequence
from servsim.scheduler.plan import Plan

__all__ = ["Swapping"]


class Swapping:
    """The copies of an instance to and from its :class:`SwapSpace`.

    Blocking: a step begins when all that leaves for it is out and then all that comes back for it is in. Asynchronous:
    a step begins when what it takes of the memory is not leaving any more, in total, and a copy in when
    its blocks are not; else they go on beside the steps. Copies in are let in at step boundaries only, so that strides
    change nothing: between two ends of copies the decoders only take more memory.
    """

    def __init__(self, env: simpy.Environment, parts: Parts, space: SwapSpace) -> None:
        self._env = env
        self._memory = parts.memory
        self._running = parts.running
        self.space = space
        self._waiter: simpy.Event | None = None

    def begin(self, plan: Plan) -> None:
        """A plan is carried out: who goes out stops to be on the device, who comes back is asked for."""
        space, size = self.space, self._memory.block_size
        for sequence in plan.copied_out:
            space.send_out(sequence, -(-sequence.kv_tokens // size))
        for sequence in plan.copied_in:
            space.call_back(sequence)

    def wait(self, decode: bool) -> Generator[simpy.Event, None, None]:
        """Until the step that is to begin may; copies in that may begin do."""
        space = self.space
        if space.asynchronous:
            while self._lacking(decode):
                yield self._next_end()
            self.start_held(decode)
            return
        while space.leaving():
            yield self._next_end()
        space.start_held(lambda blocks: True)
        while space.coming():
            yield self._next_end()

    def gated(self, steps: int) -> bool:
        """Whether decoders would take memory that is still leaving within so many steps."""
        return self.space.leaving_blocks > 0 and self._lacking(True, steps)

    def start_held(self, decode: bool) -> None:
        """Begin the copies in whose blocks are free besides what the next step takes."""
        space = self.space
        if space.held_blocks or space.coming():
            room = -self._over(decode)

            def fits(blocks: int) -> bool:
                nonlocal room
                room -= blocks
                return room >= 0

            space.start_held(fits)

    def ended(self) -> None:
        """A copy has ended: whoever waits looks again."""
        if self._waiter is not None:
            schedule_at(self._env, self._waiter, self._env.now, TRANSFER)
            self._waiter = None

    def _lacking(self, decode: bool, steps: int = 1) -> bool:
        return self.space.leaving_blocks > 0 and self._over(decode, steps) > 0

    def _over(self, decode: bool, steps: int = 1) -> int:
        """By how many blocks what is in use after so many steps and what is leaving exceed the memory."""
        space, memory = self.space, self._memory
        used = memory.blocks_after(steps) if decode else memory.used_blocks
        return used - space.held_blocks + space.leaving_blocks - memory.total_blocks

    def _next_end(self) -> simpy.Event:
        self._waiter = waiter = simpy.Event(self._env)
        return waiter
