"""Who gets tokens next, and which instance a request goes to, as a scenario writes it."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from servsim.documents import KeyPath, WholeNumber, refusal
from servsim.scenario.plug_in import PlugInSpec

__all__ = ["Batching", "PredictorSpec", "Router", "RouterSpec", "SchedulerSpec", "batching_of"]


def _named(key: str) -> BeforeValidator:
    """Lets a bare name stand for a plug-in without parameters."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class PredictorSpec(PlugInSpec):
    """What a policy believes about output lengths: ``oracle`` or ``{name: ..., parameters...}``."""

    kind: ClassVar[str] = "predictors"
    key: ClassVar[str] = "name"

    name: str = Field(description="The predictor of output lengths.")


class SchedulerSpec(PlugInSpec):
    """A policy and its budgets; other keys are the policy's own parameters.

    vLLM refuses a token budget below ``max_num_seqs``, since each running sequence needs a token a step.
    """

    kind: ClassVar[str] = "schedulers"
    key: ClassVar[str] = "policy"

    policy: str = Field("fcfs", description="The rule by which waiting and running requests are ordered and admitted.")
    max_num_seqs: WholeNumber = Field(256, ge=1, description="At most this many sequences run at once.")
    max_num_batched_tokens: WholeNumber = Field(2048, ge=1, description="Tokens that a step may compute, all told.")
    predictor: Annotated[PredictorSpec, _named("name")] = Field(
        default_factory=lambda: PredictorSpec(name="oracle"),
        description="What the policy believes about output lengths: a name, or a name with parameters.",
    )

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.max_num_batched_tokens >= self.max_num_seqs:
            return self
        raise refusal(
            f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below max_num_seqs ({self.max_num_seqs}),"
            " which vLLM refuses too",
            remedy="raise max_num_batched_tokens or lower max_num_seqs",
            at=("max_num_batched_tokens" if "max_num_batched_tokens" in self.model_fields_set else "max_num_seqs",),
        )


class Batching(NamedTuple):
    """What composes the steps of a scheduler: the policy itself, or the batching of one put together from parts."""

    name: str  # as a message calls it
    spec: PlugInSpec
    place: KeyPath  # of its parameters


def batching_of(scheduler: SchedulerSpec) -> Batching:
    """What composes the steps, and so says whether groups are held together and where victims are swapped to."""
    place = ("instance", "scheduler")
    part = getattr(scheduler.parameters, "batching", None)
    if not isinstance(part, PlugInSpec):
        return Batching(scheduler.policy, scheduler, place)
    return Batching(f"{scheduler.policy} with the batching {part}", part, (*place, "batching"))


class RouterSpec(PlugInSpec):
    """The rule that spreads requests over instances: ``random`` or ``{policy: ..., parameters...}``."""

    kind: ClassVar[str] = "routers"
    key: ClassVar[str] = "policy"

    policy: str = Field("round_robin", description="The rule that picks an instance for each request.")


Router = Annotated[RouterSpec, _named("policy")]
