"""Priorities that change from outside while requests run: FastSwitch's workload."""

from __future__ import annotations

from bisect import insort
from heapq import merge
from typing import Literal

from pydantic import Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.host_copies import CopyParameters, HostCopies
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["PriorityTrace", "PriorityTraceParameters"]

Key = tuple[int, float, int]  # priority, arrival, id, all negated: the largest goes first


class PriorityTraceParameters(CopyParameters):
    """What a scenario may say about changing priorities."""

    pattern: Literal["random", "markov"] = Field("random", description="how priorities are drawn at an update")
    updates_per_iteration: float = Field(0.04, gt=0, le=1, description="0.04: new priorities every 25 decode steps")
    levels: int = Field(8, ge=1, le=1_000_000, description="priorities 0 (goes first) to levels - 1")
    keep_probability: float = Field(
        0.8, ge=0, le=1, description="markov: chance to keep the priority, else it moves to a neighbour (our number)"
    )
    preemption: Literal["swap", "recompute"] = Field("swap", description="what becomes of the KV of who must make room")


class _Draft:
    """A plan under way."""

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.prefills: list[tuple[Sequence, int]] = []
        self.admitted: list[Sequence] = []
        self.out: list[Sequence] = []
        self.back: list[Sequence] = []
        self.dropped: list[Sequence] = []
        self.copied_blocks = 0
        self.freed_blocks = 0


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
    Copies are synchronous, as in the vLLM that FastSwitch compares with. Its asynchronous swap-in and its reuse
    of host copies are not modelled. The trace is drawn as the run goes, per instance, in order of arrival. The step
    counter counts decode steps; steps that only prefill do not count. An update costs O(n log n) of all live requests.

    Source: FastSwitch (2024); its probability in the Markov pattern is not known to us.
    """

    Parameters = PriorityTraceParameters
    asynchronous = False

    def __init__(self, surroundings: Surroundings) -> None:
        self.running = surroundings.running
        self.memory = surroundings.memory
        self.max_num_seqs = surroundings.max_num_seqs
        self.max_num_batched_tokens = surroundings.max_num_batched_tokens
        self.settings: PriorityTraceParameters = surroundings.parameters or PriorityTraceParameters()
        self.swap = HostCopies(surroundings, self.settings)
        self._period = max(1, round(1 / self.settings.updates_per_iteration))
        self._stream = surroundings.stream("priority_trace")
        self._priorities: dict[Sequence, int] = {}  # of all live ones, in order of arrival
        self._line: list[tuple[Key, Sequence]] = []  # who waits or is swapped; the head is last
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
        return self._line[-1][1] if self._line else None

    def accepts(self, sequence: Sequence) -> bool:
        """Every request is taken."""
        return True

    def add(self, sequence: Sequence) -> None:
        """A request arrives, and gets a priority by itself."""
        self._priorities[sequence] = int(self._stream.random() * self.settings.levels)
        self._enter(sequence)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It needs no priority any more, and leaves room."""
        del self._priorities[sequence]
        self._refused = None

    def timer_s(self) -> float:
        """Updates come by steps, not by time."""
        return float("inf")

    def stable_steps(self) -> int:
        """Until the next update."""
        return self._period - self.running.step % self._period

    def arrival_matters(self, sequence: Sequence) -> bool:
        """Only where a place is free and the newcomer is the head."""
        return len(self.running) < self.max_num_seqs and self._line[-1][1] is sequence

    def plan(self, now_s: float) -> Plan:
        """Everybody who runs, then who fits from the head."""
        step = self.running.step
        if step != self._updated and step % self._period == 0:
            self._updated = step
            self._update()
        running = self.running
        may_admit = bool(self._line) and (len(running) < self.max_num_seqs or self._displace)
        if not running.prefilling and (not may_admit or self._refused is self.head()):
            if not running.decoders:
                return IDLE
            if self.memory.steps_until_full(1):
                return DECODE
        draft = self._draft = self._compose()
        decoders = running.decoders - sum(one.decoding for one in (*draft.out, *draft.dropped))
        if not draft.prefills and not draft.back and not draft.out and not draft.dropped:
            self._refused = self.head()
            self._displace = False
            return DECODE if running.decoders else IDLE
        decode = decoders > 0 or any(_decodes(one) for one in draft.back)
        copy_s = self.swap.copy_s(draft.copied_blocks)
        return Plan(
            draft.prefills, len(draft.admitted), decode, (), draft.dropped, draft.out, draft.back, copy_s, draft.round
        )

    def begin(self, plan: Plan) -> None:
        """Who comes in leaves the line, who goes out enters it."""
        draft = self._draft
        assert draft is not None
        del self._line[len(self._line) - len(draft.back) - len(draft.admitted) :]
        for sequence in draft.back:
            del self._swapped[sequence]
        for sequence in draft.out:
            self._swapped[sequence] = None
        for sequence in (*draft.out, *draft.dropped):
            self._enter(sequence)
        self.swap.used_blocks -= draft.freed_blocks
        self._refused = None
        self._displace = False

    def _update(self) -> None:
        """New priorities for all, and the line in their order."""
        live = list(self._priorities)
        levels = self.settings.levels
        drawn = self._stream.random(len(live)).tolist()
        if self.settings.pattern == "random":
            for sequence, uniform in zip(live, drawn, strict=True):
                self._priorities[sequence] = int(uniform * levels)
        else:
            keep = self.settings.keep_probability
            for sequence, uniform in zip(live, drawn, strict=True):
                if uniform >= keep:
                    up = uniform >= (1 + keep) / 2
                    self._priorities[sequence] = _neighbour(self._priorities[sequence], up, levels)
        running = self.running.sequences
        buckets: dict[int, list[tuple[Key, Sequence]]] = {}
        for sequence in reversed(live):
            if sequence not in running:
                buckets.setdefault(self._priorities[sequence], []).append((self._key(sequence), sequence))
        # Bucket by bucket they are in order already, and sorting them once more is linear.
        self._line = sorted(entry for level in sorted(buckets, reverse=True) for entry in buckets[level])
        self._refused = None
        self._displace = bool(self._line)

    def _compose(self) -> _Draft:
        """The next step, memory and all."""
        running = self.running
        losers = dict.fromkeys(self._beyond_the_top()) if self._displace else {}
        draft = _Draft(self.memory.round())
        budget = self.max_num_batched_tokens - running.decoders
        if losers or not draft.round.grow_decoders() or not self._extend_all(draft, budget):
            draft = _Draft(self.memory.round())
            for sequence in losers:
                self._evict(draft, sequence)
            stay = sorted((one for one in running.sequences if one not in losers), key=self._key, reverse=True)
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
        for _, sequence in reversed(self._line):
            taken = len(draft.admitted) + len(draft.back)
            if budget <= 0 or staying + taken >= self.max_num_seqs:
                return
            if sequence in self._swapped:
                if not draft.round.restore(sequence):
                    return
                draft.back.append(sequence)
                self._copied(draft, sequence, 1)
                budget -= _decodes(sequence)
                continue
            tokens = min(sequence.total_tokens, budget)
            if not draft.round.admit(sequence, tokens, alone=not staying and not taken):
                return
            draft.prefills.append((sequence, tokens))
            draft.admitted.append(sequence)
            budget -= tokens

    def _beyond_the_top(self) -> list[Sequence]:
        """Running ones that are not among the first that fit together, where somebody who waits is."""
        size = self.memory.block_size
        blocks = 0
        waiting = False
        kept: set[Sequence] = set()
        run = sorted(((self._key(one), one) for one in self.running.sequences), reverse=True)
        for places, (_, sequence) in enumerate(merge(run, reversed(self._line), reverse=True)):
            tokens = sequence.total_tokens
            if sequence.decoding:
                tokens = self.running.kv_tokens(sequence) + 1
            blocks += -(-tokens // size)
            if blocks > self.memory.total_blocks or places >= self.max_num_seqs:
                break
            kept.add(sequence)
            waiting = waiting or sequence not in self.running.sequences
        return [one for one in self.running.sequences if one not in kept] if waiting else []

    def _evict(self, draft: _Draft, sequence: Sequence) -> None:
        """Its KV leaves the device: to the swap space, or for good."""
        draft.round.release(sequence, self.running.kv_tokens(sequence))
        room = self.swap.free_blocks + draft.freed_blocks
        if self.settings.preemption == "swap" and self._blocks(sequence) <= room:
            draft.out.append(sequence)
            self._copied(draft, sequence, -1)
        else:
            draft.dropped.append(sequence)

    def _copied(self, draft: _Draft, sequence: Sequence, sign: int) -> None:
        blocks = self._blocks(sequence)
        draft.copied_blocks += blocks
        draft.freed_blocks += sign * blocks

    def _blocks(self, sequence: Sequence) -> int:
        return -(-self.running.kv_tokens(sequence) // self.memory.block_size)

    def _key(self, sequence: Sequence) -> Key:
        return (-self._priorities[sequence], -sequence.arrival_s, -sequence.request_id)

    def _enter(self, sequence: Sequence) -> None:
        insort(self._line, (self._key(sequence), sequence))


def _decodes(sequence: Sequence) -> bool:
    """Whether one that is swapped goes on decoding, and not in the middle of its prefill."""
    return sequence.generated_tokens > 0 and sequence.kv_tokens == sequence.total_tokens - 1


def _neighbour(level: int, up: bool, levels: int) -> int:
    """The level beside it; at an end there is only one."""
    if up:
        return level + 1 if level + 1 < levels else max(0, level - 1)
    return level - 1 if level else min(1, levels - 1)
