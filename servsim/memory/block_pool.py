"""vLLM v1's pool of blocks: found by content, reused in the order in which they were freed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from servsim.errors import SimulationError

__all__ = ["Block", "BlockPool", "Doomed", "Run"]


@dataclass(slots=True, eq=False)
class Block:
    """A full block whose content is known by its key."""

    key: int
    holders: int = 1  # sequences that hold it; nobody: it is in the free queue
    findable: bool = False  # its content is there, so that others may hold it too


@dataclass(slots=True, eq=False)
class Run:
    """Blocks of one sequence, freed together, whose content nobody else has; they are reused from the last one on."""

    blocks: int  # still there
    findable: int = 0  # of the first ones: their owner waits and would find them again


Free = Block | Run


class BlockPool:
    """Who holds which block with known content; for other blocks it is enough to count them.

    A freed block keeps its content until it is popped from the head of the free queue and reused. A sequence's
    blocks are freed from its last to its first, so that of a prefix the end goes first. Blocks of equal
    content are not merged; the oldest of them is found. Every operation is O(1) a block, and a :class:`Run` costs
    as much as a block. An OrderedDict is the queue: a dict would look through all that were deleted at its head.
    """

    def __init__(self, blocks: int) -> None:
        self.total_blocks = blocks
        self.free_blocks = blocks
        self.evicted_blocks = 0
        """Blocks whose content could still have been found when they were reused."""
        self.queue: OrderedDict[Free, None] = OrderedDict({Run(blocks): None})
        self._found: dict[int, Block | OrderedDict[Block, None]] = {}

    def find(self, key: int) -> Block | None:
        """The oldest block of this content."""
        found = self._found.get(key)
        return next(iter(found)) if isinstance(found, OrderedDict) else found

    def find_all(self, key: int) -> Iterable[Block]:
        """All blocks of this content, oldest first."""
        found = self._found.get(key)
        if found is None:
            return ()
        return found if isinstance(found, OrderedDict) else (found,)

    def publish(self, block: Block) -> None:
        """From now on the block can be found."""
        block.findable = True
        found = self._found.setdefault(block.key, block)
        if isinstance(found, OrderedDict):
            found[block] = None
        elif found is not block:
            self._found[block.key] = OrderedDict({found: None, block: None})

    def hold(self, block: Block) -> bool:
        """One holder more; whether the block was free."""
        block.holders += 1
        if block.holders > 1:
            return False
        del self.queue[block]
        self.free_blocks -= 1
        return True

    def hold_first_of(self, run: Run, blocks: int) -> None:
        """The owner of a run takes its first blocks back; the rest stays where it is in the queue, of no use."""
        run.blocks -= blocks
        run.findable = 0
        self.free_blocks -= blocks
        if not run.blocks:
            self.queue.pop(run, None)

    def take(self, count: int) -> None:
        """Pop blocks from the head of the free queue; what they held is found no more."""
        self.free_blocks -= count
        queue = self.queue
        while count:
            first = next(iter(queue))
            if isinstance(first, Block):
                del queue[first]
                self._forget(first)
                count -= 1
                continue
            popped = min(count, first.blocks)
            first.blocks -= popped
            count -= popped
            if first.findable > first.blocks:
                self.evicted_blocks += first.findable - first.blocks
                first.findable = first.blocks
            if not first.blocks:
                del queue[first]

    def give_back(self, blocks: list[Block], run: Run) -> int:
        """One holder less for each of a sequence's blocks, after the run behind them; how many of these are free."""
        if run.blocks:
            self.queue[run] = None
        freed = 0
        for block in reversed(blocks):
            block.holders -= 1
            if not block.holders:
                self.queue[block] = None
                freed += 1
        self.free_blocks += run.blocks + freed
        return freed

    def check_integrity(self, held: Iterable[list[Block]]) -> None:
        """Raise SimulationError unless queue, index and ``held`` (every holder's blocks) tell the same."""
        holders: dict[Block, int] = {}
        for blocks in held:
            for block in blocks:
                holders[block] = holders.get(block, 0) + 1
        queued = 0
        for free in self.queue:
            queued += 1 if isinstance(free, Block) else free.blocks
            if isinstance(free, Block):
                holders.setdefault(free, 0)
            elif not 0 <= free.findable <= free.blocks or not free.blocks:
                raise SimulationError(f"a run of {free.blocks} free blocks, {free.findable} of them findable")
        if queued != self.free_blocks:
            raise SimulationError(f"{queued} blocks in the free queue, but {self.free_blocks} are free")
        for block, count in holders.items():
            if block.holders != count or (block in self.queue) == (count > 0):
                raise SimulationError(
                    f"a block with {count} holders counts {block.holders}, queued: {block in self.queue}"
                )
            if block.findable and block not in self.find_all(block.key):
                raise SimulationError("a block that should be found is not")
        findable = sum(len(found) if isinstance(found, OrderedDict) else 1 for found in self._found.values())
        if findable != sum(block.findable for block in holders):
            raise SimulationError(f"{findable} blocks can be found, but {len(holders)} are held or free")

    def _forget(self, block: Block) -> None:
        if not block.findable:
            return
        self.evicted_blocks += 1
        found = self._found[block.key]
        if not isinstance(found, OrderedDict):
            del self._found[block.key]
            return
        del found[block]
        if len(found) == 1:
            self._found[block.key] = next(iter(found))


class Doomed:
    """What the next pops of a pool would take, found out without popping; for a draft on an unchanged pool."""

    def __init__(self, pool: BlockPool) -> None:
        self.freed: list[Block | int] = []
        """What the draft itself frees, in order, behind the queue: blocks, or so many nameless ones."""
        self.kept: set[Block] = set()
        """Free blocks that the draft holds: pops pass them by."""
        self.kept_of_runs: dict[Run, int] = {}
        self._pops = 0
        self._queue: Iterator[Free] = iter(pool.queue)
        self._freed_seen = 0
        self._run: Run | None = None
        self._blocks: set[Block] = set()
        self._of_runs: dict[Run, int] = {}

    def block(self, block: Block, pops: int) -> bool:
        """Whether so many pops would take this block."""
        self._look(pops)
        return block in self._blocks

    def of_run(self, run: Run, pops: int) -> int:
        """How many blocks of this run so many pops would take."""
        self._look(pops)
        return self._of_runs.get(run, 0)

    def _look(self, pops: int) -> None:
        while self._pops < pops:
            if self._run is not None:
                popped = self._of_runs.get(self._run, 0)
                left = self._run.blocks - self.kept_of_runs.get(self._run, 0) - popped
                more = min(left, pops - self._pops)
                self._of_runs[self._run] = popped + more
                self._pops += more
                if more == left:
                    self._run = None
                continue
            following: Free | int | None = next(self._queue, None)
            if following is None:
                if self._freed_seen == len(self.freed):
                    return
                following = self.freed[self._freed_seen]
                self._freed_seen += 1
            if isinstance(following, Run):
                self._run = following
            elif isinstance(following, int):
                self._pops += following
            elif following not in self.kept:
                self._blocks.add(following)
                self._pops += 1
