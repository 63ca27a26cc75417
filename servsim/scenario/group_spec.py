"""Several outputs of one request, as a scenario writes them: ``workload.samples`` and ``workload.beam_search``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from servsim.documents import Spec, WholeNumber, refusal
from servsim.documents.wording import found

__all__ = ["BeamSpec", "OutputsSpec", "Samples", "forked_outputs", "requests_each"]

Count = Annotated[WholeNumber, Field(ge=1, le=1024)]


class OutputsSpec(Spec):
    """Answers to each prompt, and who makes them."""

    count: Count = Field(description="Answers to each prompt (n in OpenAI's API).")
    forked: bool = Field(
        False,
        description="Whether they are one request whose prompt is computed once and whose blocks they share, as in "
        "vLLM v0; else each is a request of its own, as in v1.",
    )
    equally_long: bool = Field(
        False, description="Whether forked answers are all as long as the first; answers that are requests always are."
    )


class BeamSpec(Spec):
    """A beam search for each request; which beams survive is chance."""

    width: Annotated[WholeNumber, Field(ge=2, le=1024)] = Field(description="Beams that are kept.")
    reorder_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With each token after the first, the probability that a beam is dropped for a fork of another.",
    )


def _form(value: Any) -> str:
    return "<keys>" if isinstance(value, dict | OutputsSpec) else "<number>"


def _countable(value: Any) -> Any:
    """Refuse what is neither form; a number, right or wrong, is left to its own check."""
    if isinstance(value, list | tuple) or (isinstance(value, str) and not value.strip().isdecimal()):
        raise refusal(f"must be an integer or keys such as {{count: 4, forked: true}}, found {found(value)}")
    return value


Samples = Annotated[
    Annotated[Count, BeforeValidator(_countable), Tag("<number>")] | Annotated[OutputsSpec, Tag("<keys>")],
    Discriminator(_form),
]
"""A number of answers to each prompt, or an :class:`OutputsSpec`."""


def requests_each(samples: int | OutputsSpec) -> int:
    """Requests that stand in the place of one."""
    if isinstance(samples, OutputsSpec):
        return 1 if samples.forked else samples.count
    return samples


def forked_outputs(samples: int | OutputsSpec) -> int:
    """Outputs of each request."""
    return samples.count if isinstance(samples, OutputsSpec) and samples.forked else 1
