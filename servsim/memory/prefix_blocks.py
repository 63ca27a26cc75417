"""Paged KV memory whose full blocks are found again by content (vLLM v1's prefix cache), with tiers below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

from pydantic import ConfigDict, Field

from servsim.errors import SimulationError
from servsim.memory.allocator import Fetch, Round
from servsim.memory.block_pool import Block, BlockPool, Run
from servsim.memory.content import block_keys
from servsim.memory.paged import PagedAllocator
from servsim.memory.prefix_blocks_round import FRESH, Found, PrefixRound
from servsim.memory.shared_reads import SharedReads
from servsim.memory.surroundings import MemorySurroundings
from servsim.memory.tiers import Copy, Fetching, Granularity, Part, Tiers
from servsim.memory.tiers_store import Kept
from servsim.request import Sequence

__all__ = ["PrefixBlocksAllocator"]


@dataclass(slots=True, eq=False)
class _Note:
    """What the allocator knows of a sequence."""

    keys: list[int]  # of the blocks whose content is known
    blocks: list[Block] = field(default_factory=list)  # that it holds of these, from the first on; the rest is counted
    run: Run | None = None  # its own blocks behind them, free since a preemption
    own: dict[int, Kept] = field(default_factory=dict)  # and what each tier has of these
    fetching: tuple[Fetching, Found] | None = None


_NOTHING = Found([], [], 0, [], 0)


class PrefixBlocksAllocator(PagedAllocator):
    """vLLM v1's block pool with prefix caching (0.19): blocks of :class:`PagedAllocator` that keep what they held.

    A full block of known content has the hash of its chain as key; keys are registered when a chunk is scheduled (those
    that a decoder fills: when it stops decoding). An admitted sequence holds the longest prefix that is found, at most
    ``total_tokens - 1`` tokens in whole blocks, so that a token is left to compute; free blocks on it leave
    the free queue. Freed blocks go to the end of that queue, from the last to the first, and are evicted when they are
    popped at its head. Content that is not known (no ``hash_ids``) is never shared, but what a preemption freed is
    found again by its owner. Equal blocks are not merged.

    With tiers (:class:`Tiers`) a sequence that ends or is preempted writes back what the first tier lacks of it, in
    one transfer. One that ended holds its blocks until then, as with vLLM's KV connectors; one that was
    preempted frees them at once, and the step that begins waits for the copy, as vLLM does before preempted blocks are
    overwritten (and as vLLM v0 swaps). Found is then what any memory has.

    Sources: vllm/v1/core/{block_pool,kv_cache_manager,single_type_kv_cache_manager}.py. Not modelled: extra keys (LoRA,
    images, salts), groups of layers with caches of their own, events.
    """

    uses_tiers = True
    shares = True
    forks = False

    class Parameters(PagedAllocator.Parameters):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        copy_granularity: Granularity = Field(
            "groups", description="copies between memories: one for each run of adjacent blocks, or for each block"
        )
        fetch: Literal["async", "layers", "blocking"] = Field(
            "async",
            description="blocks found below the device are copied while others run (async), while the sequence's own "
            "first step computes layer by layer (layers), or before that step (blocking)",
        )
        fetch_or_recompute: Literal["fetch", "recompute", "auto"] = Field(
            "fetch", description="auto: fetch only what is copied faster, on idle links, than computed"
        )

    def __init__(self, surroundings: MemorySurroundings) -> None:
        super().__init__(surroundings)
        settings = surroundings.parameters or self.Parameters()
        self.pool = BlockPool(self.total_blocks)
        self.fetches_beside = settings.fetch == "async"
        self._fetched_layers = surroundings.kv.num_layers if settings.fetch == "layers" else 1
        self._fetch_or_recompute = settings.fetch_or_recompute
        self._tokens_per_hash = surroundings.tokens_per_hash
        self._prefill_s: Callable[[int], float] = lru_cache(maxsize=4096)(surroundings.prefill_s)
        self._reads = SharedReads(self.block_size) if surroundings.shared_reads else None
        self._tiers: Tiers | None = None
        if surroundings.tiers:
            if surroundings.env is None:
                raise SimulationError("tiers need a clock")
            self._tiers = Tiers(
                surroundings.env, surroundings.tiers, surroundings.kv, self.block_size, settings.copy_granularity
            )
            self._tiers.changed = self._transfer_ended
        self._holders: dict[_Note, None] = {}
        self._arrived: list[Sequence] = []
        self._awaited: list[tuple[Copy, Fetch]] = []
        self._told = dict.fromkeys(("queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens"), 0)
        self._told |= {f"hit_tokens_{name}": 0 for name in (self._tiers.names if self._tiers else ())}

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of the prefix that would be found now, in any memory."""
        return self.look_up(sequence).blocks * self.block_size

    def round(self) -> PrefixRound:
        """A draft of this instant's grants and releases."""
        return PrefixRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out; decoders' growth, and what it evicts, is booked by :meth:`advance`."""
        draft = cast(PrefixRound, round_)
        for sequence, found in draft.found.items():
            self._claim(sequence, found)
        for sequence in draft.released:
            self._preempt(sequence)
        for sequence, (blocks, tokens) in draft.granted.items():
            self.stored_tokens += tokens
            if sequence in draft.found:
                self._admit(sequence, draft.found[sequence], blocks, tokens)
                continue
            self.pool.take(blocks)
            note = self.note(sequence)
            if sequence in draft.restored:
                self._drop_run(note)
                self._holders[note] = None
                self._register(note, sequence.kv_tokens)
            else:
                self._register(note, sequence.kv_tokens + tokens)
        self._count()

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on, with ``sequence.kv_tokens`` stored."""
        super().join(sequence)
        if self._reads is not None:
            self._reads.join(self.note(sequence).blocks)
            self.shared_tokens = self._reads.tokens

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        super().leave(sequence)
        if self._reads is not None:
            self._reads.leave(self.note(sequence).blocks)
            self.shared_tokens = self._reads.tokens

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens."""
        self.pool.take(self._growth(steps))
        super().advance(steps)

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; its blocks are free as soon as the first tier has them."""
        note = self.note(sequence)
        kv_tokens = sequence.kv_tokens
        self._register(note, kv_tokens)
        run = Run(-(-kv_tokens // self.block_size) - len(note.blocks))
        copy = self._save(note, kv_tokens)
        sequence.held = None
        if copy is None:
            self._free(note, run, kv_tokens)
        else:
            copy.on_end(lambda: self._free(note, run, kv_tokens))
        self._count()

    def loaded(self) -> list[Sequence]:
        """Sequences whose KV has arrived since this was last asked."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def exposed(self) -> list[Fetch]:
        """Copies that the step which begins now has to wait for: fetches not done beside others, and write-backs."""
        awaited, self._awaited = self._awaited, []
        return [fetch for copy, fetch in awaited if not copy.ended]

    def report(self) -> dict[str, float]:
        """Tokens asked for and found at first admissions, and again after preemptions; evictions; bytes over links."""
        told: dict[str, float] = {**self._told, "evicted_blocks": self.pool.evicted_blocks}
        return told | (self._tiers.report() if self._tiers else {})

    def check_integrity(self) -> None:
        """Raise SimulationError unless pool, sequences and tiers tell the same, and every block is in one state."""
        super().check_integrity()
        if self.used_blocks + self.pool.free_blocks != self.total_blocks:
            raise SimulationError(
                f"{self.used_blocks} used + {self.pool.free_blocks} free blocks, but {self.total_blocks} in all"
            )
        self.pool.check_integrity(note.blocks for note in self._holders)
        if self._tiers is not None:
            self._tiers.check_integrity()
            if self.transfers != self._tiers.transfers:
                raise SimulationError(f"{self.transfers} transfers are told of {self._tiers.transfers}")
        for sequence in self.loading:
            if sequence.held.fetching is None:
                raise SimulationError(f"request {sequence.request_id} waits for no transfer")

    def note(self, sequence: Sequence) -> _Note:
        """What is known of a sequence, from now on."""
        if sequence.held is None:
            sequence.held = _Note(block_keys(sequence, self._tokens_per_hash, self.block_size))
        return cast(_Note, sequence.held)

    def look_up(self, sequence: Sequence, draft: PrefixRound | None = None) -> Found:
        """The longest prefix of a waiting sequence that is in some memory, now or as of a draft."""
        note = self.note(sequence)
        if not (note.keys or note.run or note.own):
            return _NOTHING
        at_most = (sequence.total_tokens - 1) // self.block_size
        tiers = self._tiers if self._fetch_or_recompute != "recompute" else None
        sources: list[Block | Part] = []
        lower: list[Part] = []
        for place, key in enumerate(note.keys[:at_most]):
            block = self.pool.find(key) if draft is None else draft.find(key)
            if block is not None:
                sources.append(block)
                continue
            kept = tiers.find(key) if tiers is not None else None
            if kept is None:
                break
            lower.append(Part(*kept, place, 1, 0))
            sources.append(lower[-1])
        known = len(sources)
        own = 0
        blocks = known
        if known == len(note.keys):
            if note.run is not None:
                own = min(note.run.findable if draft is None else draft.own_on_device(sequence), at_most - known)
            blocks += own
            for level in sorted(note.own) if tiers is not None else ():
                kept_own = note.own[level]
                more = min(kept_own.readable, at_most - known) - (blocks - known)
                if more > 0:
                    lower.append(Part(level, kept_own, blocks, more, blocks - known))
                    blocks += more
        if lower and not self._worth_fetching(lower):
            blocks = lower[0].place
            sources, own, lower = sources[:blocks], min(own, max(0, blocks - known)), []
        is_free = draft.is_free if draft is not None else lambda block: not block.holders
        claims = [source for source in sources if isinstance(source, Block) and is_free(source)]
        return Found(sources, claims, own, lower, blocks)

    def _worth_fetching(self, parts: list[Part]) -> bool:
        """Whether to copy rather than to compute, as the scenario says."""
        if self._fetch_or_recompute == "fetch":
            return True
        assert self._tiers is not None
        tokens = sum(part.blocks for part in parts) * self.block_size
        return self._tiers.idle_time_s(parts) < self._prefill_s(tokens)

    def _admit(self, sequence: Sequence, found: Found, blocks: int, tokens: int) -> None:
        """A sequence takes what was found for it, and new blocks for the rest of its grant."""
        note = self.note(sequence)
        fetched = self._assemble(note, found)
        self.pool.take(blocks - len(found.claims) - found.own)
        stored_tokens = tokens + (found.on_device - found.own) * self.block_size
        self._holders[note] = None
        sequence.kv_tokens = found.blocks * self.block_size
        self._tell(sequence, found)
        if not found.lower:
            self._register(note, stored_tokens)
            return
        assert self._tiers is not None
        fetching = self._tiers.fetch(found.lower, note.own)
        if self.fetches_beside:
            note.fetching = (fetching, found)
            self.loading[sequence] = None
            fetching.on_end(lambda: self._fetched(sequence, note, fetched))
            return
        for block in fetched:
            self.pool.publish(block)
        self._register(note, stored_tokens)
        self._awaited.append((fetching, Fetch(sequence, self._fetched_layers, fetching.idle_s, fetching.on_end)))

    def _claim(self, sequence: Sequence, found: Found) -> None:
        """Hold what is on the device, before anything is released or popped that the round counted on."""
        for source in found.sources:
            if isinstance(source, Block) and source is not FRESH and self.pool.hold(source):
                self.stored_tokens += self.block_size
        note = self.note(sequence)
        if found.own and note.run is not None:
            self.pool.hold_first_of(note.run, found.own)
        self._drop_run(note)

    def _assemble(self, note: _Note, found: Found) -> list[Block]:
        """Note the blocks of what was found; those for what is not on the device yet, in the same order."""
        fetched = []
        for key, source in zip(note.keys, found.sources, strict=False):
            if isinstance(source, Part):
                block = Block(key)
                fetched.append(block)
            else:
                block = source
                if source is FRESH:
                    block = self._just_filled(key)
                    self.pool.hold(block)
            note.blocks.append(block)
        return fetched

    def _just_filled(self, key: int) -> Block:
        """The block that an earlier grant of the round has registered."""
        for block in self.pool.find_all(key):
            if block.holders:
                return block
        raise SimulationError("a round counted on a block of a sequence that it released")

    def _fetched(self, sequence: Sequence, note: _Note, blocks: list[Block]) -> None:
        """All that was found below the device has arrived."""
        for block in blocks:
            self.pool.publish(block)
        note.fetching = None
        del self.loading[sequence]
        self._arrived.append(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        """Blocks are free at once; what the first tier lacks of them is written there before the step begins."""
        note = self.note(sequence)
        kv_tokens = sequence.kv_tokens
        if note.fetching is not None:
            fetching, found = note.fetching
            fetching.cancel()
            note.fetching = None
            del self.loading[sequence]
            findable = found.own
        else:
            self._register(note, kv_tokens)
            findable = self._own_blocks(note, kv_tokens)
            copy = self._save(note, kv_tokens)
            if copy is not None:
                self._awaited.append((copy, Fetch(sequence, 1, 0.0, copy.on_end)))
        note.run = Run(-(-kv_tokens // self.block_size) - len(note.blocks), findable)
        self._free(note, note.run, kv_tokens)

    def _save(self, note: _Note, kv_tokens: int) -> Copy | None:
        """Write what the first tier lacks of a sequence's full blocks; None if nothing moves."""
        if self._tiers is None:
            return None
        keys = note.keys[: len(note.blocks)]
        return self._tiers.save(keys, note.own, self._own_blocks(note, kv_tokens))

    def _own_blocks(self, note: _Note, kv_tokens: int) -> int:
        """Full blocks behind those whose content is known."""
        return max(0, kv_tokens // self.block_size - len(note.keys))

    def _register(self, note: _Note, tokens: int) -> None:
        """Known blocks that so many tokens fill can be found from now on."""
        for key in note.keys[len(note.blocks) : tokens // self.block_size]:
            block = Block(key)
            self.pool.publish(block)
            note.blocks.append(block)

    def _free(self, note: _Note, run: Run, kv_tokens: int) -> None:
        """Give back what a sequence holds; what others hold too stays."""
        shared = len(note.blocks) - self.pool.give_back(note.blocks, run)
        self.stored_tokens -= kv_tokens - shared * self.block_size
        note.blocks = []
        del self._holders[note]
        self._count()

    def _drop_run(self, note: _Note) -> None:
        """Its own free blocks are of no use any more."""
        if note.run is not None:
            note.run.findable = 0
            note.run = None

    def _tell(self, sequence: Sequence, found: Found) -> None:
        again = "re" if sequence.preemptions else ""
        self._told[again + "queried_tokens"] += sequence.total_tokens
        self._told[again + "hit_tokens"] += found.blocks * self.block_size
        for part in found.lower if self._tiers is not None else ():
            assert self._tiers is not None
            self._told[f"hit_tokens_{self._tiers.names[part.level]}"] += part.blocks * self.block_size

    def _transfer_ended(self) -> None:
        self._count()
        self.changed()

    def _count(self) -> None:
        """Bring up to date what others read."""
        self.used_blocks = self.total_blocks - self.pool.free_blocks
        if self._tiers is not None:
            self.transfers = self._tiers.transfers
