"""Shortest job first with linear ageing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.policy import Surroundings

__all__ = ["Ageing"]


class Ageing(VllmV1Batching):
    """Smallest size less tokens_per_s times the wait first, on vLLM v1's batching; shortest job first that ages.

    The key of a waiting sequence is ``size - tokens_per_s * (now - arrival_s)``. All keys sink alike, so the order
    never changes: it is that of ``size + tokens_per_s * arrival_s``, and nobody is overtaken by one who comes
    ``size / tokens_per_s`` seconds later or more: no one starves. 0 is shortest job first; the larger, the
    closer to first come, first served. A generic rule, with a default of our own.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        tokens_per_s: float = Field(
            10.0, ge=0, le=1e9, description="tokens by which a second of waiting makes a request look shorter"
        )
        size: Literal["output", "prompt"] = Field("output", description="what counts: predicted output, or prompt")

    def __init__(self, surroundings: Surroundings) -> None:
        self._given = surroundings.parameters or self.Parameters()
        super().__init__(surroundings)

    def order_key(self, sequence: Sequence) -> float:
        """The part of the key that differs between sequences."""
        size = sequence.predicted_tokens if self._given.size == "output" else sequence.prompt_tokens
        return size + self._given.tokens_per_s * sequence.arrival_s
