"""A plan: which sequences get how many tokens in the next step, and who is preempted for it."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

from servsim.memory.allocator import Round
from servsim.request import Sequence

__all__ = ["DECODE", "IDLE", "Plan"]


class Plan(NamedTuple):
    """What the next step does."""

    prefills: Many[tuple[Sequence, int]] = ()  # chunks: sequence, tokens; going-on ones first, then admitted ones
    admitted: int = 0  # how many of the prefills (its tail) leave the waiting queue for it
    decode: bool = False  # the decoders take a step ...
    left_out: Many[Sequence] = ()  # ... but for these; without ``decode`` all of them stall, and none is listed
    preempted: Many[Sequence] = ()  # in this order; they go back to waiting
    swapped_out: Many[Sequence] = ()  # leave the device with their KV kept elsewhere; the policy keeps them
    swapped_in: Many[Sequence] = ()  # come back with their KV, and go on in this very step, or when it is there
    copied_out: Many[Sequence] = ()  # whose KV leaves the device for a tier; not who only stops running
    copied_in: Many[Sequence] = ()  # whose KV comes back from it: of some maybe ahead of their turn
    copy_s: float = 0.0  # seconds of copying before the step, for what is swapped without a tier
    round: Round | None = None  # the memory that it takes; None: only the decoders' growth

    @property
    def plain(self) -> bool:
        """Whether all decoders take a step and nothing else happens: the step that a stride repeats."""
        return self.round is None and self.decode

    @property
    def idle(self) -> bool:
        """Whether nothing happens at all."""
        return self.round is None and not self.decode

    @property
    def instant(self) -> bool:
        """Whether it takes no time: preemptions alone, or nothing. Nobody is left out of a step that is none."""
        return not self.decode and not self.prefills and not self.copy_s


IDLE = Plan()
DECODE = Plan(decode=True)
