"""A workload, as a scenario writes it: a trace to replay, or arrivals and lengths to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from servsim import registry
from servsim.documents import Spec, WholeNumber, refusal
from servsim.scenario.arrival_spec import ArrivalSpec, PiecewiseArrivals
from servsim.scenario.group_spec import BeamSpec, Samples, forked_outputs, requests_each
from servsim.scenario.plug_in import PlugInSpec
from servsim.scenario.session_spec import PrefixSpec, SessionSpec
from servsim.scenario.workload_files import LengthSpec

__all__ = ["ClassSpec", "LengthSpec", "SyntheticWorkload", "TraceWorkload", "WorkloadSpec"]

Requests = Annotated[WholeNumber, Field(ge=1, le=1 << 40)]
DeclaredTokens = Annotated[WholeNumber, Field(ge=1, le=1 << 31)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e12)]
Name = Annotated[str, Field(min_length=1)]


class ClassSpec(Spec):
    """A class of clients: its share of the requests, and what they look like."""

    name: Name = Field(description="What the class is called.")
    share: float = Field(gt=0, le=1e9, description="Its share of the requests; shares need not add up to 1.")
    tenant: Name | None = Field(None, description="Whose requests these are; by default the class's name.")
    slo_class: Name | None = Field(None, description="The SLO class; by default the class's name.")
    priority: Annotated[WholeNumber, Field(ge=-(1 << 31), lt=1 << 31)] = Field(
        0, description="Lower is more urgent, as in vLLM."
    )
    lengths: LengthSpec | None = Field(None, description="By default those of the workload.")
    max_tokens: DeclaredTokens | None = Field(None, description="By default that of the workload.")
    prefixes: PrefixSpec | None = Field(None, description="By default those of the workload.")
    sessions: SessionSpec | None = Field(None, description="By default those of the workload.")


_SAMPLES = "Answers to each prompt: a number of requests that arrive together, or keys that say who makes them."
_BEAMS = "A beam search for each request; by default there is none."


class SyntheticWorkload(Spec):
    """Requests drawn at random: arrivals, lengths and, where there are several, classes of clients.

    The stream ends after ``num_requests`` requests or before ``duration_s``, whichever comes first. With ``sessions``
    every turn is a request: ``arrivals`` says when sessions begin, the last session is cut short so that there are
    ``num_requests`` turns, and a session ends early where a turn is rejected or would arrive after ``duration_s``.
    """

    arrivals: ArrivalSpec = Field(description="When requests arrive.")
    lengths: LengthSpec | None = Field(None, description="How long prompts and outputs are; a name or spelt out.")
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="Classes of clients whose requests are mixed at random."
    )
    num_requests: Requests | None = Field(None, description="How many requests there are.")
    duration_s: PositiveSeconds | None = Field(None, description="No request arrives at or after this time.")
    max_tokens: DeclaredTokens = Field(
        1024, description="The bound on its output that a request declares; raised to its output where that is longer."
    )
    prefixes: PrefixSpec | None = Field(None, description="Prefixes that prompts share, say system prompts.")
    sessions: SessionSpec | None = Field(None, description="Conversations of several turns; by default there are none.")
    tokens_per_hash: Annotated[WholeNumber, Field(ge=1, le=1 << 20)] = Field(
        16, description="Tokens in a unit of content, where prefixes, sessions or samples tell what is equal."
    )

    samples: Samples = Field(1, description=_SAMPLES)
    beam_search: BeamSpec | None = Field(None, description=_BEAMS)

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        parts: tuple[SyntheticWorkload | ClassSpec, ...] = (self, *(self.classes or ()))
        waits = any(one.sessions is not None for one in parts)
        if requests_each(self.samples) > 1 and (waits or self.arrivals.process == "closed_loop"):
            remedy = "leave sessions and closed loops out"
            raise refusal("several answers cannot be waited for", remedy=remedy, at=("samples",))
        _check_group(self)
        if self.beam_search is not None or forked_outputs(self.samples) > 1:
            for name in ("prefixes", "sessions"):
                if any(getattr(one, name) is not None for one in parts):
                    message = "requests with several outputs have nothing in common with each other"
                    at = "samples" if self.beam_search is None else "beam_search"
                    raise refusal(message, remedy=f"leave {name} out", at=(at,))
        return self

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.num_requests is None and self.duration_s is None:
            raise refusal("nothing says when the workload ends", remedy="give num_requests or duration_s")
        if self.duration_s is None:
            _refuse_drying_up(self.arrivals)
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.classes is None and self.lengths is None:
            raise refusal("nothing says how long the requests are", remedy="give lengths, or classes that have them")
        names = []
        for row, one in enumerate(self.classes or ()):
            if one.name in names:
                raise refusal(f"a second class is called '{one.name}'", at=("classes", row, "name"))
            if one.lengths is None and self.lengths is None:
                message = f"nothing says how long the requests of '{one.name}' are"
                raise refusal(message, remedy="give lengths here or to the workload", at=("classes", row))
            names.append(one.name)
        return self


class TraceWorkload(PlugInSpec):
    """Requests of a trace file, in its order and, unless ``arrivals`` is given, at its times.

    ``start_s`` and ``duration_s`` cut a window out of the file in the file's own time, counted from its first request;
    ``time_scale`` then multiplies the gaps. The first request of the window arrives at 0. Other keys are parameters of
    the reader.
    """

    kind: ClassVar[str] = "trace_readers"
    key: ClassVar[str] = "format"

    trace: Annotated[Path, Field(strict=False)] = Field(description="The trace file.")
    format: str = Field(description="What reads it: azure, mooncake, burstgpt, table, ...")
    time_scale: float = Field(1.0, gt=0, le=1e9, description="Multiplies the gaps; 0.5 doubles the rate.")
    num_requests: Requests | None = Field(None, description="At most so many requests; by default all.")
    start_s: Seconds = Field(0.0, description="Where the window begins, in seconds of the file's time.")
    duration_s: PositiveSeconds | None = Field(None, description="How long the window is; by default to the end.")
    max_tokens: DeclaredTokens = Field(
        1024, description="The bound on its output that a request declares where the file gives none."
    )
    zero_tokens: Literal["refuse", "drop"] = Field(
        "refuse", description="Rows without prompt or output tokens are refused, or dropped and counted."
    )
    arrivals: ArrivalSpec | None = Field(None, description="Replaces the times of the file; needed where it has none.")
    samples: Samples = Field(1, description=_SAMPLES)
    beam_search: BeamSpec | None = Field(None, description=_BEAMS)

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        _check_group(self)
        if requests_each(self.samples) > 1 and self.arrivals is not None and self.arrivals.process == "closed_loop":
            raise refusal("several answers cannot be waited for", remedy="leave closed loops out", at=("samples",))
        return self

    @model_validator(mode="before")
    @classmethod
    def _refuse_lengths(cls, data: Any) -> Any:
        for key in ("lengths", "classes", "prefixes", "sessions"):
            if isinstance(data, dict) and key in data:
                raise refusal("a trace brings its own requests", remedy=f"leave {key} or the trace out", at=(key,))
        if isinstance(data, dict) and "format" not in data:
            readers = ", ".join(registry.names(cls.kind))
            raise refusal("this key is missing", remedy=f"what reads the trace is one of: {readers}", at=("format",))
        return data

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.arrivals is None:
            return self
        if self.time_scale != 1.0:
            message = "arrivals replaces the times of the file, so there is nothing to scale"
            raise refusal(message, remedy="leave out time_scale or arrivals", at=("time_scale",))
        _refuse_drying_up(self.arrivals)
        return self


def _check_group(workload: SyntheticWorkload | TraceWorkload) -> None:
    samples = workload.samples if isinstance(workload.samples, int) else workload.samples.count
    if workload.beam_search is not None and samples > 1:
        raise refusal("a beam search has one answer", remedy="leave samples or beam_search out", at=("beam_search",))


def _refuse_drying_up(arrivals: Any) -> None:
    if isinstance(arrivals, PiecewiseArrivals) and arrivals.ends:
        raise refusal(
            "the last rate is 0, so requests stop coming before the workload ends",
            remedy="give a period_s, a last rate above 0, or a duration_s for the workload",
            at=("arrivals", "rates"),
        )


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return "TraceWorkload" if "trace" in value or "format" in value else "SyntheticWorkload"
    return "TraceWorkload" if isinstance(value, TraceWorkload) else "SyntheticWorkload"


WorkloadSpec = Annotated[
    Annotated[SyntheticWorkload, Tag("SyntheticWorkload")] | Annotated[TraceWorkload, Tag("TraceWorkload")],
    Discriminator(_form),
]
"""A workload: a trace where the keys ``trace`` or ``format`` are given, else a synthetic one."""
