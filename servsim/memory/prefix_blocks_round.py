"""One plan's draft on a pool of blocks that are found by content."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servsim.memory.block_pool import Block, Doomed
from servsim.memory.paged_round import PagedRound
from servsim.memory.tiers import Part
from servsim.request import Sequence

if TYPE_CHECKING:
    from servsim.memory.prefix_blocks import PrefixBlocksAllocator

__all__ = ["FRESH", "Found", "PrefixRound"]

FRESH = Block(0)
"""Stands for a block that an earlier grant of the same round will fill."""


class Found(NamedTuple):
    """The longest prefix of a waiting sequence of which every block is in some memory."""

    sources: list[Block | Part]  # known blocks, in order: where each is
    claims: list[Block]  # those of them that are free on the device
    own: int  # free blocks on the device with content that is the sequence's own, behind the known ones
    lower: list[Part]  # what has to be fetched, known or its own
    blocks: int  # all of it

    @property
    def on_device(self) -> int:
        """Blocks that need no new one."""
        return self.blocks - sum(part.blocks for part in self.lower)


class PrefixRound(PagedRound):
    """One plan's draft on a :class:`PrefixBlocksAllocator`.

    It counts as :class:`PagedRound` does, and knows besides which blocks its own pops would evict (they cannot be
    found any more) and which its own grants would fill (they can: vLLM registers blocks when it schedules them).
    A block that is granted and taken back in one round evicts nothing.
    """

    __slots__ = ("_doomed", "_fresh", "_latest", "_pool_memory", "_shared", "_supply", "found")

    def __init__(self, memory: PrefixBlocksAllocator) -> None:
        super().__init__(memory)
        self._pool_memory = memory
        self._doomed: Doomed | None = None
        self._fresh: dict[int, Sequence] = {}  # keys that this round will fill, and who does
        self._shared: dict[Block, int] = {}  # holders that this round adds or takes away
        self._supply = self.free_blocks  # free blocks but for pops
        self._latest: tuple[Sequence, int, int, Found] | None = None
        self.found: dict[Sequence, Found] = {}  # of the admitted

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """The next prefill chunk. One whose KV is still on its way gets nothing: it has no part in the step."""
        memory = self._pool_memory
        if sequence in memory.loading:
            return True
        if not super().extend(sequence, tokens):
            return False
        note = memory.note(sequence)
        self._fill(sequence, note.keys[len(note.blocks) : (sequence.kv_tokens + tokens) // memory.block_size])
        return True

    def lacking(self, sequence: Sequence) -> int:
        """Tokens behind the prefix that is found, at least 1."""
        found = self.found.get(sequence) or self._look_up(sequence)
        return sequence.total_tokens - found.blocks * self._pool_memory.block_size

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first chunk, if ``new blocks + found blocks that are free + watermark <= free``.

        New are those of the whole rest (``reserve_full_isl``) or of the chunk, and those that are to be fetched. Where
        the sequence has to wait for its fetch, it gets only what it fetches now, and the chunk later.
        """
        memory = self._pool_memory
        size = memory.block_size
        found = self._look_up(sequence)
        hit_tokens = found.blocks * size
        on_device = found.on_device
        claimed = len(found.claims) + found.own
        asked = sequence.total_tokens if memory.reserve_full_isl else hit_tokens + tokens
        watermark = 0 if alone else memory.watermark_blocks
        if -(-asked // size) - on_device + claimed + watermark > self.free_blocks:
            return False
        waits = bool(found.lower) and memory.fetches_beside
        until = hit_tokens if waits else hit_tokens + tokens
        blocks = -(-until // size) - on_device + claimed
        brought = found.own + found.blocks - on_device  # free known blocks count as stored when they are held
        self.granted[sequence] = (blocks, until - hit_tokens + brought * size)
        self.found[sequence] = found
        self._supply -= claimed
        self.free_blocks -= blocks
        self._claim(sequence, found)
        if not waits:
            first = found.lower[0].place if found.lower else len(found.sources)
            self._fill(sequence, memory.note(sequence).keys[first : until // size])
        return True

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, but what others hold too."""
        super().release(sequence, kv_tokens)
        memory = self._pool_memory
        blocks = memory.note(sequence).blocks
        doomed = self._doomed_blocks()
        private = -(-kv_tokens // memory.block_size) - len(blocks)
        if private:
            doomed.freed.append(private)
            self._supply += private
        for block in reversed(blocks):
            self._shared[block] = change = self._shared.get(block, 0) - 1
            if block.holders + change:
                self.free_blocks -= 1
            else:
                doomed.freed.append(block)
                self._supply += 1
        for key in [key for key, filler in self._fresh.items() if filler is sequence]:
            del self._fresh[key]

    def find(self, key: int) -> Block | None:
        """A block of this content that this round may still count on."""
        pool = self._pool_memory.pool
        first = pool.find(key)
        if first is not None:
            if first.holders and not self._shared:
                return first
            pops = self._supply - self.free_blocks
            if not pops:
                return first
            for block in pool.find_all(key):
                if not self.is_free(block) or not self._doomed_blocks().block(block, pops):
                    return block
        return FRESH if key in self._fresh else None

    def is_free(self, block: Block) -> bool:
        """Whether nobody holds it as of this draft."""
        return block is not FRESH and not block.holders + self._shared.get(block, 0)

    def own_on_device(self, sequence: Sequence) -> int:
        """How many of its own blocks a preempted sequence would find again on the device."""
        run = self._pool_memory.note(sequence).run
        if run is None:
            return 0
        pops = self._supply - self.free_blocks
        doomed = self._doomed_blocks().of_run(run, pops) if pops else 0
        return min(run.findable, run.blocks - doomed)

    def _look_up(self, sequence: Sequence) -> Found:
        """What is found as of this draft; remembered, since it is asked for twice."""
        latest = self._latest
        changes = len(self.granted) + len(self.released)
        if latest is not None and latest[0] is sequence and latest[1:3] == (self.free_blocks, changes):
            return latest[3]
        found = self._pool_memory.look_up(sequence, self)
        self._latest = (sequence, self.free_blocks, changes, found)
        return found

    def _claim(self, sequence: Sequence, found: Found) -> None:
        """Found blocks are held from now on."""
        for source in found.sources:
            if isinstance(source, Block) and source is not FRESH:
                self._shared[source] = self._shared.get(source, 0) + 1
        if found.claims:
            self._doomed_blocks().kept.update(found.claims)
        run = self._pool_memory.note(sequence).run
        if found.own and run is not None:
            self._doomed_blocks().kept_of_runs[run] = found.own

    def _fill(self, sequence: Sequence, keys: list[int]) -> None:
        for key in keys:
            self._fresh.setdefault(key, sequence)

    def _doomed_blocks(self) -> Doomed:
        if self._doomed is None:
            self._doomed = Doomed(self._pool_memory.pool)
        return self._doomed
