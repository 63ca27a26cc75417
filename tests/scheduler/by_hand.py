"""An engine without time: it carries plans out, one a call, so that policies can be watched step by step."""

from __future__ import annotations

from typing import Any

from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.scheduler import Plan, Running, Surroundings


class Constant:
    """A random stream that always draws the same number."""

    def __init__(self, uniform: float) -> None:
        self.uniform = uniform
        self.draws = 0

    def random(self, count: int) -> Any:
        import numpy as np

        self.draws += count
        return np.full(count, self.uniform)


class ByHand:
    """A policy with its memory; :meth:`step` is one engine step. ``usable_blocks`` leaves out the null block."""

    def __init__(
        self,
        policy: Any,
        *,
        usable_blocks: int = 1000,
        block_size: int = 16,
        max_num_seqs: int = 256,
        budget: int = 2048,
        parameters: Any = None,
        stream: Any = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.running = Running()
        settings = PagedAllocator.Parameters(**(memory or {}))
        self.memory = PagedAllocator(MemorySurroundings(usable_blocks + 1, block_size, 1 << 20, settings))
        self.stream = stream or Constant(0.5)
        surroundings = Surroundings(
            self.running, self.memory, max_num_seqs, budget, parameters, lambda name: self.stream
        )
        self.policy = policy(surroundings)
        self.arrivals = 0

    def arrive(
        self, prompt: int, *, declared: int = 1024, predicted: float = 0.0, at_s: float | None = None
    ) -> Sequence:
        """A sequence joins the waiting queue; ids count up."""
        at_s = float(self.arrivals) if at_s is None else at_s
        sequence = Sequence(self.arrivals, at_s, prompt, declared, 0, 0, 0, (), predicted)
        self.arrivals += 1
        self.policy.add(sequence)
        return sequence

    def plan(self) -> Plan:
        """The next plan, asked for twice: it must be the same and leave no trace."""
        first, second = self.policy.plan(0.0), self.policy.plan(0.0)
        assert first[:-1] == second[:-1]
        assert first.plain == second.plain and first.idle == second.idle
        return first

    def step(self) -> dict[Sequence, int]:
        """Carry the next plan out; tokens that each sequence was given."""
        plan = self.plan()
        self.last = plan
        given: dict[Sequence, int] = dict(plan.prefills)
        self._begin(plan)
        if plan.decode:
            given |= {one: 1 for one in self.running.sequences if one.decoding}
            self.running.advance(1)
            self.memory.advance(1)
        for sequence in plan.left_out:
            self._join(sequence)
        for sequence, tokens in plan.prefills:
            sequence.kv_tokens += tokens
            if sequence.kv_tokens == sequence.total_tokens:
                sequence.generated_tokens += 1
                del self.running.prefilling[sequence]
                self._join(sequence)
        self.memory.check_integrity()
        return given

    def finish(self, sequence: Sequence) -> None:
        """A decoder has just emitted its last token."""
        self.running.leave(sequence)
        self.memory.leave(sequence)
        self.running.remove(sequence)
        self.memory.release(sequence)
        self.policy.finished(sequence, sequence.generated_tokens)

    def _begin(self, plan: Plan) -> None:
        if plan.round is None:
            return
        for sequence in plan.preempted:
            if sequence.decoding:
                self._leave(sequence)
            self.running.remove(sequence)
        self.memory.commit(plan.round)
        for sequence in plan.preempted:
            sequence.kv_tokens = 0
        self.policy.begin(plan)
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self.running.admit(sequence)
        for sequence in plan.left_out:
            self._leave(sequence)

    def _join(self, sequence: Sequence) -> None:
        self.running.join(sequence)
        self.memory.join(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self.running.leave(sequence)
        self.memory.leave(sequence)
