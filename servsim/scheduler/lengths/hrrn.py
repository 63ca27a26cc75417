"""Highest response ratio next, with prefilled tokens for a clock."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["Hrrn", "ResponseRatioOrder"]


class ResponseRatioOrder(Order):
    """The largest ratio of tokens prefilled meanwhile to tokens of its own prefill first.

    An instance counts the tokens it prefills. A waiting sequence has waited the count less what it was when it
    joined the line; that is divided by its prompt and, after a preemption, emitted tokens.
    With more than ``longest_line`` waiting the order is that of arrival.
    """

    def __init__(self, longest_line: int = 128) -> None:
        self._longest_line = longest_line
        self._line = KeyOrder(lambda sequence: 0.0)  # by arrival
        self._joined: dict[Sequence, int] = {}
        self._prefilled_tokens = 0
        self._ranked: list[Sequence] | None = None  # the line by ratio, until something changes it

    def __len__(self) -> int:
        return len(self._line)

    def push(self, sequence: Sequence) -> None:
        """It begins to wait."""
        self._line.push(sequence)
        self._joined[sequence] = self._prefilled_tokens
        self._ranked = None

    def push_preempted(self, sequence: Sequence) -> None:
        """It begins to wait anew, with all that it lost to be prefilled again."""
        self.push(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        if len(self._line) > self._longest_line:
            return self._line.peek(index)
        if self._ranked is None:
            self._ranked = sorted(map(self._line.peek, range(len(self._line))), key=self._rank)
        return self._ranked[index]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        for sequence in [self.peek(index) for index in range(count)]:
            self._line.remove(sequence)
            del self._joined[sequence]
        self._ranked = None

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """If it is the head, or makes the line so long that the oldest becomes the head."""
        return has_place and (self.peek(0) is sequence or len(self._line) == self._longest_line + 1)

    def began(self, plan: Plan) -> None:
        """Tokens are prefilled; those in line are older by them, those who just joined it as well."""
        if plan.prefills:
            self._prefilled_tokens += sum(tokens for _, tokens in plan.prefills)
            self._ranked = None

    def _rank(self, sequence: Sequence) -> tuple[float, float, int]:
        waited = self._prefilled_tokens - self._joined[sequence]
        return (-waited / sequence.total_tokens, sequence.arrival_s, sequence.request_id)


class Hrrn(VllmV1Batching):
    """Highest response ratio next on vLLM v1's batching: tokens prefilled while waiting over its own (SGLang).

    Ageing without a clock: a long prompt is overtaken by short ones until as much as itself was prefilled in
    front of it. In SGLang's way the line is kept by arrival when it is long (128).
    The divisor is prompt plus emitted tokens, with a prefix cache as well, where SGLang takes what its cache lacks.
    Victims of a lack of memory are the latest admitted, as in vLLM's default mode.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        longest_line: int = Field(
            128, ge=1, le=4096, description="more waiting requests than this are served in order of arrival"
        )

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        super().__init__(surroundings, ResponseRatioOrder(given.longest_line))
