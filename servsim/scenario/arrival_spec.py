"""When requests arrive, as a scenario writes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal

__all__ = [
    "ArrivalSpec",
    "ClosedLoopArrivals",
    "ConstantArrivals",
    "ExponentialTime",
    "FixedTime",
    "GammaArrivals",
    "LognormalTime",
    "MmppArrivals",
    "MmppState",
    "PiecewiseArrivals",
    "PiecewiseRate",
    "PoissonArrivals",
    "TimeDistribution",
    "UniformTime",
]

Rate = Annotated[float, Field(gt=0, le=1e9)]
RateOrZero = Annotated[float, Field(ge=0, le=1e9)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e12)]


class ConstantArrivals(Spec):
    """Request k arrives at k / rate, the first one at 0."""

    process: Literal["constant"] = Field("constant", description="Equal gaps.")
    rate_per_s: Rate = Field(description="Requests per second.")

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second in the long run."""
        return self.rate_per_s


class PoissonArrivals(Spec):
    """Independent exponential gaps, one before the first request too; another rate only rescales the same gaps."""

    process: Literal["poisson"] = Field("poisson", description="Independent exponential gaps.")
    rate_per_s: Rate = Field(description="Requests per second.")

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second in the long run."""
        return self.rate_per_s


class GammaArrivals(Spec):
    """Independent gamma gaps whose shape is ``burstiness``, as in ``vllm bench serve``.

    Below 1 requests come in bursts, 1 is Poisson, above 1 is more regular; the coefficient of variation of the gaps is
    1 / sqrt(burstiness), and may be given instead. vLLM stretches the gaps it drew to a fixed total; this does not.
    """

    process: Literal["gamma"] = Field("gamma", description="Independent gamma gaps.")
    rate_per_s: Rate = Field(description="Requests per second.")
    burstiness: Annotated[float, Field(ge=1e-4, le=1e6)] | None = Field(
        None, description="The shape of the gamma distribution; 1 is Poisson, less comes in bursts."
    )
    cv: Annotated[float, Field(ge=1e-3, le=100)] | None = Field(
        None, description="The coefficient of variation of the gaps, 1 / sqrt(burstiness); instead of burstiness."
    )

    @model_validator(mode="after")
    def _check_one_of_two(self) -> Self:
        if self.burstiness is None and self.cv is None:
            raise refusal("neither burstiness nor cv is given", remedy="give one; cv = 1 / sqrt(burstiness)")
        if self.burstiness is not None and self.cv is not None:
            raise refusal("both burstiness and cv are given", remedy="leave one out", at=("cv",))
        return self

    @property
    def shape(self) -> float:
        """The shape parameter of the gamma distribution, which vLLM calls burstiness."""
        if self.burstiness is not None:
            return self.burstiness
        assert self.cv is not None  # the validator saw to it
        return self.cv**-2

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second in the long run."""
        return self.rate_per_s


class MmppState(Spec):
    """A state of a Markov-modulated Poisson process; how long it lasts is exponential."""

    rate_per_s: RateOrZero = Field(description="Requests per second while the state lasts.")
    mean_dwell_s: PositiveSeconds = Field(description="How long the state lasts on average, in seconds.")


class MmppArrivals(Spec):
    """A Poisson process whose rate goes round through states; two states, one of rate 0, are on/off traffic.

    The first state is drawn from the shares of time that the states have, so that the process is stationary from the
    start.
    """

    process: Literal["mmpp"] = Field("mmpp", description="Poisson, at a rate that goes round through states.")
    states: Annotated[tuple[MmppState, ...], Field(min_length=2, strict=False)] = Field(
        description="The states, in the order in which they follow each other."
    )
    rate_scale: Rate = Field(1.0, description="Multiplies all rates, on the same draws.")

    @model_validator(mode="after")
    def _check_some_rate(self) -> Self:
        if all(state.rate_per_s == 0 for state in self.states):
            raise refusal("no state has a rate above 0", remedy="give one a rate_per_s above 0", at=("states",))
        return self

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second in the long run."""
        requests = sum(state.rate_per_s * state.mean_dwell_s for state in self.states)
        return self.rate_scale * requests / sum(state.mean_dwell_s for state in self.states)


class PiecewiseRate(Spec):
    """A rate that holds from its start until the next entry's."""

    start_s: Seconds = Field(description="When this rate begins, in seconds from the start.")
    rate_per_s: RateOrZero = Field(description="Requests per second from then on.")


class PiecewiseArrivals(Spec):
    """A Poisson process whose rate changes at given times, say over the day."""

    process: Literal["piecewise"] = Field("piecewise", description="Poisson, at rates that change at given times.")
    rates: Annotated[tuple[PiecewiseRate, ...], Field(min_length=1, strict=False)] = Field(
        description="The rates in the order of their starts, the first at 0."
    )
    period_s: PositiveSeconds | None = Field(
        None, description="The rates repeat after so many seconds; by default the last one stays."
    )
    rate_scale: Rate = Field(1.0, description="Multiplies all rates, on the same draws.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        starts = [one.start_s for one in self.rates]
        if starts[0] != 0:
            raise refusal("no rate is given before this one", remedy="begin at 0", at=("rates", 0, "start_s"))
        for row in range(1, len(starts)):
            if starts[row] <= starts[row - 1]:
                message = f"{starts[row]:g} does not come after {starts[row - 1]:g}"
                remedy = "list the rates in the order of their starts"
                raise refusal(message, remedy=remedy, at=("rates", row, "start_s"))
        if self.period_s is not None and self.period_s <= starts[-1]:
            message = f"the period ends before the last rate begins, at {starts[-1]:g} s"
            raise refusal(message, remedy="make the period longer", at=("period_s",))
        if all(one.rate_per_s == 0 for one in self.rates):
            raise refusal("no rate is above 0", remedy="give one above 0", at=("rates",))
        return self

    @property
    def ends(self) -> bool:
        """Whether requests stop coming: nothing repeats, and the last rate is 0."""
        return self.period_s is None and self.rates[-1].rate_per_s == 0

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second in the long run: over a period, or the last rate."""
        if self.period_s is None:
            return self.rate_scale * self.rates[-1].rate_per_s
        ends = [*(one.start_s for one in self.rates[1:]), self.period_s]
        requests = sum(one.rate_per_s * (end - one.start_s) for one, end in zip(self.rates, ends, strict=True))
        return self.rate_scale * requests / self.period_s


class FixedTime(Spec):
    """Always the same time; a plain number in the YAML means this."""

    distribution: Literal["fixed"] = Field("fixed", description="Always the same time.")
    value_s: Seconds = Field(description="The time, in seconds.")


class ExponentialTime(Spec):
    """An exponential time."""

    distribution: Literal["exponential"] = Field("exponential", description="Exponential.")
    mean_s: PositiveSeconds = Field(description="The mean, in seconds.")


class UniformTime(Spec):
    """Any time between two bounds."""

    distribution: Literal["uniform"] = Field("uniform", description="Any time between the bounds.")
    min_s: Seconds = Field(0.0, description="The shortest time, in seconds.")
    max_s: Seconds = Field(description="The longest time, in seconds.")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.max_s < self.min_s:
            raise refusal(f"max_s ({self.max_s:g}) is below min_s ({self.min_s:g})", at=("max_s",))
        return self


class LognormalTime(Spec):
    """exp(N(ln median, sigma))."""

    distribution: Literal["lognormal"] = Field("lognormal", description="exp(N(ln median_s, sigma)).")
    median_s: PositiveSeconds = Field(description="The median, in seconds.")
    sigma: float = Field(gt=0, le=20, description="The standard deviation of the logarithm.")


def _number_is_fixed(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"distribution": "fixed", "value_s": value} if is_number else value


TimeDistribution = Annotated[
    Annotated[FixedTime | ExponentialTime | UniformTime | LognormalTime, Field(discriminator="distribution")],
    BeforeValidator(_number_is_fixed),
]
"""How many seconds: a number, or ``{distribution: ..., ...}``."""


class ClosedLoopArrivals(Spec):
    """A number of users, each of whom waits for the answer, thinks, and asks again; all ask first at 0."""

    process: Literal["closed_loop"] = Field("closed_loop", description="Users who wait for their answers.")
    concurrency: Annotated[WholeNumber, Field(ge=1, le=1 << 24)] = Field(description="How many users there are.")
    think_time_s: TimeDistribution = Field(
        FixedTime(value_s=0.0), description="From an answer to the next question: a number or a distribution."
    )

    @property
    def mean_rate_per_s(self) -> None:
        """None: the rate is what the system makes of it."""
        return None


ArrivalSpec = Annotated[
    ConstantArrivals | PoissonArrivals | GammaArrivals | MmppArrivals | PiecewiseArrivals | ClosedLoopArrivals,
    Field(discriminator="process"),
]
"""``{process: ..., ...}``."""
