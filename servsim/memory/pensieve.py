"""Paged KV memory that keeps conversations between their turns, by what computing them anew would cost (Pensieve)."""

from __future__ import annotations

from bisect import bisect_right
from typing import cast

from pydantic import ConfigDict, Field

from servsim.documents import WholeNumber
from servsim.errors import ScenarioError, SimulationError
from servsim.memory.allocator import Fetch, Round
from servsim.memory.content import known_tokens
from servsim.memory.paged import PagedAllocator
from servsim.memory.pensieve_chunks import BELOW, Conversation, Retention
from servsim.memory.pensieve_round import NOTHING, Found, PensieveRound
from servsim.memory.pensieve_store import KeptChunks
from servsim.memory.surroundings import MemorySurroundings
from servsim.memory.tiers import Copy, Granularity
from servsim.request import Sequence

__all__ = ["PensieveAllocator"]


class PensieveAllocator(PagedAllocator):
    """Blocks of :class:`PagedAllocator`; what a session's turn leaves behind is kept for the next turn, in chunks.

    A chunk of an idle conversation is worth ``V = cost(l) / idle time`` (:class:`Retention`). ``V`` grows along a
    conversation, so that of each the front goes first, the opposite of an LRU queue or a tree: the next turn computes
    the front again and keeps the rest. While less than ``copy_below`` of the device is free, or would be at once,
    the chunks with the smallest ``V`` are copied to the memory below (the first tier); copied ones give way when
    their place is needed. When that memory is full, it drops the smallest ``V``. Without a tier what gives way is lost.
    An admission for which too little is copied has its step wait for the copies; decoders do not wait, and what
    they need beyond the copied is lost.

    A turn computes what is kept nowhere and its new prompt. Chunks from below are copied layer by layer while its first
    step computes. What is found need not be a prefix: ``kv_tokens`` counts what needs no computing, and the lacking
    tokens are computed in order behind it. The cost model thus has each of ``d`` tokens in a dropped front
    attend to all ``k`` kept ones, which stand behind it: ``d * k`` pairs of a query and a key too many. All else is
    counted as it is.

    The next turn finds a conversation by its ``session``, as far as the ``hash_ids`` of both agree; of two turns at
    once the later one finds nothing. Only whole chunks are kept. A preempted sequence leaves what it has, of unknown
    content too, and finds it again; other requests without a session leave nothing.

    Source: Yu, Lin, Li, Stateful Large Language Model Serving with Pensieve (EuroSys 2025, arXiv 2312.05516). Not
    modelled: its suspension of running requests, which is up to the policy, and its kernel.
    """

    uses_tiers = True
    forks = False

    class Parameters(PagedAllocator.Parameters):
        """What a scenario may say under ``memory`` besides the common keys."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        watermark: float = Field(
            0.1, ge=0, lt=1, description="share of all blocks kept for running decoders when a request is admitted"
        )
        chunk_size: WholeNumber = Field(32, ge=1, le=1 << 20, description="tokens that are kept or evicted together")
        copy_below: float = Field(
            0.25, ge=0, le=1, description="copy idle chunks to the tier while less than this share of memory is free"
        )
        alpha: float | None = Field(
            None, ge=0, lt=float("inf"), description="what a chunk costs more to compute for each token before its end"
        )
        beta: float | None = Field(
            None, ge=0, lt=float("inf"), description="what it costs at no context; both by default from the cost model"
        )
        copy_granularity: Granularity = Field(
            "groups", description="copies between memories: one for each run of adjacent chunks, or for each chunk"
        )

    def __init__(self, surroundings: MemorySurroundings) -> None:
        settings = surroundings.parameters or self.Parameters()
        self._check(surroundings, settings)
        super().__init__(surroundings)
        self.chunk_size: int = settings.chunk_size
        self._chunk_blocks = self.chunk_size // self.block_size
        self._copy_below_blocks = int(settings.copy_below * self.total_blocks)
        self._tokens_per_hash = surroundings.tokens_per_hash
        self._layers = surroundings.kv.num_layers
        if settings.alpha is None:
            retention = Retention.fitted(surroundings.prefill_s, surroundings.max_model_len, self.chunk_size)
        else:
            retention = Retention(settings.alpha, settings.beta or 0.0, self.chunk_size)
        tier = surroundings.tiers[0] if surroundings.tiers else None
        self.kept = KeptChunks(surroundings.env, tier, surroundings.kv, retention, settings.copy_granularity)
        self.kept.changed = self._transfer_ended
        self._awaited: list[tuple[Copy, Fetch]] = []
        self._told = dict.fromkeys(("queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens"), 0)
        self._below_hit_tokens = 0

    @staticmethod
    def _check(surroundings: MemorySurroundings, settings: Parameters) -> None:
        block_size = surroundings.block_size
        if settings.chunk_size % block_size:
            raise ScenarioError(
                f"pensieve keeps chunks of {settings.chunk_size} tokens, which are not whole blocks of {block_size}",
                remedy=f"give chunk_size a multiple of block_size {block_size}",
            )
        if (settings.alpha is None) != (settings.beta is None) or settings.alpha == settings.beta == 0:
            raise ScenarioError(
                f"pensieve's cost(l) = alpha l + beta with alpha {settings.alpha} and beta {settings.beta}",
                remedy="give both alpha and beta, not both 0, or neither",
            )
        if len(surroundings.tiers) > 1:
            raise ScenarioError(
                f"pensieve copies to one memory below the device, not to {len(surroundings.tiers)}",
                remedy=f"leave {surroundings.tiers[0].name} alone in tiers, or use the allocator prefix_blocks",
            )

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of a waiting sequence that are kept in either memory, wherever they stand."""
        return self.look_up(sequence).tokens

    def look_up(self, sequence: Sequence) -> Found:
        """What is kept of a waiting sequence's context, but for its last token."""
        conversation: Conversation | None = sequence.held
        own = conversation is not None and conversation.author is sequence
        if not own:
            conversation = self.kept.sessions.get(sequence.session) if sequence.session >= 0 else None
        if conversation is None or conversation.owner is not None:
            return NOTHING
        tokens = sequence.total_tokens - 1
        if not own:
            tokens = min(tokens, self._common_tokens(conversation, sequence))
        chunks = min(tokens // self.chunk_size, len(conversation.states))
        kept = conversation.kept(chunks)
        return Found(conversation, chunks, kept * self.chunk_size) if kept else NOTHING

    def round(self) -> PensieveRound:
        """A draft of this instant's grants and releases."""
        return PensieveRound(self)

    def commit(self, round_: Round) -> None:
        """Carry a draft out; decoders' growth, and what it evicts, is booked by :meth:`advance`."""
        draft = cast(PensieveRound, round_)
        for sequence in draft.released:
            self._preempt(sequence)
        for sequence, (blocks, tokens) in draft.granted.items():
            if sequence in draft.found:
                self._admit(sequence, draft.found[sequence])
            elif sequence in draft.restored:
                self._let_go(sequence)
            self.used_blocks += blocks
            self.stored_tokens += tokens
        self._settle(next(iter(draft.granted), None))

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens."""
        super().advance(steps)
        self._settle()

    def steps_until_full(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow, until one of them moves what is kept.

        What goes depends on the time, so that it has to be looked at when that step ends.
        """
        steps = super().steps_until_full(at_most)
        kept = self.kept
        if steps <= 1 or not kept.device_chunks:
            return steps
        spare = self._idle_blocks
        if kept.can_copy:
            spare = min(spare, self._soon_free_blocks - self._copy_below_blocks)
        if self._growth(steps) <= spare:
            return steps
        return max(1, min(steps, bisect_right(range(steps), spare, key=self._growth)))

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; what its session's next turn will repeat is kept."""
        super().release(sequence)
        conversation: Conversation | None = sequence.held
        if conversation is not None and conversation.owner is not sequence:
            conversation = None
        chunks = 0
        if sequence.session >= 0:
            known = known_tokens(sequence, self._tokens_per_hash)
            chunks = min(sequence.kv_tokens, known) // self.chunk_size
            present = self.kept.sessions.get(sequence.session)
            if chunks and present is not None and present is not conversation:
                if present.owner is not None:
                    chunks = 0  # another turn runs and will be kept
                else:
                    self.kept.discard(present)
        if chunks:
            self._park(sequence, conversation, chunks, 0)
        elif conversation is not None:
            self.kept.discard(conversation)
        sequence.held = None
        self._settle()

    def exposed(self) -> list[Fetch]:
        """Copies that the step which begins now has to wait for: what it fetches, and what has to go for it."""
        awaited, self._awaited = self._awaited, []
        return [fetch for copy, fetch in awaited if not copy.ended]

    def report(self) -> dict[str, float]:
        """Tokens asked for and found at first admissions, and again after preemptions; evictions; bytes over the link.

        ``evicted_blocks`` have left the device, ``dropped_blocks`` are kept nowhere any more.
        """
        kept, size = self.kept, self._chunk_blocks
        told: dict[str, float] = {
            **self._told,
            "evicted_blocks": kept.evicted_chunks * size,
            "dropped_blocks": kept.dropped_chunks * size,
        }
        if kept.tier is not None:
            name = kept.tier.name
            told[f"hit_tokens_{name}"] = self._below_hit_tokens
            told[f"copied_in_bytes_{name}"] = kept.in_bytes
            told[f"copied_out_bytes_{name}"] = kept.out_bytes
            told[f"evicted_blocks_{name}"] = kept.evicted_below_chunks * size
        return told

    def check_integrity(self) -> None:
        """Raise SimulationError unless running and idle together fit, and every chunk is where the books say."""
        super().check_integrity()
        if self._idle_blocks < 0:
            raise SimulationError(
                f"{self.used_blocks} blocks are used and {self.kept.device_chunks} chunks kept "
                f"in {self.total_blocks} blocks"
            )
        self.kept.check_integrity()
        if self.transfers != self.kept.transfers:
            raise SimulationError(f"{self.transfers} transfers are told of {self.kept.transfers}")

    @property
    def _idle_blocks(self) -> int:
        """Blocks that neither sequences hold nor idle conversations."""
        return self.total_blocks - self.used_blocks - self.kept.device_chunks * self._chunk_blocks

    @property
    def _soon_free_blocks(self) -> int:
        """Those, and blocks of chunks that are copied or will be."""
        return self._idle_blocks + self.kept.copied_chunks * self._chunk_blocks

    def _common_tokens(self, conversation: Conversation, sequence: Sequence) -> int:
        """How many first tokens a conversation shares with a sequence; remembered, since it is asked in every plan."""
        if conversation.compared is not None and conversation.compared[0] is sequence:
            return conversation.compared[1]
        unit = self._tokens_per_hash or 0
        ids = sequence.hash_ids[: known_tokens(sequence, unit) // unit] if unit else ()
        common = min(len(ids), len(conversation.ids))
        if ids[:common] != conversation.ids[:common]:
            common = next(place for place in range(common) if ids[place] != conversation.ids[place])
        conversation.compared = (sequence, common * unit)
        return common * unit

    def _admit(self, sequence: Sequence, found: Found) -> None:
        """A sequence takes what was found for it."""
        conversation, chunks, tokens = found
        if sequence.held is not conversation:
            self._let_go(sequence)
        again = "re" if sequence.preemptions else ""
        self._told[again + "queried_tokens"] += sequence.total_tokens
        self._told[again + "hit_tokens"] += tokens
        sequence.kv_tokens = tokens
        sequence.held = conversation
        if conversation is None:
            return
        self._below_hit_tokens += conversation.states.count(BELOW, 0, chunks) * self.chunk_size
        copy = self.kept.claim(conversation, sequence, chunks)
        if copy is not None:
            self._awaited.append((copy, Fetch(sequence, self._layers, copy.idle_s, copy.on_end)))

    def _preempt(self, sequence: Sequence) -> None:
        """What it has is idle from now on; its last tokens, that fill no chunk, are lost."""
        super().release(sequence)
        conversation: Conversation | None = sequence.held
        if conversation is not None and conversation.owner is not sequence:
            return  # taken back in the very round that admitted it: nothing has happened
        found = len(conversation.states) if conversation is not None else 0
        # Those that are not there are computed first, in their order; then what stands behind.
        holes = max(0, found - sequence.kv_tokens // self.chunk_size)
        chunks = found if holes else sequence.kv_tokens // self.chunk_size
        if chunks:
            sequence.held = self._park(sequence, conversation, chunks, holes)

    def _park(self, sequence: Sequence, conversation: Conversation | None, chunks: int, holes: int) -> Conversation:
        """Nobody runs a conversation any more."""
        if conversation is None:
            conversation = self.kept.new(sequence)
        if sequence.session >= 0:
            self.kept.name(conversation, sequence.session)
        unit = self._tokens_per_hash
        ids = sequence.hash_ids[: known_tokens(sequence, unit) // unit] if unit else ()
        self.kept.park(conversation, chunks, holes, ids)
        return conversation

    def _let_go(self, sequence: Sequence) -> None:
        """What a preempted sequence left is of no use to it any more, and goes unless somebody else runs it."""
        conversation: Conversation | None = sequence.held
        if conversation is not None and conversation.author is sequence and conversation.owner is None:
            self.kept.discard(conversation)
        sequence.held = None

    def _settle(self, newcomer: Sequence | None = None) -> None:
        """Evict what does not fit, and copy ahead; a step that begins (``newcomer`` is in it) may wait for copies."""
        kept = self.kept
        if kept.device_chunks:
            size = self._chunk_blocks
            over = -self._idle_blocks
            if over > 0:
                awaited: list[Copy] | None = [] if newcomer is not None and kept.tier is not None else None
                kept.evict(-(-over // size), awaited)
                for copy in awaited or ():
                    assert newcomer is not None
                    self._awaited.append((copy, Fetch(newcomer, 1, 0.0, copy.on_end)))
            lacking = self._copy_below_blocks - self._soon_free_blocks
            if lacking > 0 and kept.can_copy:
                kept.copy_ahead(-(-lacking // size))
        self.transfers = kept.transfers

    def _transfer_ended(self) -> None:
        # Chunks on their way could be had before, too; but an instance that sleeps meanwhile has to look again.
        self.transfers = self.kept.transfers
        self.changed()
