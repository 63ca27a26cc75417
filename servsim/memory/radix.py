"""Paged KV memory with a prefix tree of whole runs (SGLang's RadixAttention; LightLLM's in a variant)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from pydantic import ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Round
from servsim.memory.content import known_tokens
from servsim.memory.paged import PagedAllocator
from servsim.memory.radix_round import RadixRound
from servsim.memory.radix_tree import Content, Found, Node, RadixTree
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

__all__ = ["RadixAllocator"]


@dataclass(slots=True, eq=False)
class _Note:
    """What the allocator knows of a sequence."""

    content: Content
    node: Node  # the end of what it has locked
    found: Found = field(default=Found())
    found_at: tuple[int, int] = (-1, 0)  # version of the tree, and pages that could have been found at the most


class RadixAllocator(PagedAllocator):
    """SGLang's RadixAttention: what was computed stays in a tree of token runs, until its memory is wanted.

    A page is a block (``block_size: 1`` is SGLang's default). A sequence that is admitted locks the longest prefix
    that is found, in whole pages, at least one token short of all. What each prefill chunk computed is inserted when
    its step has passed, and prompt and answer when the sequence ends; where somebody else inserted the same
    before, the duplicate is freed. What nobody has locked counts as free: when memory is wanted, whole
    leaves go, in the order of ``eviction_policy``, until there is enough, maybe more than enough. What a preempted
    sequence had not inserted yet is freed; ``insert: at_end`` is LightLLM's way, which inserts
    nothing while a sequence runs, but all that was computed when it ends or is paused (its eviction key is LRU among
    leaves). Content that is not known (no ``hash_ids``) takes its place in the tree and is found by its
    owner alone.

    Deviations: a prefix is touched and split when a sequence is admitted, not whenever the scheduler looks; evicted
    is what lacks, where SGLang asks for all that it is about to take; ``lfu`` counts admissions and insertions, and in
    ``priority`` the least urgent (largest) goes first. A run ends where known content does.

    Sources: sglang/srt/mem_cache/{radix_cache,evict_policy,common}.py, lightllm's router/dynamic_prompt.
    """

    shares = True
    forks = False

    class Parameters(PagedAllocator.Parameters):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        eviction_policy: Literal["lru", "lfu", "fifo", "mru", "filo", "priority"] = Field(
            "lru", description="which leaf that nobody uses is evicted first"
        )
        insert: Literal["after_chunks", "at_end"] = Field(
            "after_chunks",
            description="what is computed can be found after each chunk (SGLang) or at the end (LightLLM)",
        )

    def __init__(self, surroundings: MemorySurroundings) -> None:
        settings = surroundings.parameters or self.Parameters()
        super().__init__(replace(surroundings, parameters=settings))
        self.total_blocks = surroundings.num_blocks
        self._unit = surroundings.tokens_per_hash or 1
        self._tells_content = surroundings.tokens_per_hash is not None
        self.tree = RadixTree(self.block_size, self._unit, settings.eviction_policy)
        self._inserts_chunks = settings.insert == "after_chunks"
        self._shares_reads = surroundings.shared_reads
        self._own_pages = 0  # that sequences hold outside of the tree
        self._own_tokens = 0
        self._computing: dict[Sequence, int] = {}  # chunks of the step under way, up to which token
        self._holders: dict[_Note, None] = {}
        self._told = dict.fromkeys(
            ("queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens", "duplicate_blocks"), 0
        )

    @property
    def cache_version(self) -> int:
        """Another number whenever something else may be found."""
        self._settle()
        return self.tree.version

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of the prefix that would be found now."""
        self._settle()
        return self.look_up(sequence).pages * self.block_size

    def claimed_tokens(self, sequences: Iterable[Sequence]) -> int:
        """Of what would be found for these together, tokens that count as free until then."""
        round_ = self.round()
        return sum(map(round_.claim, sequences)) * self.block_size

    def found_path(self, sequence: Sequence) -> tuple[Hashable, ...]:
        """The nodes on which it is found, from the top."""
        self._settle()
        return self.look_up(sequence).nodes

    def opening(self, sequence: Sequence, tokens: int) -> Hashable | None:
        """Equal for sequences that begin with the same ``tokens`` tokens, in whole units of their content."""
        units = -(-tokens // self._unit)
        if not self._tells_content or known_tokens(sequence, self._unit) < tokens:
            return None
        return sequence.hash_ids[:units]

    def steps_until_eviction(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow into memory that holds nothing."""
        self._settle()
        if not self._decoders:
            return at_most
        free = self.free_blocks - self.tree.evictable_pages
        low, high = 0, min(at_most, (free // self._decoders + 1) * self.block_size)
        while low < high:
            middle = (low + high + 1) // 2
            if self._growth(middle) <= free:
                low = middle
            else:
                high = middle - 1
        return low

    def round(self) -> RadixRound:
        """A draft of this instant's grants and releases."""
        self._settle()
        return RadixRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out: what is found is locked first, then leaves are evicted for the rest."""
        draft = cast(RadixRound, round_)
        for sequence in draft.released:
            self._preempt(sequence)
        for sequence, pages in draft.hits.items():
            note = self.note(sequence)
            note.node = self.tree.acquire(note.content, pages, sequence.priority)
            self._holders[note] = None
            sequence.kv_tokens = pages * self.block_size
            again = "re" if sequence.preemptions else ""
            self._told[again + "queried_tokens"] += sequence.total_tokens
            self._told[again + "hit_tokens"] += sequence.kv_tokens
        for sequence, (blocks, tokens) in draft.granted.items():
            self._own_pages += blocks
            self._own_tokens += tokens
            if sequence in draft.restored:
                self._holders[self.note(sequence)] = None
            elif self._inserts_chunks:
                self._computing[sequence] = sequence.kv_tokens + tokens
        self._count()
        self._make_room()

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on; its last chunk can be found."""
        self._settle()
        super().join(sequence)
        if self._shares_reads:
            self._read(self.note(sequence).node, 1)

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        super().leave(sequence)
        if self._shares_reads:
            self._read(self.note(sequence).node, -1)

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens; leaves are evicted for them as in so many single steps."""
        self._own_pages += self._growth(steps)
        self._own_tokens += steps * self._decoders
        super().advance(steps)
        self._make_room()

    def _read(self, node: Node, change: int) -> None:
        """One decoder more or less that reads the tokens down to a node."""
        step: Node | None = node
        while step is not None and step.parent is not None:
            if step.readers + min(change, 0) > 0:  # others read it as well
                self.shared_tokens += change * step.pages * self.block_size
            step.readers += change
            step = step.parent

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; what it computed stays until its memory is wanted."""
        note = self.note(sequence)
        self._computing.pop(sequence, None)
        self._insert(sequence, sequence.kv_tokens)
        self._let_go(note, sequence.kv_tokens)
        note.content.ids = ()  # if its own content stays, that is all that is needed of it
        sequence.held = None

    def report(self) -> dict[str, float]:
        """Tokens asked for and found at first admissions, and again after preemptions; evictions and duplicates."""
        return {**self._told, "evicted_blocks": self.tree.evicted_pages}

    def check_integrity(self) -> None:
        """Raise SimulationError unless pages add up and every lock has its holder."""
        super().check_integrity()
        tree = self.tree
        if self.used_blocks + tree.evictable_pages > self.total_blocks or min(self._own_pages, self._own_tokens) < 0:
            raise SimulationError(
                f"{self.used_blocks} used + {tree.evictable_pages} cached blocks, but {self.total_blocks} in all"
            )
        locks: dict[Node, int] = {}
        for note in self._holders:
            node: Node | None = note.node
            while node is not None and node.parent is not None:
                locks[node] = locks.get(node, 0) + 1
                node = node.parent
        protected = evictable = nodes = 0
        for node in tree.walk():
            nodes += 1
            protected += node.pages if node.locks else 0
            evictable += 0 if node.locks else node.pages
            if node.locks != locks.get(node, 0):
                raise SimulationError(f"a node with {node.locks} locks has {locks.get(node, 0)} holders")
            if node.parent is None or node.start != node.parent.end or node.pages < 1:
                raise SimulationError("a node does not begin where its parent ends")
            if (node.entry >= 0) != (not node.locks and not node.children):
                raise SimulationError("a leaf that nobody uses cannot be evicted, or another node can")
        if (protected, evictable, nodes) != (tree.protected_pages, tree.evictable_pages, tree.nodes):
            raise SimulationError(f"{protected} protected and {evictable} evictable pages were counted wrongly")

    def note(self, sequence: Sequence) -> _Note:
        """What is known of a sequence, from now on."""
        if sequence.held is None:
            content = Content()
            if self._tells_content and sequence.hash_ids:
                pages = known_tokens(sequence, self._unit) // self.block_size
                content = Content(sequence.hash_ids, pages)
            sequence.held = _Note(content, self.tree.root)
        return cast(_Note, sequence.held)

    def look_up(self, sequence: Sequence) -> Found:
        """The longest prefix of a waiting sequence that is kept now, at least one token short of all."""
        note = self.note(sequence)
        at_most = (sequence.total_tokens - 1) // self.block_size
        if note.found_at != (self.tree.version, at_most):
            note.found = self.tree.match(note.content, at_most)
            note.found_at = (self.tree.version, at_most)
        return note.found

    def _settle(self) -> None:
        """Insert the chunks whose step has passed, in their order."""
        if not self._computing:
            return
        for sequence, tokens in list(self._computing.items()):
            if sequence.kv_tokens == tokens:
                del self._computing[sequence]
                self._insert(sequence, tokens)
        self._count()

    def _insert(self, sequence: Sequence, tokens: int) -> None:
        """Its first ``tokens`` tokens, in whole pages, are in the tree from now on, locked; duplicates are freed."""
        note = self.note(sequence)
        begin, pages = note.node.end, tokens // self.block_size
        if pages > begin:
            note.node, there = self.tree.insert(note.node, note.content, pages, sequence.priority)
            self._own_pages -= pages - begin
            self._own_tokens -= (pages - begin) * self.block_size
            self._told["duplicate_blocks"] += there

    def _preempt(self, sequence: Sequence) -> None:
        """What it had inserted stays until its memory is wanted, the rest is free (LightLLM: all is inserted)."""
        self._computing.pop(sequence, None)
        if not self._inserts_chunks:
            self._insert(sequence, sequence.kv_tokens)
        self._let_go(self.note(sequence), sequence.kv_tokens)

    def _let_go(self, note: _Note, kv_tokens: int) -> None:
        """Nothing of so many tokens is held any more."""
        in_tree = note.node.end
        self._own_pages -= -(-kv_tokens // self.block_size) - in_tree
        self._own_tokens -= kv_tokens - in_tree * self.block_size
        self.tree.unlock(note.node)
        note.node = self.tree.root
        del self._holders[note]
        self._count()

    def _make_room(self) -> None:
        self.tree.evict(self.used_blocks + self.tree.evictable_pages - self.total_blocks)

    def _count(self) -> None:
        """Bring up to date what others read."""
        self.used_blocks = self.tree.protected_pages + self._own_pages
        self.stored_tokens = self.tree.protected_pages * self.block_size + self._own_tokens
