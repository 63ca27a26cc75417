"""vLLM v0: a step prefills or decodes, never both."""

from __future__ import annotations

from bisect import insort
from typing import Literal

from pydantic import Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.host_copies import CopyParameters, HostCopies
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.one_free_block import OneFreeBlock
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["VllmV0", "VllmV0Parameters"]

_INFINITY = float("inf")


class VllmV0Parameters(CopyParameters):
    """What a scenario may say about vLLM v0's scheduler."""

    watermark: float = Field(0.01, ge=0, lt=1, description="share of all blocks kept free when a request is admitted")
    preemption_mode: Literal["recompute", "swap"] = Field(
        "recompute", description="a victim's KV is dropped and computed again, or copied out and back"
    )
    delay_factor: float = Field(
        0.0, ge=0, description="prompts wait for this many times the latest prefill's duration, to be batched; 0: not"
    )


class VllmV0(LinePolicy):
    """vLLM v0 (0.4): prompts first and whole, decodes stalled meanwhile; youngest preempted, by recompute or swap.

    A step prefills as many whole prompts as fit, from the head of the line, if nobody is swapped out; only if there
    are none does it decode. A head of ``n`` tokens (prompt and what it had emitted) fits later while
    ``free - ceil(n / block) < watermark``, and is not skipped; never if ``total - ceil(n / block) < watermark``:
    it is then rejected on arrival. The tokens of a prefill step are counted without padding (Vidur counts
    ``requests x longest``). Decoders go oldest first under :class:`OneFreeBlock`. In a step without preemption the
    oldest swapped ones come back, each while ``free - (its blocks + 1) >= watermark``; copies take place before the
    step and hold it up, block by block (:class:`HostCopies`).

    Single sequences are recomputed in vLLM v0; ``preemption_mode: swap`` is what it does with beams, or when told to.
    Deviations: vLLM wants ``max_num_batched_tokens >= max_model_len``, here a prompt longer than the budget is
    prefilled by itself; a request that runs alone is let in, or back, without the watermark; where the swap
    space is full vLLM stops with an error, here the victim is recomputed. With ``delay_factor`` the head's arrival
    stands for the oldest one's. Chunked prefill and beams are not modelled. Any order and any rule may be given.

    Source: vLLM 0.4's core/scheduler.py and block manager, as read in the vllm-ltr fork and in sarathi-serve.
    """

    Parameters = VllmV0Parameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        settings = surroundings.parameters or VllmV0Parameters()
        self._rule = OneFreeBlock(surroundings)
        self._watermark_blocks = int(settings.watermark * self.memory.total_blocks)
        self._swaps = settings.preemption_mode == "swap"
        self._host = HostCopies(surroundings, settings)
        self._swapped: list[Sequence] = []  # oldest first
        self._delay_factor = settings.delay_factor
        self._planned_s = 0.0
        self._prefill_began_s: float | None = None  # of a prefill step that was the latest to begin
        self._prefill_s = 0.0  # how long the latest prefill step took

    @property
    def waiting(self) -> int:
        """How many sequences wait, the swapped ones among them."""
        return len(self.queue) + len(self._swapped)

    def accepts(self, sequence: Sequence) -> bool:
        """Whether its prompt can ever be let in ("NEVER" in vLLM)."""
        needed = self._rule.blocks(sequence.total_tokens)
        return self.memory.total_blocks - needed >= self._watermark_blocks

    def plan(self, now_s: float) -> Plan:
        """The next step: whole prompts, or else decodes."""
        running = self.running
        self.queue.refresh(now_s)
        self._notice(now_s)
        if not self._swapped and len(self.queue) and len(running.sequences) < self.max_num_seqs:
            plan = self._plan_prefill(now_s)
            if plan is not None:
                return plan
        if not running.decoders and not self._swapped:
            return IDLE
        round_ = self.memory.round()
        if running.decoders and not self._rule.surely_holds():
            victims = self._rule.walk(round_, self._by_age(), self._rule.free_blocks, self._held_blocks)
            if victims:
                return self._preempting(round_, victims)
            spare_blocks = 0
        else:
            round_.grow_decoders()
            spare_blocks = self.memory.total_blocks - self.memory.blocks_after(1)
        returning = self._returning(round_, spare_blocks) if self._swapped else []
        if not returning:
            return DECODE
        return Plan(decode=True, swapped_in=returning, copy_s=self._copy_s(returning), round=round_)

    def begin(self, plan: Plan) -> None:
        """Besides what all policies do: who is swapped, and whether a prefill begins."""
        for sequence in plan.swapped_in:
            self._swapped.remove(sequence)
            self._host.used_blocks -= self._held_blocks(sequence)
        for sequence in plan.swapped_out:
            insort(self._swapped, sequence, key=self._age)
            self._host.used_blocks += self._held_blocks(sequence)
        self._prefill_began_s = self._planned_s if plan.prefills else None
        super().begin(plan)

    def stable_steps(self) -> int:
        """As long as order and rule keep, and every decoder surely finds a free block."""
        return min(super().stable_steps(), self._rule.stable_steps())

    def timer_s(self) -> float:
        """When the delay of the head is over, besides what order and rule say."""
        gate_s = _INFINITY
        if self._delay_factor and len(self.queue) and self._gate_s() >= self._planned_s:
            gate_s = self._gate_s()
        return min(gate_s, super().timer_s())

    def head(self) -> Sequence | None:
        """The oldest swapped one, or the head of the line."""
        return self._swapped[0] if self._swapped else super().head()

    def _notice(self, now_s: float) -> None:
        """How long the prefill step took that has just ended, if one has."""
        self._planned_s = now_s
        if self._prefill_began_s is not None and now_s > self._prefill_began_s:
            self._prefill_s = now_s - self._prefill_began_s
            self._prefill_began_s = None

    def _gate_s(self) -> float:
        """Until when prompts are held back while something runs."""
        return self.queue.peek(0).arrival_s + self._delay_factor * self._prefill_s

    def _plan_prefill(self, now_s: float) -> Plan | None:
        """A step of whole prompts from the head of the line; None if there is to be none."""
        running = self.running
        if self._delay_factor and running.sequences and now_s <= self._gate_s():
            return None
        round_ = self.memory.round()
        spare_blocks = self._rule.free_blocks - self._watermark_blocks
        budget = self.max_num_batched_tokens
        places = min(self.max_num_seqs - len(running.sequences), len(self.queue))
        prefills: list[tuple[Sequence, int]] = []
        while len(prefills) < places:
            sequence = self.queue.peek(len(prefills))
            tokens = round_.lacking(sequence)
            blocks = self._rule.blocks(sequence.total_tokens)
            alone = not prefills and not running.sequences
            if (blocks > spare_blocks and not alone) or (tokens > budget and prefills):
                break
            if not self.admission.admits(sequence, len(prefills)) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            spare_blocks -= blocks
            budget -= tokens
        return Plan(prefills, len(prefills), round=round_) if prefills else None

    def _preempting(self, round_: Round, victims: list[Sequence]) -> Plan:
        """The rest decode; the victims' KV is copied out while there is room for it, or dropped."""
        preempted: list[Sequence] = []
        swapped: list[Sequence] = []
        room = self._host.free_blocks if self._swaps else 0
        for victim in victims:
            if self._held_blocks(victim) <= room:
                room -= self._held_blocks(victim)
                swapped.append(victim)
            else:
                preempted.append(victim)
        decode = len(victims) < self.running.decoders
        return Plan((), 0, decode, (), preempted, swapped, (), self._copy_s(swapped), round_)

    def _returning(self, round_: Round, spare_blocks: int) -> list[Sequence]:
        """Swapped sequences that come back, oldest first, none skipped."""
        returning: list[Sequence] = []
        places = self.max_num_seqs - len(self.running.sequences)
        for sequence in self._swapped[: max(0, places)]:
            blocks = self._rule.blocks(sequence.kv_tokens) + 1
            alone = not returning and not self.running.sequences
            if (spare_blocks - blocks < self._watermark_blocks and not alone) or not round_.restore(sequence):
                break
            # The block for its next token is granted only where it is needed.
            spare_blocks -= blocks - (sequence.kv_tokens % self.memory.block_size > 0)
            returning.append(sequence)
        return returning

    def _copy_s(self, sequences: list[Sequence]) -> float:
        """Seconds to copy the KV of these one way."""
        return self._host.copy_s(sum(map(self._held_blocks, sequences)))

    def _held_blocks(self, sequence: Sequence) -> int:
        """Blocks that a sequence fills, here or, swapped, in host memory."""
        return self._rule.blocks(self.running.kv_tokens(sequence))

    def _by_age(self) -> list[Sequence]:
        """The running ones, oldest first."""
        return sorted(self.running.sequences, key=self._age)

    def _age(self, sequence: Sequence) -> tuple[float, ...]:
        return self.queue.urgency(sequence) or (sequence.arrival_s, sequence.request_id)
