"""Priorities that change from outside while requests run: FastSwitch's workload."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.host_copies import CopyParameters, HostCopies
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.priority_line import Levels, PriorityLine

__all__ = ["PriorityTrace", "PriorityTraceParameters"]


class PriorityTraceParameters(CopyParameters):
    """What a scenario may say about changing priorities."""

    pattern: Literal["random", "markov"] = Field("random", description="how priorities are drawn at an update")
    updates_per_iteration: float = Field(0.04, gt=0, le=1, description="0.04: new priorities every 25 decode steps")
    levels: int = Field(8, ge=1, le=1_000_000, description="priorities 0 (goes first) to levels - 1")
    keep_probability: float = Field(
        0.8, ge=0, le=1, description="markov: chance to keep the priority, else it moves to a neighbour (our number)"
    )
    preemption: Literal["swap", "recompute", "auto"] = Field(
        "swap", description="what becomes of the KV of who must make room; auto: swapped where that takes less time"
    )

    @property
    def swapping(self) -> bool:
        """Whether anything is ever swapped."""
        return self.preemption != "recompute"


class _Draft:
    """A plan under way."""

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.prefills: list[tuple[Sequence, int]] = []
        self.admitted: list[Sequence] = []
        self.out: list[Sequence] = []
        self.back: list[Sequence] = []
        self.dropped: list[Sequence] = []
        self.copy_s = 0.0
        self.out_blocks = 0  # that are taken in the swap space
        self.back_blocks = 0


class PriorityTrace:
    """Priorities drawn anew every so many decode steps; the top set that fits runs, others are swapped (FastSwitch).

    At an update all live requests get priorities: uniform ones (``random``), or a step of a Markov chain
    over neighbouring levels. Then the first in order of priority and arrival, as many as memory and ``max_num_seqs``
    hold, are to run: running ones beyond them are swapped out, or dropped and computed again. Between updates
    nobody is displaced, and waiting and swapped requests come in from the head until one does not fit. Prompts are
    chunked by ``max_num_batched_tokens``, decoders first. Without memory for the running ones the last of them
    makes room; where the swap space is full, its KV is computed again.

    A copy takes ``operations * copy_launch_s + bytes / bandwidth``, with two tensors a layer for every block, or
    for every run of ``blocks_per_copy`` blocks (FastSwitch's block groups; the length of runs is given, not simulated).
    Copies are synchronous, as in the vLLM that FastSwitch compares with, unless with a tier ``swap_copies: async`` lets
    others run until the KV of who comes back is there, as FastSwitch does; it decides so case by case. Its reuse of
    host copies is not modelled. The trace is drawn as the run goes, per instance, in order of arrival. The step
    counter counts decode steps; steps that only prefill do not count. Whom an update wants to run is reckoned in
    blocks of ``block_size`` tokens, as paged memory grants them; contiguous memory may hold fewer. An update
    costs O(n log n) of all live requests.

    Source: FastSwitch (2024); its probability in the Markov pattern is not known to us.
    """

    Parameters = PriorityTraceParameters
    asynchronous = False
    swaps = True

    def __init__(self, surroundings: Surroundings) -> None:
        self.running = surroundings.running
        self.memory = surroundings.memory
        self.max_num_seqs = surroundings.max_num_seqs
        self.max_num_batched_tokens = surroundings.max_num_batched_tokens
        self.settings: PriorityTraceParameters = surroundings.parameters or PriorityTraceParameters()
        self.swap = HostCopies(surroundings, self.settings)
        self._period = max(1, round(1 / self.settings.updates_per_iteration))
        self._stream = surroundings.stream("priority_trace")
        self._line = PriorityLine()  # who waits or is swapped
        self._swapped: dict[Sequence, None] = {}
        self._updated = 0
        self._displace = False  # an update is to be acted upon
        self._refused: Sequence | None = None  # the head that found no memory; decoders only take more
        self._draft: _Draft | None = None

    @property
    def waiting(self) -> int:
        """How many sequences wait or are swapped."""
        return len(self._line)

    def head(self) -> Sequence | None:
        """The sequence that would come in next."""
        return self._line.head()

    def accepts(self, sequence: Sequence) -> bool:
        """Every request is taken."""
        return True

    def add(self, sequence: Sequence) -> None:
        """A request arrives, and gets a priority by itself."""
        self._line.add(sequence, int(self._stream.random() * self.settings.levels))

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It needs no priority any more, and leaves room."""
        self._line.forget(sequence)
        self._refused = None

    def timer_s(self) -> float:
        """Updates come by steps, not by time."""
        return float("inf")

    def stable_steps(self) -> int:
        """Until the next update."""
        return self._period - self.running.step % self._period

    def arrival_matters(self, sequence: Sequence) -> bool:
        """Only where a place is free and the newcomer is the head."""
        return len(self.running) < self.max_num_seqs and self._line.head() is sequence

    def plan(self, now_s: float) -> Plan:
        """Everybody who runs, then who fits from the head."""
        step = self.running.step
        if step != self._updated and step % self._period == 0:
            self._updated = step
            self._update()
        running = self.running
        may_admit = len(self._line) > 0 and (len(running) < self.max_num_seqs or self._displace)
        if not running.prefilling and (not may_admit or self._refused is self.head()):
            if not running.decoders:
                return IDLE
            if self.memory.steps_until_full(1):
                return DECODE
        draft = self._draft = self._compose()
        if not draft.prefills and not draft.back and not draft.out and not draft.dropped:
            # While copies are under way memory may come free by itself, and nobody would say so.
            self._refused = None if self.memory.transfers else self.head()
            self._displace = False
            return DECODE if running.decoders else IDLE
        decoders = running.decoders - sum(one.decoding for one in (*draft.out, *draft.dropped))
        decode = decoders > 0 or any(_decodes(one) for one in draft.back)
        moved = (draft.dropped, draft.out, draft.back, draft.out, draft.back)
        return Plan(draft.prefills, len(draft.admitted), decode, (), *moved, draft.copy_s, draft.round)

    def begin(self, plan: Plan) -> None:
        """Who comes in leaves the line, who goes out enters it."""
        draft = self._draft
        assert draft is not None
        self._line.drop(len(draft.back) + len(draft.admitted))
        for sequence in draft.back:
            del self._swapped[sequence]
        for sequence in draft.out:
            self._swapped[sequence] = None
        for sequence in (*draft.out, *draft.dropped):
            self._line.enter(sequence)
        self.swap.moved(draft.out_blocks - draft.back_blocks)
        self._refused = None
        self._displace = False

    def _update(self) -> None:
        """New priorities for all, and the line in their order."""
        self._line.update(self._drawn)
        self._refused = None
        self._displace = len(self._line) > 0

    def _drawn(self, old: Levels) -> Levels:
        """The next priorities of all live ones."""
        levels = self.settings.levels
        drawn = np.asarray(self._stream.random(len(old)))
        if self.settings.pattern == "random":
            return (drawn * levels).astype(np.int64)
        keep = self.settings.keep_probability
        return np.where(drawn < keep, old, _neighbours(old, drawn >= (1 + keep) / 2, levels))

    def _compose(self) -> _Draft:
        """The next step, memory and all."""
        running = self.running
        stay, losers = self._top() if self._displace else ([], [])
        draft = _Draft(self.memory.round())
        budget = self.max_num_batched_tokens - running.decoders
        if losers or not draft.round.grow_decoders() or not self._extend_all(draft, budget):
            draft = _Draft(self.memory.round())
            for sequence in losers:
                self._evict(draft, sequence)
            if not losers:
                stay = sorted(running.sequences, key=self._line.key)
            if self._squeeze(draft, stay):
                return draft
            budget = self.max_num_batched_tokens - sum(one.decoding for one in stay)
        staying = len(running) - len(losers)
        budget -= sum(tokens for _, tokens in draft.prefills)
        self._let_in(draft, staying, budget)
        return draft

    def _extend_all(self, draft: _Draft, budget: int) -> bool:
        """Chunks for the prefills that go on; False where the memory does not suffice."""
        for sequence in self.running.prefilling:
            tokens = min(sequence.total_tokens - sequence.kv_tokens, budget)
            if tokens:
                if not draft.round.extend(sequence, tokens):
                    return False
                draft.prefills.append((sequence, tokens))
                budget -= tokens
        return True

    def _squeeze(self, draft: _Draft, stay: list[Sequence]) -> bool:
        """Those who stay get memory in their order, and the last ones make room; whether any had to."""
        budget = self.max_num_batched_tokens - sum(one.decoding for one in stay)
        squeezed = False
        place = 0
        while place < len(stay):
            sequence = stay[place]
            if sequence in self.memory.loading:
                place += 1
                continue
            lacking = 0 if sequence.decoding else sequence.total_tokens - sequence.kv_tokens
            tokens = min(lacking, budget)
            granted = (
                draft.round.grow(sequence, self.running.kv_tokens(sequence))
                if sequence.decoding
                else not tokens or draft.round.extend(sequence, tokens)
            )
            if not granted:
                self._evict(draft, stay.pop())
                squeezed = True
                continue
            if tokens:
                draft.prefills.append((sequence, tokens))
                budget -= tokens
            place += 1
        return squeezed

    def _let_in(self, draft: _Draft, staying: int, budget: int) -> None:
        """From the head of the line, until one does not fit."""
        for sequence in self._line.in_order():
            taken = len(draft.admitted) + len(draft.back)
            if budget <= 0 or staying + taken >= self.max_num_seqs:
                return
            if sequence in self._swapped:
                if not draft.round.restore(sequence):
                    return
                draft.back.append(sequence)
                blocks = self._blocks(sequence)
                draft.copy_s += self.swap.copy_s(blocks)
                draft.back_blocks += blocks
                budget -= _decodes(sequence)
                continue
            tokens = min(draft.round.lacking(sequence), budget)
            if not draft.round.admit(sequence, tokens, alone=not staying and not taken):
                return
            draft.prefills.append((sequence, tokens))
            draft.admitted.append(sequence)
            budget -= tokens

    def _top(self) -> tuple[list[Sequence], list[Sequence]]:
        """Running ones, in order, among the first that fit together, and the others, where somebody who waits is."""
        running = self.running
        sequences, step = running.sequences, running.step
        size, total_blocks, max_num_seqs = self.memory.block_size, self.memory.total_blocks, self.max_num_seqs
        blocks, places = 0, 0
        stay: list[Sequence] = []
        for sequence in self._line.all_in_order():
            # What it stores, and its next token.
            generated = step - sequence.decode_base if sequence.decoding else sequence.generated_tokens
            blocks += -(-(sequence.prompt_tokens + generated) // size)
            if blocks > total_blocks or places >= max_num_seqs:
                break
            places += 1
            if sequence in sequences:
                stay.append(sequence)
        if places == len(stay):
            return stay, []
        kept = set(stay)
        return stay, [one for one in sequences if one not in kept]

    def _evict(self, draft: _Draft, sequence: Sequence) -> None:
        """Its KV leaves the device: to the swap space, or for good."""
        draft.round.release(sequence, self.running.kv_tokens(sequence))
        blocks = self._blocks(sequence)
        taken = self.swap.takes_blocks(sequence, blocks)
        if self._is_swapped(sequence, taken, self.swap.free_blocks - draft.out_blocks):
            draft.out.append(sequence)
            draft.out_blocks += taken
            draft.copy_s += self.swap.copy_s(blocks)
        else:
            draft.dropped.append(sequence)

    def _is_swapped(self, sequence: Sequence, blocks: int, room: int) -> bool:
        """Whether the KV of who makes room is kept, where so many blocks are free for the ``blocks`` that it takes."""
        if blocks > room:
            return False
        if self.settings.preemption == "auto":
            return self.swap.is_cheaper(sequence, self.running.kv_tokens(sequence), room)
        return self.settings.preemption == "swap"

    def _blocks(self, sequence: Sequence) -> int:
        return -(-self.running.kv_tokens(sequence) // self.memory.block_size)


def _decodes(sequence: Sequence) -> bool:
    """Whether one that is swapped goes on decoding, and not in the middle of its prefill."""
    return sequence.generated_tokens > 0 and sequence.kv_tokens == sequence.total_tokens - 1


def _neighbours(old: Levels, up: NDArray[np.bool_], levels: int) -> Levels:
    """The levels beside them; at an end there is only one."""
    moved = old + np.where(up, 1, -1)
    moved = np.where(moved < 0, 1, np.where(moved >= levels, levels - 2, moved))
    return np.clip(moved, 0, levels - 1)
