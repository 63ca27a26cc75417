"""Admission rules: whether the head of the line may be let in, memory and budgets aside."""

from __future__ import annotations

from typing import Protocol

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED

__all__ = ["Admission", "Anyone"]


class Admission(Protocol):
    """A rule of its own state. A kind of rule derives from it and overrides what it needs."""

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether the head of the line may be let in, asked before the memory is.

        ``admitted``: how many this plan has let in before; they are not in ``running`` yet. Asked twice
        with nothing between, it answers the same. A rule that refuses even when nothing runs and nothing
        was admitted could wait for ever.
        """
        ...

    def stable_steps(self) -> int:
        """For how many decode steps its latest refusal surely holds, if nothing else happens."""
        return UNBOUNDED

    def timer_s(self) -> float:
        """When a refusal may end by itself, in seconds; infinity if it will not."""
        return float("inf")

    def began(self, plan: Plan) -> None:
        """A plan is carried out; its prefills end with those it admitted."""
        return

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """A running sequence ended after so many tokens."""
        return


class Anyone(Admission):
    """No rule: whoever finds memory, budget and a place is let in."""

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Always."""
        return True
