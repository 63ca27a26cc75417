"""S3: memory reserved for a predicted length, evicted and doubled when the prediction was too short."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.progress import Progress

__all__ = ["S3", "S3Parameters", "SizeOrder"]


class S3Parameters(BaseModel):
    """What a scenario may say about S3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buckets: int = Field(10, ge=1, le=1 << 20, description="equal buckets of predicted output lengths")
    longest_tokens: int = Field(
        1024, ge=1, le=1 << 30, description="upper edge of the last bucket, which longer predictions fall into as well"
    )


class SizeOrder(KeyOrder):
    """The largest reservation first, and the largest that still fits can be found.

    A size must have been said (:meth:`set_size`) before its sequence joins, and must not change while it waits.
    """

    def __init__(self) -> None:
        self._sizes: dict[Sequence, int] = {}
        super().__init__(lambda sequence: -self._sizes[sequence])

    def set_size(self, sequence: Sequence, blocks: int) -> None:
        """What a sequence that does not wait will reserve."""
        self._sizes[sequence] = blocks

    def size(self, sequence: Sequence) -> int:
        """What it reserves, in blocks."""
        return self._sizes[sequence]

    def forget(self, sequence: Sequence) -> None:
        """It ended."""
        del self._sizes[sequence]

    def first_fit(self, blocks: float, taken: list[int]) -> int | None:
        """The place (from the smallest) of the largest that needs at most so many blocks, but for places taken.

        ``taken``: places that this rule found before with as much or more, in that order, so descending.
        """
        place = bisect_right(self._line, blocks, key=lambda entry: entry[0]) - 1
        if taken:
            place = min(place, taken[-1] - 1)
        return place if place >= 0 else None

    def at(self, place: int) -> Sequence:
        """The sequence at a place from the smallest."""
        return self._line[place][3]

    def take(self, sequences: list[Sequence]) -> None:
        """These leave, from wherever they are."""
        for sequence in sequences:
            self.remove(sequence)


class S3(VllmV1Batching):
    """Reserves prompt and predicted bucket, largest that fits first; at its edge evicts and doubles it (S3).

    A sequence is let in if ``prompt + edge`` fits what is not reserved, where edge is the upper edge of the bucket of
    its prediction: decreasing first fit, so that small ones fill what large ones leave. One that has emitted edge
    tokens and has not ended is evicted (by recompute), its edge doubled, up to its declared maximum, and waits again.
    A step that evicts admits nobody. One alone is let in whatever it reserves. The steps are vLLM v1's, with
    chunked prefill.

    The reservation is an account of this policy, in blocks, so that the memory itself never runs short; reports
    of reserved memory are the allocator's, whose grants follow the tokens. Known to us from the abstract and
    notes only: ten buckets, the doubling, and recompute are assumptions; retraining of the predictor is not modelled.
    """

    Parameters = S3Parameters
    queue: SizeOrder

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or S3Parameters()
        super().__init__(surroundings, SizeOrder())
        self._given = given
        self._edges: dict[Sequence, int] = {}
        self._reserved_blocks = 0
        self._progress = Progress(surroundings.running, self._edge_that_matters)

    def edge_tokens(self, sequence: Sequence) -> int:
        """Output tokens that are reserved for a sequence, or will be."""
        return self._edges[sequence]

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives, and its bucket is found."""
        buckets, longest = self._given.buckets, self._given.longest_tokens
        bucket = min(max(1, math.ceil(sequence.predicted_tokens * buckets / longest)), buckets)
        self._set_edge(sequence, math.ceil(bucket * longest / buckets))
        self.queue.push(sequence)

    def plan(self, now_s: float) -> Plan:
        """Evict those at their edge; in a step without that, as vLLM but for the order."""
        evicted = self._at_edge()
        if not evicted:
            return super().plan(now_s)
        round_ = self.memory.round()
        for sequence in evicted:
            round_.release(sequence, self.running.kv_tokens(sequence))
        budget = self.max_num_batched_tokens
        prefills: list[tuple[Sequence, int]] = []
        for sequence in self.running.sequences:
            if sequence in evicted or sequence in self.memory.loading:
                continue
            tokens = min(self._lacking(sequence), budget)
            if not self._grant(round_, sequence, tokens):
                return self._walk()
            if not sequence.decoding:
                prefills.append((sequence, tokens))
            budget -= tokens
        return Plan(prefills, 0, self.running.decoders > len(evicted), preempted=evicted, round=round_)

    def begin(self, plan: Plan) -> None:
        """Reservations are taken and given back, the evicted ones' doubled."""
        admitted = [sequence for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]]
        self.queue.take(admitted)
        for sequence in admitted:
            self._reserved_blocks += self.queue.size(sequence)
        self._progress.began(plan)
        self.admission.began(plan)
        for sequence in plan.preempted:
            self._reserved_blocks -= self.queue.size(sequence)
            if sequence.generated_tokens >= self._edges[sequence]:
                self._set_edge(sequence, 2 * self._edges[sequence])
            self.queue.push_preempted(sequence)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Its reservation ends."""
        self.admission.finished(sequence, output_tokens)
        self._progress.finished(sequence)
        self._reserved_blocks -= self.queue.size(sequence)
        self.queue.forget(sequence)
        del self._edges[sequence]

    def stable_steps(self) -> int:
        """Until a decoder reaches its edge."""
        generated = self._progress.generated()
        left = (self._progress.marks - generated)[self._progress.decoding()]
        steps = int(max(1, min(UNBOUNDED, left.min()))) if len(left) else UNBOUNDED
        return min(steps, self.admission.stable_steps())

    def arrival_matters(self, sequence: Sequence) -> bool:
        """If there is a place and its reservation fits, whoever waits before it."""
        if len(self.running) >= self.max_num_seqs:
            return False
        return self.queue.size(sequence) <= self._free_blocks

    def head(self) -> Sequence | None:
        """The one that would be let in next."""
        return LinePolicy.head(self)

    @property
    def _free_blocks(self) -> int:
        return self.memory.total_blocks - self._reserved_blocks

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]], budget: int) -> int:
        """Decreasing first fit into what is not reserved."""
        places = self.max_num_seqs - len(self.running.sequences)
        free: float = self._free_blocks
        taken: list[int] = []
        while budget > 0 and len(taken) < places:
            alone = not taken and not self.running.sequences
            place = self.queue.first_fit(free, taken)
            if place is None and alone:
                place = self.queue.first_fit(self.queue.size(self.queue.at(0)), [])  # the smallest, more than there is
            if place is None:
                break
            sequence = self.queue.at(place)
            tokens = min(round_.lacking(sequence), self._longest_chunk, budget)
            if not self.admission.admits(sequence, len(taken)) or not round_.admit(sequence, tokens, alone=alone):
                break
            taken.append(place)
            prefills.append((sequence, tokens))
            budget -= tokens
            free -= self.queue.size(sequence)
        return len(taken)

    def _at_edge(self) -> list[Sequence]:
        """Decoders that have emitted all that was reserved for them, in order of arrival."""
        if not self._progress.members:
            return []
        reached = self._progress.generated() >= self._progress.marks
        if not reached.any():
            return []
        found = [self._progress.members[place] for place in np.flatnonzero(reached).tolist()]
        return sorted((one for one in found if one.decoding), key=lambda one: (one.arrival_s, one.request_id))

    def _set_edge(self, sequence: Sequence, tokens: int) -> None:
        edge = min(tokens, sequence.max_tokens)
        self._edges[sequence] = edge
        self.queue.set_size(sequence, -(-(sequence.prompt_tokens + edge) // self.memory.block_size))

    def _edge_that_matters(self, sequence: Sequence) -> float:
        """Infinite where it is the declared maximum: there the output ends."""
        edge = self._edges[sequence]
        return math.inf if edge >= sequence.max_tokens else edge
