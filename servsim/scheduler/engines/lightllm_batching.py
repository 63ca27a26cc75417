"""LightLLM's batches: prefill batches of whole prompts that stall the decoders; the newest pause when memory ends."""

from __future__ import annotations

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.engines.lightllm_parameters import BatchingParameters
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["LightLlmBatching"]


class LightLlmBatching(LinePolicy):
    """Whole prompts in prefill batches that stall the decoders, or chunks beside them (LightLLM's router).

    A batch takes waiting requests from the head while (1) they, the running and the paused are at most
    ``max_num_seqs``, (2) their first-step tokens are at most ``batch_max_tokens`` (a prompt longer than that makes
    a batch of its own), (3) the admission rule and (4) the memory let them in. First-step tokens are whole prompts,
    or with chunked prefill chunks of them, and then those of the running batch count too; chunks that
    are under way go on in every step. A new batch comes at once, or with ``disable_aggressive_schedule`` only every
    ``router_max_wait_tokens`` decode steps, counted from the latest batch or pause.

    Before a decode step that would not fit the newest are paused until it does: their KV is dropped, they go to
    the front of the line and are computed again. An order with an urgency of its own says who that is.

    Source: LightLLM (fc72ffab). Its blocks hold one token; with larger ones a conservative admission may still come
    to pause. Its prefix cache is the allocator ``radix`` with ``insert: at_end``. Not modelled: prefill and decode on
    different devices. Weak: that chunks do not wait for ``router_max_wait_tokens`` is our reading.
    """

    Parameters = BatchingParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        own = surroundings.parameters
        settings = own if isinstance(own, BatchingParameters) else BatchingParameters()
        self._batch_max_tokens = settings.batch_max_tokens or self.max_num_batched_tokens
        self._chunk = settings.chunk_tokens(self._batch_max_tokens)
        self._wait_steps = settings.router_max_wait_tokens if settings.disable_aggressive_schedule else 0
        self._since_step = 0  # the latest batch or pause
        self._paused: dict[Sequence, None] = {}

    def plan(self, now_s: float) -> Plan:
        """A prefill batch if there can be one, else a decode step, for which the newest may have to pause."""
        self.queue.refresh(now_s)
        running = self.running
        due = len(self.queue) > 0 and self._due()
        if due or running.prefilling:
            round_ = self.memory.round()
            if self._chunk and not round_.grow_decoders():
                return self._plan_pause()
            prefills: list[tuple[Sequence, int]] = []
            for sequence in running.prefilling:
                tokens = self._next_chunk(sequence.total_tokens - sequence.kv_tokens)
                if not round_.extend(sequence, tokens):
                    return self._plan_pause()
                prefills.append((sequence, tokens))
            admitted = self._admit(round_, prefills) if due else 0
            if prefills:
                return Plan(prefills, admitted, decode=bool(self._chunk and running.decoders), round=round_)
        if not running.decoders:
            return IDLE
        if self.memory.steps_until_full(1):
            return DECODE
        return self._plan_pause()

    def begin(self, plan: Plan) -> None:
        """Also count the paused, and the steps since the latest batch or pause."""
        super().begin(plan)
        for sequence in plan.preempted:
            self._paused[sequence] = None
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._paused.pop(sequence, None)
        if plan.admitted or plan.preempted:
            self._since_step = self.running.step

    def stable_steps(self) -> int:
        """Until the next batch may be made, or as long as the rule's refusal holds."""
        if self._wait_steps and len(self.queue):
            return self._wait_steps - (self.running.step - self._since_step) % self._wait_steps
        return super().stable_steps()

    def _due(self) -> bool:
        """Whether a new batch may be made now."""
        if not self._wait_steps or not self.running.sequences:
            return True
        steps = self.running.step - self._since_step
        return steps > 0 and steps % self._wait_steps == 0

    def _next_chunk(self, tokens: int) -> int:
        return min(tokens, self._chunk) if self._chunk else tokens

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]]) -> int:
        """Take waiting sequences from the head into ``prefills`` while everything fits; how many."""
        queue, running = self.queue, self.running
        budget = self._batch_max_tokens
        if self._chunk:
            budget -= running.decoders + sum(tokens for _, tokens in prefills)
        paused = len(self._paused)
        admitted = 0
        while admitted < min(len(queue), self.max_num_seqs - len(running.sequences)):
            sequence = queue.peek(admitted)
            tokens = self._next_chunk(round_.lacking(sequence))
            alone = not admitted and not running.sequences
            others_paused = paused - (sequence in self._paused)
            if len(running.sequences) + admitted + 1 + others_paused > self.max_num_seqs and not alone:
                break
            first = alone if self._chunk else not admitted
            if tokens > budget and not first:
                break
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            budget -= tokens
            paused = others_paused
            admitted += 1
        return admitted

    def _plan_pause(self) -> Plan:
        """Pause the newest until the rest can take its next step, and let it."""
        running = self.running
        round_ = self.memory.round()
        kept = sorted(running.sequences, key=self._age)
        paused: list[Sequence] = []
        prefills: list[tuple[Sequence, int]] = []
        place = 0
        while place < len(kept):
            sequence = kept[place]
            if sequence in self.memory.loading:
                place += 1
                continue
            tokens = 1 if sequence.decoding else self._next_chunk(sequence.total_tokens - sequence.kv_tokens)
            if self._grant(round_, sequence, tokens):
                place += 1
                if not sequence.decoding:
                    prefills.append((sequence, tokens))
                continue
            victim = kept.pop()
            round_.release(victim, running.kv_tokens(victim))
            paused.append(victim)
        decoding = any(one.decoding for one in kept)
        return Plan(prefills, decode=decoding, preempted=paused, round=round_)

    def _age(self, sequence: Sequence) -> tuple[float, ...]:
        """The largest is the first to be paused."""
        return self.queue.urgency(sequence) or (sequence.arrival_s, sequence.request_id)

    def _grant(self, round_: Round, sequence: Sequence, tokens: int) -> bool:
        if sequence.decoding:
            return round_.grow(sequence, self.running.kv_tokens(sequence))
        return round_.extend(sequence, tokens)
