"""The line of changing priorities, beside a list that is sorted anew each time."""

from __future__ import annotations

import numpy as np

from servsim.request import Sequence
from servsim.scheduler.urgency.priority_line import PriorityLine


def test_it_keeps_the_order_of_a_list_sorted_anew() -> None:
    random = np.random.default_rng(1)
    line = PriorityLine()
    levels: dict[Sequence, int] = {}
    waiting: list[Sequence] = []
    running: list[Sequence] = []
    for number in range(2000):
        one = Sequence(number, float(number), 1, 1, 0, 0, 0, ())
        levels[one] = int(random.integers(4))
        line.add(one, levels[one])
        waiting.append(one)
        waiting.sort(key=lambda other: (levels[other], other.request_id))
        assert list(line.in_order()) == waiting and len(line) == len(waiting)
        if number % 3 == 0:
            count = int(random.integers(len(waiting) + 1))
            line.drop(count)
            running += waiting[:count]
            del waiting[:count]
        while len(running) > 5:
            ended = running.pop(int(random.integers(len(running))))
            line.forget(ended)
            del levels[ended]
        if number % 5 == 0 and running:
            line.enter(running[0])
            waiting.append(running.pop(0))
        if number % 7 == 0:
            drawn = random.integers(4, size=len(levels))
            line.update(lambda old, drawn=drawn: drawn)  # type: ignore[misc]
            levels = dict(zip(levels, drawn.tolist(), strict=True))
            assert sorted(levels, key=lambda one: (levels[one], one.request_id)) == list(line.all_in_order())
        waiting.sort(key=lambda other: (levels[other], other.request_id))
        assert line.head() is (waiting[0] if waiting else None)
