"""The oracle's Past-Future: plain lists, the peak by brute force over future steps."""

from __future__ import annotations

from collections import deque
from typing import Any

from case import Case

from servsim.streams import Streams


class PastFutureRule:
    """LightLLM's original admission rule. It draws the same uniform numbers in the same order as servsim's."""

    def __init__(self, case: Case, memory: Any, index: int) -> None:
        self.stream = Streams(case.seed).get(f"instance {index}: past_future")
        filled = max(1, case.window // 2)
        self.history = deque([case.default_output] * filled, maxlen=case.window)
        self.limit = memory.capacity * (1 - case.reserve)
        self.wait_steps = case.wait_steps
        self.batch: list[Any] = []  # running ones in the order in which lengths are drawn for them
        self.forget()

    def forget(self) -> None:
        self.verdicts: list[tuple[Any, bool]] = []
        self.refused_at: int | None = None
        self.scenarios: list[list[tuple[int, int]]] | None = None

    def changed(self, admitted: list[Any], preempted: list[Any]) -> None:
        self.batch += admitted
        for life in preempted:
            self.leave(life)
        if admitted or preempted:
            self.forget()

    def finished(self, life: Any) -> None:
        self.history.append(life.emitted)
        self.leave(life)
        self.forget()

    def leave(self, life: Any) -> None:
        place = self.batch.index(life)
        last = self.batch.pop()
        if last is not life:
            self.batch[place] = last

    def admits(self, life: Any, alone: bool, decode_steps: int) -> bool:
        if self.refused_at is not None and decode_steps - self.refused_at >= self.wait_steps:
            self.forget()
        for other, verdict in self.verdicts:
            if other is life:
                return verdict
        verdict = alone or self.judge(life)
        self.verdicts.append((life, verdict))
        if not verdict:
            self.refused_at = decode_steps
        return verdict

    def judge(self, life: Any) -> bool:
        accepted = [other for other, verdict in self.verdicts if verdict]
        everyone = [*self.batch, *accepted, life]
        if sum(one.prompt + one.declared for one in everyone) < self.limit:
            return True
        if sum(one.total for one in everyone) >= self.limit:
            return False
        if self.scenarios is None:
            self.scenarios = self.draw_batch()
            for other in accepted:
                self.scenarios = self.with_waiting(other)
        candidate = self.with_waiting(life)
        if any(self.peak(scenario) >= self.limit for scenario in candidate):
            return False
        self.scenarios = candidate
        return True

    def draw_batch(self) -> list[list[tuple[int, int]]]:
        count = min(5, int(200 / len(self.batch)) + 1) if self.batch else 5
        return [[self.demand(one, self.running_total(one)) for one in self.batch] for _ in range(count)]

    def running_total(self, one: Any) -> int:
        grid = [one.emitted, *sorted(length for length in self.history if length > one.emitted)]
        if max(self.history) < one.declared:
            grid.append(one.declared)
        position = float(self.stream.random()) * (len(grid) - 1)
        place = int(position)
        above = grid[min(place + 1, len(grid) - 1)]
        return round(grid[place] + (above - grid[place]) * (position - place))

    def with_waiting(self, one: Any) -> list[list[tuple[int, int]]]:
        assert self.scenarios is not None
        lengths = sorted(self.history)
        totals = [lengths[int(float(self.stream.random()) * len(lengths))] for _ in self.scenarios]
        return [[*known, self.demand(one, total)] for known, total in zip(self.scenarios, totals, strict=True)]

    def demand(self, one: Any, total: int) -> tuple[int, int]:
        """Tokens held now, and still to come."""
        cap = min(one.declared, max(one.emitted, total))
        return one.total, max(0, cap - one.emitted - 1)

    @staticmethod
    def peak(scenario: list[tuple[int, int]]) -> int:
        """The most tokens held together at any future step, each growing by one a step until it ends."""
        last = max(left for _, left in scenario)
        return max(sum(held + step for held, left in scenario if left >= step) for step in range(last + 1))
