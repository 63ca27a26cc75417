"""What an engine asks of a scheduling policy, and what it hands to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from servsim.memory.allocator import Allocator
from servsim.memory.swap_space import SwapSpace
from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["UNBOUNDED", "Bounds", "Policy", "Surroundings"]


class Bounds(NamedTuple):
    """The SLO of a class, in seconds; infinity where there is no bound."""

    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    e2e_s: float = float("inf")


def _unknown_s(tokens: int) -> float:
    return 0.0


def _unknown_decode_s(decoders: int, context_tokens: int) -> float:
    return 0.0


UNBOUNDED = 1 << 60  # steps: for as long as nothing happens


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that a policy can see of its instance; the policy changes none of it."""

    running: Running
    memory: Allocator
    max_num_seqs: int
    max_num_batched_tokens: int
    parameters: Any  # the policy's own Parameters, checked, or None
    stream: Callable[[str], np.random.Generator]  # a named random stream of this instance
    max_model_len: int = 1 << 30  # prompt and output together
    prefill_s: Callable[[int], float] = _unknown_s  # a step that prefills so many tokens of one sequence alone
    decode_s: Callable[[int, int], float] = _unknown_decode_s  # a decode step of so many sequences storing so much
    bounds: tuple[Bounds, ...] = (Bounds(),)  # the SLO of each class, by its index
    kv_bytes_per_token: int = 0  # over all devices of the instance, or of a pipeline's fullest stage
    engines: int = 1  # virtual engines, this one among them, that share host memory for swapped KV equally
    swap_space: SwapSpace | None = None  # the tier for policies that swap, if the scenario has one


class Policy(Protocol):
    """A scheduler's order and admission rule; a plain object that returns decisions.

    The engine calls :meth:`plan` at a step boundary, carries the plan out and tells the policy so by
    :meth:`begin`. ``plan`` leaves no trace: asked twice with nothing between, it answers the same.

    A policy whose attribute ``asynchronous`` is true is planned for while a step runs: a plan then sees what
    had arrived when the step before it began. One whose attribute ``groups`` is true counts a sequence as
    its ``width``.
    """

    def __init__(self, surroundings: Surroundings) -> None: ...

    @property
    def waiting(self) -> int:
        """How many sequences wait."""
        ...

    def accepts(self, sequence: Sequence) -> bool:
        """Whether a request is taken at all; one that is not is rejected at once, and counted."""
        ...

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives."""
        ...

    def plan(self, now_s: float) -> Plan:
        """What the step that begins now should do."""
        ...

    def begin(self, plan: Plan) -> None:
        """The plan is carried out: its admitted leave the queue, its preempted return to it."""
        ...

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """A sequence ended after so many tokens: all that a policy ever learns of true lengths."""
        ...

    def stable_steps(self) -> int:
        """For how many steps :meth:`plan` would go on returning the plain decode plan it just returned.

        Assumes that nothing arrives, nothing ends and the memory suffices. 1 is always safe.
        """
        ...

    def timer_s(self) -> float:
        """When :meth:`plan` may return something else by itself, in seconds; infinity if it will not.

        A stride ends at the first boundary at or after it, and an idle instance wakes then.
        """
        ...

    def arrival_matters(self, sequence: Sequence) -> bool:
        """Whether a sequence that was just added could change the plain decode plan under way."""
        ...

    def head(self) -> Sequence | None:
        """The sequence that would be admitted next, for error messages and observers."""
        ...
