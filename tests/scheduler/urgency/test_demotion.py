"""Moore and Hodgson's rule, one demotion after the other or in one pass."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from servsim.request import Sequence
from servsim.scheduler.urgency import demotion


class _Due:
    """Due at half the prompt's tokens, in seconds."""

    def first_due_s(self, sequence: Sequence) -> float:
        return sequence.prompt_tokens / 2

    due_s = first_due_s


@pytest.mark.parametrize("seed", range(20))
def test_many_demotions_in_one_pass_are_the_same_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for one_by_one in (1 << 30, 4, 0):
        monkeypatch.setattr(demotion, "_ONE_BY_ONE", one_by_one)
        chance = random.Random(seed)
        order = demotion.FeasibleOrder(cast(Any, _Due()), lambda sequence: sequence.max_tokens / 16)
        for number in range(60):
            order.push(Sequence(number, float(number), chance.randint(1, 60), chance.randint(1, 32), 0, 0, 0, ()))
        order.refresh(3.0)
        lines.append([order.peek(place).request_id for place in range(60)])
    assert lines[0] == lines[1] == lines[2]
