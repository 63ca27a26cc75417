"""What requests have in common with earlier ones, as a scenario writes it: shared prefixes, and turns of a session."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal
from servsim.scenario.arrival_spec import TimeDistribution
from servsim.scenario.length_spec import TokenDistribution
from servsim.scenario.workload_files import LengthSpec

__all__ = ["PrefixSpec", "SessionSpec"]

_MOST_PREFIXES = 1 << 20

Share = Annotated[float, Field(gt=0, le=1e9)]


class PrefixSpec(Spec):
    """Prefixes that prompts share, say system prompts: each request, or session, begins with one of them.

    A prefix stands before the prompt that ``lengths`` describes and makes it longer by its tokens, as
    ``--random-prefix-len`` of ``vllm bench serve`` does. Without ``shares``, prefix k of 1, 2, ... is taken in
    proportion to ``k**-zipf_exponent``: equally often where the exponent is 0.
    """

    count: Annotated[WholeNumber, Field(ge=1, le=_MOST_PREFIXES)] = Field(1, description="How many there are.")
    tokens: TokenDistribution = Field(description="How long each of them is: a number, or a distribution drawn once.")
    zipf_exponent: float = Field(0.0, ge=0, le=50, description="How fast the later ones grow rare; 0: equally often.")
    shares: Annotated[tuple[Share, ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="How often each is taken, instead of zipf_exponent; shares need not add up to 1."
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.shares is None:
            return self
        if self.zipf_exponent:
            raise refusal("both shares and zipf_exponent are given", remedy="leave one out", at=("zipf_exponent",))
        if len(self.shares) != self.count:
            message = f"{len(self.shares)} shares, but count is {self.count}"
            raise refusal(message, remedy="give one share for each prefix", at=("shares",))
        return self


class SessionSpec(Spec):
    """Conversations: a later turn repeats all that was said before, and arrives when its user has thought.

    Sessions begin when ``arrivals`` says. Turn k's prompt is that of turn k-1, its answer, and new text; it arrives
    ``think_time_s`` after that answer ended. The user may be a program: an agent's pause is then the run of a tool, and
    the new text what the tool gave back.
    """

    turns: TokenDistribution = Field(description="How many turns a session has: a number or a distribution.")
    think_time_s: TimeDistribution = Field(
        description="From the end of an answer to the next turn: a number or a distribution."
    )
    lengths: LengthSpec | None = Field(
        None, description="The new text and the answers of later turns; by default as those of the first turn."
    )
    max_context_tokens: Annotated[WholeNumber, Field(ge=1, le=1 << 40)] | None = Field(
        None, description="A session ends before a later turn whose prompt and answer together would be longer."
    )
