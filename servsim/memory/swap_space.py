"""A tier as the place to which a scheduling policy swaps KV, and the copies there and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import simpy

from servsim.errors import SimulationError
from servsim.hardware import Direction, Tier
from servsim.memory.link import Link, Transfer
from servsim.memory.surroundings import KvShape
from servsim.memory.swap_cost import copy_operations
from servsim.memory.tier import units_held
from servsim.request import Sequence

__all__ = ["SwapGranularity", "SwapSpace"]

SwapGranularity = Literal["blocks", "groups"]
"""``blocks``: each block is copied by itself, as in vLLM v0; ``groups``: a sequence's as one run (FastSwitch)."""


@dataclass(slots=True, eq=False)
class _Copy:
    """The KV of one sequence on its way."""

    sequence: Sequence
    blocks: int
    direction: Direction
    transfer: Transfer | None = field(default=None)  # None: those before it in its direction are not done


class SwapSpace:
    """Blocks of swapped sequences in one tier, never more than it holds, and two streams of copies, in and out.

    A stream copies one sequence after the other, as a CUDA stream does, so that the launches of all copies one way add
    up: ``latency + operations x launch + bytes / bandwidth`` each on an idle link. The two streams share a half-duplex
    link. Every device copies its own share over its own link at the same time; the tier holds the shares of all.

    A sequence takes its place in the tier when its copy out is asked for, and gives it back when its copy in has
    ended. One that is called back before it has left keeps what is still on the device, and nothing more moves;
    one that is sent away again before it is back has its KV in the tier still. A copy in begins when
    :meth:`start_held` lets it, since the memory that was granted for it may still be leaving.
    """

    def __init__(
        self,
        env: simpy.Environment,
        tier: Tier,
        kv: KvShape,
        block_size: int,
        *,
        granularity: SwapGranularity = "blocks",
        asynchronous: bool = False,
    ) -> None:
        self.name = tier.name
        self.asynchronous = asynchronous
        """Whether others run while copies are under way; else the step that begins waits for all of them."""
        self._by_block = granularity == "blocks"
        self._layers = kv.num_layers
        self._devices = kv.devices
        self._block_bytes = block_size * kv.bytes_per_token  # on one device
        self.total_blocks = units_held(tier, self._block_bytes * kv.devices)
        self.link = Link(env, tier.route)
        self.used_blocks = 0
        self.leaving_blocks = 0
        """Blocks of the device that are free in name only: their copy out has not ended."""
        self.held_blocks = 0
        """Blocks of the device that are granted to those whose copy in has not begun: nothing is written there yet."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a copy has ended."""
        self._kept: dict[Sequence, int] = {}  # who has a place here, and blocks of it
        self._leaving: dict[Sequence, _Copy] = {}
        self._coming: dict[Sequence, _Copy] = {}
        self._held: dict[_Copy, None] = {}  # of these, who has not begun, in order
        self._streams: dict[Direction, deque[_Copy]] = {"in": deque(), "out": deque()}
        self._arrived: list[Sequence] = []
        self._moved_blocks: dict[Direction, int] = {"in": 0, "out": 0}

    @property
    def free_blocks(self) -> int:
        """Blocks that hold nothing, and that nothing is on its way to."""
        return self.total_blocks - self.used_blocks

    @property
    def transfers(self) -> int:
        """Copies that have begun or stand in line for it, and have not ended."""
        return len(self._leaving) + len(self._coming) - len(self._held)

    @property
    def holds(self) -> bool:
        """Whether copies in have not begun."""
        return bool(self._held)

    def leaving(self, sequence: Sequence | None = None) -> bool:
        """Whether a sequence, or anybody, is on the way out."""
        return bool(self._leaving) if sequence is None else sequence in self._leaving

    def coming(self, sequence: Sequence | None = None) -> bool:
        """Whether a sequence, or anybody, is on the way to the device."""
        return bool(self._coming) if sequence is None else sequence in self._coming

    def keeps(self, sequence: Sequence) -> bool:
        """Whether it has a place here, so that to swap it out takes no other."""
        return sequence in self._kept

    def round_trip_s(self, blocks: int) -> float:
        """How long a sequence of so many blocks takes out and in again on an idle link."""
        return self.link.route.round_trip_s(*self._amount(blocks))

    def send_out(self, sequence: Sequence, blocks: int) -> None:
        """Begin to copy a sequence's KV out. Raises SimulationError where there is no room for it."""
        if (copy := self._coming.pop(sequence, None)) is not None:
            self._cancel(copy)
            return
        if blocks > self.free_blocks:
            raise SimulationError(
                f"{blocks} blocks of request {sequence.request_id} do not fit the tier '{self.name}', "
                f"of which {self.free_blocks} of {self.total_blocks} are free"
            )
        self._kept[sequence] = blocks
        self.used_blocks += blocks
        self.leaving_blocks += blocks
        self._leaving[sequence] = copy = _Copy(sequence, blocks, "out")
        self._queue(copy)

    def call_back(self, sequence: Sequence) -> bool:
        """Ask for a sequence's KV to be copied in; False if that takes no time, since it had not left."""
        if (copy := self._leaving.pop(sequence, None)) is None:
            self._coming[sequence] = copy = _Copy(sequence, self._kept[sequence], "in")
            self._held[copy] = None
            self.held_blocks += copy.blocks
            return True
        self._cancel(copy)
        self.leaving_blocks -= copy.blocks
        self._give_up(sequence)
        return False

    def start_held(self, fits: Callable[[int], bool]) -> None:
        """Begin copies in, in the order in which they were asked for, until one does not fit; asked with its blocks."""
        for copy in list(self._held):
            if not fits(copy.blocks):
                return
            del self._held[copy]
            self.held_blocks -= copy.blocks
            self._queue(copy)

    def arrived(self) -> list[Sequence]:
        """Whose KV has arrived on the device since this was last asked."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def report(self) -> dict[str, float]:
        """Bytes that were copied each way, of all devices."""
        size = self._block_bytes * self._devices
        return {
            f"copied_in_bytes_{self.name}": self._moved_blocks["in"] * size,
            f"copied_out_bytes_{self.name}": self._moved_blocks["out"] * size,
        }

    def check_integrity(self) -> None:
        """Raise SimulationError unless the places add up, fit the tier, and each copy is of one who has a place."""
        if self.used_blocks != sum(self._kept.values()) or not 0 <= self.used_blocks <= self.total_blocks:
            raise SimulationError(f"{self.used_blocks} of {self.total_blocks} blocks used, but {self._kept} kept")
        if self.leaving_blocks != sum(copy.blocks for copy in self._leaving.values()):
            raise SimulationError(f"{self.leaving_blocks} blocks are leaving, but {list(self._leaving.values())}")
        if (self._leaving.keys() & self._coming.keys()) or not self._kept.keys() >= {*self._leaving, *self._coming}:
            raise SimulationError("a sequence is on its way both out and in, or without a place in the tier")
        moving = sum(map(bool, self._streams.values()))
        if self.link.in_flight != moving or sum(map(len, self._streams.values())) != self.transfers:
            raise SimulationError(f"{self.link.in_flight} copies are moving, and {self.transfers} asked for")

    def _queue(self, copy: _Copy) -> None:
        stream = self._streams[copy.direction]
        stream.append(copy)
        if len(stream) == 1:
            self._start(copy)

    def _start(self, copy: _Copy) -> None:
        size_bytes, operations = self._amount(copy.blocks)
        copy.transfer = self.link.start(size_bytes, operations, copy.direction, lambda _: self._ended(copy))

    def _cancel(self, copy: _Copy) -> None:
        if copy in self._held:
            del self._held[copy]
            self.held_blocks -= copy.blocks
        elif copy.transfer is None:
            self._streams[copy.direction].remove(copy)
        else:
            copy.transfer.cancel()
            self._next(copy.direction)

    def _next(self, direction: Direction) -> None:
        stream = self._streams[direction]
        stream.popleft()
        if stream:
            self._start(stream[0])

    def _ended(self, copy: _Copy) -> None:
        self._moved_blocks[copy.direction] += copy.blocks
        if copy.direction == "out":
            del self._leaving[copy.sequence]
            self.leaving_blocks -= copy.blocks
        else:
            del self._coming[copy.sequence]
            self._give_up(copy.sequence)
            self._arrived.append(copy.sequence)
        self._next(copy.direction)
        self.changed()

    def _give_up(self, sequence: Sequence) -> None:
        self.used_blocks -= self._kept.pop(sequence)

    def _amount(self, blocks: int) -> tuple[int, int]:
        """Bytes and operations, on each device, of one sequence's copy."""
        return blocks * self._block_bytes, copy_operations(blocks if self._by_block else 1, self._layers)
