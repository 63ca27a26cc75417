"""A scheduler put together from a batching, an order and an admission rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from servsim.scenario.plug_in import PlugInSpec
from servsim.scheduler.admissions import Anyone
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import ArrivalOrder
from servsim.scheduler.policy import Policy, Surroundings

__all__ = [
    "AdmissionPart",
    "AnyoneAdmission",
    "ArrivalFirst",
    "BatchingPart",
    "Combined",
    "CombinedParameters",
    "OrderPart",
]


class _Part(PlugInSpec):
    """A part by name, with its parameters beside the name."""

    key: ClassVar[str] = "name"

    def __str__(self) -> str:
        return str(getattr(self, self.key))

    def build(self, surroundings: Surroundings, *parts: Any) -> Any:
        """The part, with its own parameters in the surroundings."""
        return self.plug_in(replace(surroundings, parameters=self.parameters), *parts)


class BatchingPart(_Part):
    """How steps are composed: a name, or a name with parameters."""

    kind: ClassVar[str] = "batchings"

    name: str = Field("vllm_v1", description="What composes the steps of prefills and decoders.")


class OrderPart(_Part):
    """Who waits in which place: a name, or a name with parameters."""

    kind: ClassVar[str] = "orders"

    name: str = Field("fcfs", description="The order of the waiting, and who among the running yields first.")


class AdmissionPart(_Part):
    """Whether the head of the line is let in: a name, or a name with parameters."""

    kind: ClassVar[str] = "admissions"

    name: str = Field("anyone", description="The rule on the head of the line.")


_NAMED = BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value)


class CombinedParameters(BaseModel):
    """What a scenario may say about a scheduler put together from parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batching: Annotated[BatchingPart, _NAMED] = Field(
        default_factory=lambda: BatchingPart(name="vllm_v1"), description="what composes the steps"
    )
    order: Annotated[OrderPart, _NAMED] = Field(
        default_factory=lambda: OrderPart(name="fcfs"), description="who waits in which place"
    )
    admission: Annotated[AdmissionPart, _NAMED] = Field(
        default_factory=lambda: AdmissionPart(name="anyone"), description="the rule on the head of the line"
    )


class Combined:
    """A batching, an order and an admission rule of one's choice, each by name or with parameters.

    ``{policy: combined, batching: vllm_v1, order: sjf, admission: {name: past_future, reserve: 0.1}}``. What is made is
    the batching itself, ``batching(surroundings, order, admission)``. Orders and rules are made from the
    surroundings with their own parameters in them. A whole policy may stand for an order or a rule: what it would
    have used is taken, and the rest of it is not.

    A batching keeps what makes it one, whatever the order: on LightLLM's batching the newest are paused first
    unless the order knows better, SGLang retracts who emitted least. An order that displaces running sequences
    (srpt, ltr, trail) does so only on the batching ``displacing``; elsewhere it orders the waiting, and names victims.
    """

    Parameters = CombinedParameters

    def __new__(cls, surroundings: Surroundings) -> Any:
        """The batching, with its order and rule in it."""
        own = surroundings.parameters
        settings = own if isinstance(own, CombinedParameters) else CombinedParameters()
        order, admission = settings.order.build(surroundings), settings.admission.build(surroundings)
        if isinstance(order, LinePolicy):
            order = order.queue
        if isinstance(admission, LinePolicy):
            admission = admission.admission
        policy: Policy = settings.batching.build(surroundings, order, admission)
        return policy


class ArrivalFirst(ArrivalOrder):
    """First come, first served; a preempted sequence goes to the front."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__()


class AnyoneAdmission(Anyone):
    """No rule: whoever finds memory, budget and a place is let in."""

    def __init__(self, surroundings: Surroundings) -> None:
        pass
