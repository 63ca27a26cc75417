"""Sarathi-Serve: decodes first, prompts in chunks beside them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.engines.one_free_block import OneFreeBlock
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["Sarathi", "SarathiParameters", "chunk_schedule"]


class SarathiParameters(BaseModel):
    """What a scenario may say about Sarathi-Serve; the names are its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunk_size: int = Field(512, ge=1, description="tokens of a step, decodes and chunks together")
    watermark: float = Field(0.01, ge=0, lt=1, description="share of all blocks kept free when a request is admitted")
    enable_dynamic_chunking_schedule: bool = Field(
        False, description="chunk sizes that fall, stage by stage, as a prompt gets done, in place of chunk_size"
    )
    high_chunk_size: int = Field(2048, ge=1, description="dynamic schedule: tokens of a step in the first stage")
    low_chunk_size: int = Field(512, ge=1, description="dynamic schedule: tokens of a step in the last stage")
    chunk_schedule_max_tokens: int = Field(4096, ge=1, description="dynamic schedule: prompt tokens of all stages")
    chunk_schedule_stages: int = Field(4, ge=1, description="dynamic schedule: how many stages")


def chunk_schedule(high: int, low: int, stages: int) -> tuple[int, ...]:
    """Chunk sizes of the stages: from ``high`` to ``low`` in even steps, rounded to 32 (to ``low`` if smaller)."""
    unit = min(32, low)
    gaps = max(1, stages - 1)
    sizes = [low + int((high - low) * (gaps - stage) / gaps) for stage in range(stages)]
    return tuple(max(1, round(size / unit)) * unit for size in sizes)


class Sarathi(LinePolicy):
    """Sarathi-Serve (OSDI 2024): stall-free batching, decodes first, then prefill chunks up to ``chunk_size`` tokens.

    Each step: (1) every decoder, oldest first, under vLLM v0's rule of one free block (:class:`OneFreeBlock`; the
    victim is the youngest, decoding or still prefilling, and is recomputed); (2) the next chunks of prefills under
    way, oldest first; (3) newcomers from the head of the line while a chunk is left for them, a place is free, and
    ``free - ceil(P / block) >= watermark``. The room that chunks have is ``chunk_size`` less what the step has
    already, at least 0 (the original does not clamp, Vidur does). The blocks of a whole prompt are taken at
    admission, so that a prefill under way never lacks memory: those not filled yet are pledged in this
    policy's account, and the report counts them when they are filled.

    ``max_num_batched_tokens`` bounds a step too, where it is the smaller. The dynamic schedule takes a chunk's
    budget from the stage that its prompt has come to; a prompt past the last stage stays in it. Deviations: in a step
    that preempts nobody is admitted, where the original might let the victim in again at once; a request that
    runs alone is let in without the watermark.

    Any order may be given; oldest and youngest are then its own, if it ranks the running ones.

    Source: sarathi-serve (commit 96f9911), Vidur (commit 7d47513). The defaults of the dynamic schedule are our choice.
    """

    Parameters = SarathiParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        settings = surroundings.parameters or SarathiParameters()
        self._rule = OneFreeBlock(surroundings)
        self._watermark_blocks = int(settings.watermark * self.memory.total_blocks)
        stages = settings.chunk_schedule_stages
        sizes: tuple[int, ...] = (settings.chunk_size,)
        self._stage_tokens = 1 << 60
        if settings.enable_dynamic_chunking_schedule:
            sizes = chunk_schedule(settings.high_chunk_size, settings.low_chunk_size, stages)
            self._stage_tokens = -(-settings.chunk_schedule_max_tokens // stages)
        self._chunk_sizes = [min(size, self.max_num_batched_tokens) for size in sizes]

    def plan(self, now_s: float) -> Plan:
        """The next step: decoders, prefills under way, newcomers."""
        running = self.running
        self.queue.refresh(now_s)
        may_admit = len(self.queue) > 0 and len(running.sequences) < self.max_num_seqs
        pledged = self._pledged()
        if not running.decoders or self._rule.surely_holds(pledged):
            if not running.prefilling and not may_admit:
                return DECODE if running.decoders else IDLE
            round_ = self.memory.round()
            round_.grow_decoders()
            spare_blocks = self.memory.total_blocks - self.memory.blocks_after(1) - pledged
            victims: list[Sequence] = []
        else:
            round_ = self.memory.round()
            spare_blocks = 0
            victims = self._rule.walk(round_, self._by_age(), self._rule.free_blocks - pledged, self._held_blocks)
            if not victims and not running.prefilling:
                return DECODE
        decoders = running.decoders - sum(victim.decoding for victim in victims)
        prefills = self._go_on(round_, victims, decoders)
        admitted = 0
        if may_admit and not victims:
            admitted = self._admit(round_, prefills, decoders, spare_blocks)
        if not prefills and not victims:
            return DECODE if decoders else IDLE
        return Plan(prefills, admitted, decoders > 0, (), victims, round=round_)

    def stable_steps(self) -> int:
        """As long as order and rule keep, and every decoder surely finds a free block."""
        return min(super().stable_steps(), self._rule.stable_steps(self._pledged()))

    def _go_on(self, round_: Round, victims: list[Sequence], decoders: int) -> list[tuple[Sequence, int]]:
        """The next chunks of prefills under way."""
        prefills: list[tuple[Sequence, int]] = []
        used = decoders
        for sequence in self.running.prefilling:
            tokens = self._chunk(sequence, sequence.total_tokens - sequence.kv_tokens, used)
            if tokens > 0 and sequence not in victims and round_.extend(sequence, tokens):
                prefills.append((sequence, tokens))
                used += tokens
        return prefills

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]], decoders: int, spare_blocks: int) -> int:
        """Take newcomers from the head of the line into ``prefills``; how many."""
        used = decoders + sum(tokens for _, tokens in prefills)
        places = min(self.max_num_seqs - len(self.running.sequences), len(self.queue))
        admitted = 0
        while admitted < places:
            sequence = self.queue.peek(admitted)
            tokens = self._chunk(sequence, round_.lacking(sequence), used)
            blocks = self._rule.blocks(sequence.total_tokens)
            alone = not admitted and not self.running.sequences
            if tokens <= 0 or (spare_blocks - blocks < self._watermark_blocks and not alone):
                break
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            used += tokens
            spare_blocks -= blocks
            admitted += 1
        return admitted

    def _chunk(self, sequence: Sequence, lacking_tokens: int, used_tokens: int) -> int:
        """Tokens that a prefill may do in a step that has so many already; never negative."""
        stage = min((sequence.total_tokens - lacking_tokens) // self._stage_tokens, len(self._chunk_sizes) - 1)
        return max(0, min(lacking_tokens, self._chunk_sizes[stage] - used_tokens))

    def _pledged(self) -> int:
        """Blocks that prefills under way have taken and not filled."""
        blocks = self._rule.blocks
        unfilled = (*self.running.prefilling, *self.memory.loading)
        return sum(blocks(one.total_tokens) - blocks(one.kv_tokens) for one in unfilled)

    def _held_blocks(self, sequence: Sequence) -> int:
        """Blocks that a running sequence has taken."""
        return self._rule.blocks(self.running.kv_tokens(sequence) if sequence.decoding else sequence.total_tokens)

    def _by_age(self) -> list[Sequence]:
        """The running ones, oldest first."""
        return sorted(self.running.sequences, key=self._age)

    def _age(self, sequence: Sequence) -> tuple[float, ...]:
        return self.queue.urgency(sequence) or (sequence.arrival_s, sequence.request_id)
