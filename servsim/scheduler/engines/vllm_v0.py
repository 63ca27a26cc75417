"""vLLM v0: a step prefills or decodes, never both."""

from __future__ import annotations

from bisect import insort
from typing import Literal

from pydantic import Field

from servsim.errors import CapacityError
from servsim.memory.allocator import Round
from servsim.memory.forks import held_blocks, next_blocks
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.engines.one_free_block import OneFreeBlock
from servsim.scheduler.host_copies import CopyParameters, HostCopies
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["VllmV0", "VllmV0Parameters"]

_INFINITY = float("inf")


class VllmV0Parameters(CopyParameters):
    """What a scenario may say about vLLM v0's scheduler."""

    watermark: float = Field(0.01, ge=0, lt=1, description="share of all blocks kept free when a request is admitted")
    preemption_mode: Literal["recompute", "swap", "auto"] = Field(
        "recompute", description="a victim's KV is dropped and computed again, or copied out and back; auto: the faster"
    )
    delay_factor: float = Field(
        0.0, ge=0, description="prompts wait for this many times the latest prefill's duration, to be batched; 0: not"
    )

    @property
    def swapping(self) -> bool:
        """Whether anything is ever swapped."""
        return self.preemption_mode != "recompute"


class VllmV0(LinePolicy):
    """vLLM v0 (0.4): prompts first and whole, decodes stalled meanwhile; youngest preempted, by recompute or swap.

    A step prefills as many whole prompts as fit, from the head of the line, if nobody is swapped out; only if there
    are none does it decode. A head of ``n`` tokens (prompt and what it had emitted) fits later while
    ``free - ceil(n / block) < watermark``, and is not skipped; never if ``total - ceil(n / block) < watermark``:
    it is then rejected on arrival. The tokens of a prefill step are counted without padding (Vidur counts
    ``requests x longest``). Decoders go oldest first under :class:`OneFreeBlock`. In a step without preemption the
    oldest swapped ones come back, each while ``free - (its blocks + 1) >= watermark``; copies take place before the
    step and hold it up, block by block (:class:`HostCopies`). With ``swap_copies: async``, which vLLM has not, those
    who come back join the decoders when their KV is there, and may be preempted meanwhile.

    Single sequences are recomputed in vLLM v0, or swapped where ``preemption_mode`` says so; with ``auto`` each victim
    goes the way that takes less time by itself, and is recomputed without room. A group with several live outputs or
    beams takes as many of the ``max_num_seqs`` seats, asks for as many free blocks before each step and before it comes
    back, and is swapped in any mode, with what its members share; where the swap space is full, the run stops.
    Deviations: vLLM wants ``max_num_batched_tokens >= max_model_len``, here a prompt longer than the budget is
    prefilled by itself; a request that runs alone is let in, or back, without the watermark; where the swap
    space is full vLLM stops with an error, here a single sequence is recomputed. With ``delay_factor`` the head's
    arrival stands for the oldest one's. Chunked prefill is not modelled. Any order and any rule may be given.

    Source: vLLM 0.4's core/scheduler.py and block manager, as read in the vllm-ltr fork and in sarathi-serve.
    """

    Parameters = VllmV0Parameters
    swaps = True
    groups = True

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        settings = surroundings.parameters or VllmV0Parameters()
        self._rule = OneFreeBlock(surroundings)
        self._watermark_blocks = int(settings.watermark * self.memory.total_blocks)
        self._mode = settings.preemption_mode
        self._host = HostCopies(surroundings, settings)
        self._swap_key = f"instance.scheduler.{'batching.' if order is not None else ''}swap_space_gib"
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
        may_admit = self._may_admit()
        if may_admit or running.prefilling:
            plan = self._plan_prefill(now_s, may_admit=may_admit)
            if plan is not None:
                return plan
        if not running.decoders and not self._swapped:
            return IDLE
        round_ = self.memory.round()
        if running.decoders and not self._rule.surely_holds():
            victims = self._rule.walk(round_, self._by_age(), self._rule.free_blocks, self._held_blocks)
            if victims:
                return self._preempting(round_, victims)
        else:
            round_.grow_decoders()
        spare_blocks = self.memory.total_blocks - self.memory.blocks_after(1)
        returning = self._returning(round_, spare_blocks) if self._swapped else []
        if not returning:
            return DECODE if running.decoders else IDLE
        return Plan(
            decode=True, swapped_in=returning, copied_in=returning, copy_s=self._copy_s(returning), round=round_
        )

    def begin(self, plan: Plan) -> None:
        """Besides what all policies do: who is swapped, and whether a prefill begins."""
        for sequence in plan.swapped_in:
            self._swapped.remove(sequence)
            self._host.moved(-self._held_blocks(sequence))
        for sequence in plan.swapped_out:
            insort(self._swapped, sequence, key=self._age)
            self._host.moved(self._held_blocks(sequence))
        self._prefill_began_s = self._planned_s if plan.prefills else None
        super().begin(plan)

    def stable_steps(self) -> int:
        """As long as order and rule keep, and every decoder surely finds a free block."""
        return min(super().stable_steps(), self._rule.stable_steps())

    def timer_s(self) -> float:
        """When the delay of the head is over, besides what order and rule say."""
        gate_s = _INFINITY
        # Nobody looks at the head before there is a seat for it: an order may settle whose turn it is when first asked.
        if self._delay_factor and self._may_admit() and self._gate_s() >= self._planned_s:
            gate_s = self._gate_s()
        return min(gate_s, super().timer_s())

    def head(self) -> Sequence | None:
        """The oldest swapped one, or the head of the line."""
        return self._swapped[0] if self._swapped else super().head()

    def _may_admit(self) -> bool:
        """Whether somebody waits and finds a seat; nobody is let in while somebody is swapped out."""
        return not self._swapped and len(self.queue) > 0 and self.running.seats < self.max_num_seqs

    def _notice(self, now_s: float) -> None:
        """How long the prefill step took that has just ended, if one has."""
        self._planned_s = now_s
        if self._prefill_began_s is not None and now_s > self._prefill_began_s:
            self._prefill_s = now_s - self._prefill_began_s
            self._prefill_began_s = None

    def _gate_s(self) -> float:
        """Until when prompts are held back while something runs."""
        return self.queue.peek(0).arrival_s + self._delay_factor * self._prefill_s

    def _plan_prefill(self, now_s: float, *, may_admit: bool) -> Plan | None:
        """A step of whole prompts; None if there is to be none.

        Prompts under way are those whose cached KV has been fetched; they come first, and are preempted if the memory
        for the rest of them is gone. Then those at the head of the line.
        """
        running = self.running
        if may_admit and self._delay_factor and running.sequences:
            may_admit = now_s > self._gate_s()
        round_ = self.memory.round()
        spare_blocks = self._rule.free_blocks - self._watermark_blocks
        budget = self.max_num_batched_tokens
        prefills: list[tuple[Sequence, int]] = []
        preempted: list[Sequence] = []
        for sequence in running.prefilling:
            tokens = sequence.total_tokens - sequence.kv_tokens
            if round_.extend(sequence, tokens):
                prefills.append((sequence, tokens))
                spare_blocks -= self._rule.blocks(sequence.total_tokens) - self._rule.blocks(sequence.kv_tokens)
                budget -= tokens
            else:
                round_.release(sequence, sequence.kv_tokens)
                preempted.append(sequence)
        if preempted:
            return Plan(prefills, preempted=preempted, round=round_)
        admitted = self._admit(round_, prefills, spare_blocks, budget) if may_admit else 0
        return Plan(prefills, admitted, round=round_) if prefills else None

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]], spare_blocks: int, budget: int) -> int:
        """Take whole prompts from the head of the line into ``prefills`` while everything fits; how many.

        Blocks that would be found in a prefix cache count as wanted all the same, as v0's ``can_allocate`` has it.
        """
        running = self.running
        seats = self.max_num_seqs - running.seats
        places = min(seats, len(self.queue))
        admitted = 0
        while admitted < places:
            sequence = self.queue.peek(admitted)
            tokens = round_.lacking(sequence)
            blocks = self._rule.blocks(sequence.total_tokens)
            alone = not prefills and not running.sequences
            if (blocks > spare_blocks and not alone) or (tokens > budget and prefills) or sequence.width > seats:
                break
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            spare_blocks -= blocks
            budget -= tokens
            seats -= sequence.width
            admitted += 1
        return admitted

    def _preempting(self, round_: Round, victims: list[Sequence]) -> Plan:
        """The rest decode; the victims' KV is copied out while there is room for it, or dropped."""
        preempted: list[Sequence] = []
        swapped: list[Sequence] = []
        room = self._host.free_blocks
        for victim in victims:
            blocks = self._host.takes_blocks(victim, self._held_blocks(victim))
            if self._is_swapped(victim, blocks, room):
                room -= blocks
                swapped.append(victim)
            else:
                preempted.append(victim)
        decode = sum(victim.width for victim in victims if victim.decoding) < self.running.decoders
        return Plan((), 0, decode, (), preempted, swapped, (), swapped, (), self._copy_s(swapped), round_)

    def _is_swapped(self, victim: Sequence, blocks: int, room: int) -> bool:
        """Whether the KV of a victim is kept, where so many blocks are free for the ``blocks`` that it takes."""
        if victim.width > 1:
            if blocks > room:
                raise CapacityError(
                    f"request {victim.request_id} has {victim.width} live sequences, which are swapped when preempted, "
                    f"but of the swap space only {room} blocks are free, and it has {blocks}",
                    remedy=f"raise {self._host.told_by or self._swap_key}, or lower instance.scheduler.max_num_seqs",
                )
            return True
        if self._mode == "auto":
            return self._host.is_cheaper(victim, self.running.kv_tokens(victim), room)
        return self._mode == "swap" and blocks <= room

    def _returning(self, round_: Round, spare_blocks: int) -> list[Sequence]:
        """Swapped sequences that come back, oldest first, none skipped."""
        returning: list[Sequence] = []
        seats, size = self.max_num_seqs - self.running.seats, self.memory.block_size
        for sequence in self._swapped:
            seats -= sequence.width
            blocks = self._held_blocks(sequence) + sequence.width
            alone = not returning and not self.running.sequences
            short = spare_blocks - blocks < self._watermark_blocks and not alone
            if seats < 0 or short or not round_.restore(sequence):
                break
            # The block for the next token is granted only where it is needed.
            spare_blocks -= blocks - sequence.width + next_blocks(sequence, sequence.kv_tokens, size)
            returning.append(sequence)
        return returning

    def _copy_s(self, sequences: list[Sequence]) -> float:
        """Seconds that the step waits for the KV of these to be copied one way."""
        return sum(self._host.copy_s(self._held_blocks(sequence)) for sequence in sequences)

    def _held_blocks(self, sequence: Sequence) -> int:
        """Blocks that a sequence fills, here or, swapped, in host memory."""
        return held_blocks(sequence, self.running.kv_tokens(sequence), self.memory.block_size)

    def _by_age(self) -> list[Sequence]:
        """The running ones, oldest first."""
        return sorted(self.running.sequences, key=self._age)

    def _age(self, sequence: Sequence) -> tuple[float, ...]:
        return self.queue.urgency(sequence) or (sequence.arrival_s, sequence.request_id)
