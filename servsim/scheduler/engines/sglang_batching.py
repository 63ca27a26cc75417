"""SGLang's batches: prefill first, in chunks that stall the decoders, and requests retracted when memory ends."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["RetractionParameters", "SglangBatching"]


class RetractionParameters(BaseModel):
    """Of the batching ``sglang``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retract_decode_steps: int = Field(
        20, ge=1, description="decode steps of every survivor for which a retraction makes room"
    )


class SglangBatching(LinePolicy):
    """Prefill batches that stall the decoders, and retraction of who emitted least when memory ends (SGLang).

    Whenever the admission rule and the memory let somebody in, a step only prefills: at most
    ``max_num_batched_tokens``, prompts rounded up to pages (blocks). The last prompt that does not fit is cut to whole
    pages and goes on, first, in the next steps. When the next decode step does not fit, requests are retracted
    (dropped, and back in the line): those with the fewest emitted tokens, of these the longest prompt, at least one,
    until ``retract_decode_steps`` steps of every survivor fit; never the last one.

    Source: SGLang, ``PrefillAdder``, ``ScheduleBatch.retract_decode`` (versions before 2025; newer ones
    retract until the next step fits, and abort a last one that does not). The prefix tree is the allocator's
    (``radix``), any other will do. Not modelled: mixed
    chunks (off by default); ``max_prefill_tokens`` (16,384) beside the chunk, which ``max_num_batched_tokens``
    stands for (``chunked_prefill_size``, 8,192 on an H100); overlap scheduling.
    """

    Parameters = RetractionParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        own = surroundings.parameters
        settings = own if isinstance(own, RetractionParameters) else RetractionParameters()
        self._retract_steps = settings.retract_decode_steps

    def plan(self, now_s: float) -> Plan:
        """A prefill batch if there can be one, else a decode step, for which some may have to be retracted."""
        self.queue.refresh(now_s)
        running = self.running
        if running.prefilling or (len(self.queue) and len(running.sequences) < self.max_num_seqs):
            round_ = self.memory.round()
            prefills, budget = self._go_on(round_)
            admitted = self._admit(round_, prefills, budget)
            if prefills:
                return Plan(prefills, admitted, round=round_)
        if not running.decoders:
            return IDLE
        if self.memory.steps_until_full(1):
            return DECODE
        return self._plan_retraction()

    def _go_on(self, round_: Round) -> tuple[list[tuple[Sequence, int]], int]:
        """Chunks of prompts under way, and what is left of the budget."""
        budget = self.max_num_batched_tokens
        prefills = []
        for sequence in self.running.prefilling:
            tokens = min(sequence.total_tokens - sequence.kv_tokens, budget)
            if tokens > 0 and round_.extend(sequence, tokens):
                prefills.append((sequence, tokens))
                budget -= self._paged(tokens)
        return prefills, budget

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]], budget: int) -> int:
        """Take waiting sequences from the head into ``prefills`` while everything fits; how many."""
        queue, running = self.queue, self.running
        page = self.memory.block_size
        places = min(self.max_num_seqs - len(running.sequences), len(queue))
        admitted = 0
        while budget > 0 and admitted < places:
            sequence = queue.peek(admitted)
            alone = not admitted and not running.sequences
            tokens = round_.lacking(sequence)
            if self._paged(tokens) > budget:  # cut to whole pages; a budget below a page is taken as it is
                tokens = budget // page * page or (0 if prefills else min(tokens, budget))
            if not tokens:
                break
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            budget -= self._paged(tokens)
            admitted += 1
        return admitted

    def _plan_retraction(self) -> Plan:
        """Retract until there is room, and let the survivors decode."""
        running, memory = self.running, self.memory
        round_ = memory.round()
        kept = sorted(
            running.sequences, key=lambda one: (running.generated_tokens(one), -one.prompt_tokens), reverse=True
        )
        retracted: list[Sequence] = []
        free_tokens = (memory.total_blocks - memory.used_blocks) * memory.block_size
        while len(kept) > 1 and (not retracted or free_tokens < self._retract_steps * len(kept)):
            free_tokens += self._paged(self._retract(round_, kept, retracted))
        place = 0
        while place < len(kept):
            sequence = kept[place]
            if not sequence.decoding or round_.grow(sequence, running.kv_tokens(sequence)):
                place += 1
            else:  # pages larger than the steps made room for
                self._retract(round_, kept, retracted)
        return Plan(decode=any(one.decoding for one in kept), preempted=retracted, round=round_)

    def _retract(self, round_: Round, kept: list[Sequence], retracted: list[Sequence]) -> int:
        """Retract the next one; the tokens that it stored."""
        victim = kept.pop()
        kv_tokens = self.running.kv_tokens(victim)
        round_.release(victim, kv_tokens)
        retracted.append(victim)
        return kv_tokens

    def _paged(self, tokens: int) -> int:
        """Rounded up to whole pages."""
        return -(-tokens // self.memory.block_size) * self.memory.block_size
