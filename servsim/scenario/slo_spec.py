"""What a request must keep to meet its SLO, and which requests count, as a scenario writes it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from servsim.documents import Spec, refusal

__all__ = ["MetricsSpec", "SloBounds", "SloSpec"]


class SloBounds(Spec):
    """Upper bounds on latencies, each in seconds; at least one is given."""

    ttft_s: float | None = Field(None, gt=0, description="Time to first token, in seconds.")
    tpot_s: float | None = Field(None, gt=0, description="Time per output token after the first, in seconds.")
    e2e_s: float | None = Field(None, gt=0, description="Time from arrival to the last token, in seconds.")

    @model_validator(mode="after")
    def _check_some(self) -> Self:
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise refusal("no bound is given", remedy="give at least one of ttft_s, tpot_s and e2e_s")
        return self


def _form(value: Any) -> str:
    by_class = isinstance(value, dict) and any(isinstance(item, dict | SloBounds) for item in value.values())
    return "<by class>" if by_class else "<bounds>"


# The tags are no possible keys, so that a message's path cannot confuse them with one.
SloSpec = Annotated[
    Annotated[SloBounds, Tag("<bounds>")] | Annotated[dict[str, SloBounds], Tag("<by class>")],
    Discriminator(_form),
]


class MetricsSpec(Spec):
    """Which requests the measured window holds: those that arrive after the warm-up and before the cool-down."""

    warmup_s: float = Field(0.0, ge=0, description="Requests arriving earlier than this are not measured.")
    cooldown_s: float = Field(0.0, ge=0, description="Nor are those arriving in the last seconds of arrivals.")
