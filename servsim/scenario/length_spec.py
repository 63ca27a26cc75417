"""How long prompts and outputs are, as a scenario writes it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from servsim.documents import Spec, WholeNumber, refusal

__all__ = [
    "ConditionalBin",
    "ConditionalLength",
    "ExplicitLengths",
    "FixedLength",
    "GeometricLength",
    "LengthPair",
    "LengthTable",
    "LognormalLength",
    "OutputDistribution",
    "QuantileLength",
    "QuantileTable",
    "TokenDistribution",
    "UniformLength",
    "ZipfLength",
    "form_of_lengths",
]

_MOST_TOKENS = 1 << 40
Tokens = Annotated[WholeNumber, Field(ge=1, le=_MOST_TOKENS)]


class FixedLength(Spec):
    """Always the same length; a plain number in the YAML means this."""

    distribution: Literal["fixed"] = Field("fixed", description="Always the same length.")
    value: Tokens = Field(description="The length, in tokens.")


class UniformLength(Spec):
    """Every whole number between two bounds equally often, the bounds included."""

    distribution: Literal["uniform"] = Field("uniform", description="Every length between the bounds equally often.")
    min: Tokens = Field(description="The shortest length, in tokens.")
    max: Tokens = Field(description="The longest length, in tokens.")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _check_order(self.min, self.max)
        return self


class LognormalLength(Spec):
    """exp(N(ln median, sigma)), rounded; beyond its bounds the distribution is cut off, not piled up on them."""

    distribution: Literal["lognormal"] = Field("lognormal", description="exp(N(ln median, sigma)), rounded.")
    median: float = Field(gt=0, le=_MOST_TOKENS, description="The median before the bounds cut it, in tokens.")
    sigma: float = Field(gt=0, le=20, description="The standard deviation of the logarithm.")
    min: Tokens = Field(1, description="The shortest length, in tokens.")
    max: Tokens | None = Field(None, description="The longest length, in tokens; by default there is none.")

    @model_validator(mode="after")
    def _check_something_left(self) -> Self:
        if self.max is not None:
            _check_order(self.min, self.max)
        low, high = self.bounds_sigma
        if 0.5 * (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) < 1e-6:
            raise refusal(
                "hardly anything of this distribution lies between its bounds",
                remedy="move min and max nearer to the median",
            )
        return self

    @property
    def bounds_sigma(self) -> tuple[float, float]:
        """The bounds as distances from the median in units of sigma, half a token wider than min and max."""
        low = (math.log(self.min - 0.5) - math.log(self.median)) / self.sigma
        high = math.inf if self.max is None else (math.log(self.max + 0.5) - math.log(self.median)) / self.sigma
        return low, high


class ZipfLength(Spec):
    """Length k with a probability proportional to k**-exponent, between two bounds."""

    distribution: Literal["zipf"] = Field("zipf", description="Length k in proportion to k**-exponent.")
    exponent: float = Field(ge=0, le=50, description="How fast long lengths grow rare.")
    min: Tokens = Field(1, description="The shortest length, in tokens.")
    max: Annotated[WholeNumber, Field(ge=1, le=1 << 24)] = Field(description="The longest length, in tokens.")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _check_order(self.min, self.max)
        return self


class GeometricLength(Spec):
    """1, 2, 3, ... tokens, each further one equally likely: the length without memory that M/M/1 needs."""

    distribution: Literal["geometric"] = Field("geometric", description="Each further token is equally likely.")
    mean: float = Field(ge=1, le=1e9, description="The mean length, in tokens.")


def _rising(table: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    for row in range(1, len(table)):
        (before, shorter), (quantile, length) = table[row - 1], table[row]
        if quantile <= before or length < shorter:
            raise refusal(
                f"[{quantile:g}, {length:g}] cannot follow [{before:g}, {shorter:g}]",
                remedy="quantiles must rise, and lengths must not fall",
                at=(row,),
            )
    if table[0][0] != 0 or table[-1][0] != 1:
        raise refusal(
            f"the quantiles run from {table[0][0]:g} to {table[-1][0]:g}", remedy="begin with 0 and end with 1"
        )
    return table


_Row = Annotated[tuple[float, Annotated[float, Field(ge=1, le=_MOST_TOKENS)]], Field(strict=False)]
QuantileTable = Annotated[tuple[_Row, ...], Field(min_length=2, strict=False), AfterValidator(_rising)]
"""Rows of (quantile from 0 to 1, length in tokens); lengths are linear in between, then rounded."""


class QuantileLength(Spec):
    """A table of quantiles: ``[[0, 2], [0.5, 374], [1, 14050]]``."""

    distribution: Literal["quantiles"] = Field("quantiles", description="A table of quantiles.")
    table: QuantileTable = Field(description="Rows of (quantile from 0 to 1, length in tokens), linear in between.")


class ConditionalBin(Spec):
    """The output lengths that go with a range of prompt lengths."""

    up_to: Tokens | None = Field(None, description="The longest prompt of this range; the last range has none.")
    table: QuantileTable = Field(description="Rows of (quantile from 0 to 1, length in tokens), linear in between.")


class ConditionalLength(Spec):
    """Output lengths that depend on the prompt's: a table of quantiles for each range of prompt lengths."""

    distribution: Literal["given_prompt"] = Field("given_prompt", description="It depends on the prompt's length.")
    bins: Annotated[tuple[ConditionalBin, ...], Field(min_length=1, strict=False)] = Field(
        description="Ranges of prompt lengths, the shortest first."
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.bins[-1].up_to is not None:
            raise refusal("longer prompts have no output length", remedy="leave out the last up_to", at=("bins",))
        limits = [0, *(one.up_to for one in self.bins[:-1])]
        for row in range(1, len(limits)):
            low, high = limits[row - 1], limits[row]
            if low is None or high is None or high <= low:
                remedy = "list the ranges in their order; only the last has no up_to"
                raise refusal("this range holds no prompt length", remedy=remedy, at=("bins", row - 1))
        return self


def _number_is_fixed(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"distribution": "fixed", "value": value} if is_number else value


_Marginal = FixedLength | GeometricLength | LognormalLength | QuantileLength | UniformLength | ZipfLength

TokenDistribution = Annotated[
    Annotated[_Marginal, Field(discriminator="distribution")], BeforeValidator(_number_is_fixed)
]
"""How many tokens: a number, or ``{distribution: ..., ...}``."""

OutputDistribution = Annotated[
    Annotated[_Marginal | ConditionalLength, Field(discriminator="distribution")], BeforeValidator(_number_is_fixed)
]
"""As :data:`TokenDistribution`, or ``given_prompt``."""


class LengthPair(Spec):
    """Prompt and output lengths as distributions, independent unless the output is ``given_prompt``."""

    prompt_tokens: TokenDistribution = Field(description="The prompt's length: a number or a distribution.")
    output_tokens: OutputDistribution = Field(description="The output's length: a number or a distribution.")


class LengthTable(Spec):
    """Pairs (prompt, output) from a CSV or Parquet file, each row drawn equally often, with replacement."""

    table: Annotated[Path, Field(strict=False)] = Field(description="The CSV or Parquet file.")
    prompt_column: str = Field("prompt_tokens", description="The column of prompt lengths, in tokens.")
    output_column: str = Field("output_tokens", description="The column of output lengths, in tokens.")


def form_of_lengths(value: Any) -> str:
    """The name of the model that lengths spelt out are meant for: LengthTable or LengthPair."""
    is_table = "table" in value if isinstance(value, dict) else isinstance(value, LengthTable)
    return "LengthTable" if is_table else "LengthPair"


ExplicitLengths = Annotated[
    Annotated[LengthPair, Tag("LengthPair")] | Annotated[LengthTable, Tag("LengthTable")],
    Discriminator(form_of_lengths),
]
"""Lengths spelt out: two distributions, or a table of pairs."""


def _check_order(low: int, high: int) -> None:
    if high < low:
        raise refusal(f"max ({high}) is below min ({low})", remedy="raise max or lower min", at=("max",))
