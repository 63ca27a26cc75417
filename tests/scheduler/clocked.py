"""An engine without steps of its own length: by hand, with a clock that the test sets."""

from __future__ import annotations

from typing import Any

from by_hand import ByHand

from servsim.scheduler import Plan


class Clocked(ByHand):
    """As :class:`ByHand`, but plans are asked for at ``now_s``; costs and the like are given as to Surroundings."""

    now_s = 0.0

    def plan(self) -> Plan:
        """The next plan, asked for twice."""
        first, second = self.policy.plan(self.now_s), self.policy.plan(self.now_s)
        assert first[:-1] == second[:-1]
        return first

    def admitted_at(self, now_s: float) -> list[int]:
        """Ids of those who are let in by a step at that time; nobody else is running afterwards."""
        self.now_s = now_s
        self.step()
        found = [one.request_id for one, _ in self.last.prefills]
        for one in list(self.running.sequences):
            self.finish(one)
        return found


def line_of(order: Any) -> list[int]:
    """Ids of those who wait, in order."""
    return [order.peek(index).request_id for index in range(len(order))]
