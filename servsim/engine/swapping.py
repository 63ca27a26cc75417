"""What an instance does about KV that its policy swaps to a tier: copies, and who waits for them."""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy

from servsim.clock import TRANSFER, schedule_at
from servsim.engine.parts import Parts
from servsim.memory.forks import held_blocks
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

    def __init__(
        self, env: simpy.Environment, parts: Parts, space: SwapSpace, transfer_ended: Callable[[], None]
    ) -> None:
        self._env = env
        self._memory = parts.memory
        self.space = space
        self._transfer_ended = transfer_ended
        self._waiter: simpy.Event | None = None
        space.changed = self._ended

    def begin(self, plan: Plan) -> None:
        """A plan is carried out: who goes out stops to be on the device, who comes back is asked for."""
        space, size = self.space, self._memory.block_size
        for sequence in (*plan.preempted, *plan.swapped_out):
            self._memory.loading.pop(sequence, None)
        for sequence in plan.copied_out:
            space.send_out(sequence, held_blocks(sequence, sequence.kv_tokens, size))
        for sequence in plan.copied_in:
            space.call_back(sequence)

    def awaits(self, sequence: Sequence) -> bool:
        """Whether the KV of a sequence that begins to run again is on its way; it is then among those that load."""
        if not self.space.coming(sequence):
            return False
        self._memory.loading[sequence] = None
        return True

    def arrived(self) -> list[Sequence]:
        """Who can go on: those among the running whose KV has arrived since this was last asked."""
        loading = self._memory.loading
        arrived = [sequence for sequence in self.space.arrived() if sequence in loading]
        for sequence in arrived:
            del loading[sequence]
        return arrived

    def copies(self) -> bool:
        """Whether copies are under way, after those that can have begun."""
        self._start_held(decode=False)
        return self.space.transfers > 0

    def holds_up(self, plan: Plan) -> bool:
        """Whether a step takes memory that is still leaving, once the copies in have begun that can."""
        self._start_held(plan.decode)
        return self._over(plan.decode) > 0

    def wait(self, plan: Plan) -> Generator[simpy.Event, None, None]:
        """Until the step of a plan may begin; copies in that may begin do. A plan without a step waits for none."""
        space = self.space
        if space.asynchronous:
            while not plan.instant and self._over(plan.decode) > 0:
                yield self._next_end()
            self._start_held(plan.decode)
            return
        while space.leaving():
            yield self._next_end()
        space.start_held(lambda blocks: True)
        while space.coming():
            yield self._next_end()

    def gated(self, steps: int) -> bool:
        """Whether decoders would take memory that is still leaving within so many steps."""
        return self._over(True, steps) > 0

    def _start_held(self, decode: bool) -> None:
        """Begin the copies in whose blocks are free besides what the next step takes."""
        if self.space.holds:
            room = -self._over(decode)

            def fits(blocks: int) -> bool:
                nonlocal room
                room -= blocks
                return room >= 0

            self.space.start_held(fits)

    def _over(self, decode: bool, steps: int = 1) -> int:
        """By how many blocks what is in use after so many steps and what is leaving exceed the memory."""
        space, memory = self.space, self._memory
        if not space.leaving_blocks:
            return -space.held_blocks  # all that was granted is there
        used = memory.blocks_after(steps) if decode else memory.used_blocks
        return used - space.held_blocks + space.leaving_blocks - memory.total_blocks

    def _next_end(self) -> simpy.Event:
        self._waiter = waiter = simpy.Event(self._env)
        return waiter

    def _ended(self) -> None:
        """A copy has ended: whoever waits looks again."""
        if self._waiter is not None:
            schedule_at(self._env, self._waiter, self._env.now, TRANSFER)
            self._waiter = None
        self._transfer_ended()
