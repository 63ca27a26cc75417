"""Lengths of prompts and outputs, drawn by inverting distribution functions.

One uniform number makes one length, whatever the distribution: the lengths of a request stay comparable when a
distribution is changed, and nobody else's draws shift.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from servsim.errors import TraceError
from servsim.scenario.length_spec import (
    ConditionalLength,
    FixedLength,
    GeometricLength,
    LengthPair,
    LengthTable,
    LognormalLength,
    QuantileLength,
    TokenDistribution,
    UniformLength,
    ZipfLength,
)
from servsim.scenario.workload_files import named_lengths
from servsim.workload.blocks import Floats, Ints
from servsim.workload.columns import read_columns
from servsim.workload.normal import normal_cdf, normal_quantile
from servsim.workload.row_checks import token_counts

__all__ = ["LengthPairs", "length_pairs", "quantiles"]

LengthPairs = Callable[[Floats, Floats], tuple[Ints, Ints]]
"""``pairs(u, v)``: prompt and output lengths made of two arrays of uniform numbers from [0, 1)."""

_Quantiles = Callable[[Floats], Ints]


def length_pairs(spec: str | LengthPair | LengthTable) -> LengthPairs:
    """What turns uniform numbers into lengths; raises ScenarioError or TraceError for a file that is wrong."""
    lengths = named_lengths(spec) if isinstance(spec, str) else spec
    if isinstance(lengths, LengthTable):
        return _table_pairs(lengths)
    prompts = quantiles(lengths.prompt_tokens)
    if isinstance(lengths.output_tokens, ConditionalLength):
        given_prompt = _given_prompt(lengths.output_tokens)

        def dependent(u: Floats, v: Floats) -> tuple[Ints, Ints]:
            prompt_tokens = prompts(u)
            return prompt_tokens, given_prompt(prompt_tokens, v)

        return dependent
    outputs = quantiles(lengths.output_tokens)
    return lambda u, v: (prompts(u), outputs(v))


def quantiles(spec: TokenDistribution) -> _Quantiles:
    """The quantile function of a distribution: lengths, at least 1, for an array of numbers from [0, 1)."""
    match spec:
        case FixedLength():
            return lambda u: np.full(len(u), spec.value, dtype=np.int64)
        case UniformLength():
            return lambda u: spec.min + np.floor(u * (spec.max - spec.min + 1)).astype(np.int64)
        case LognormalLength():
            return _lognormal(spec)
        case ZipfLength():
            values = np.arange(spec.min, spec.max + 1)
            reached = np.cumsum((values / spec.min) ** -spec.exponent)
            reached /= reached[-1]
            return lambda u: values[np.searchsorted(reached, u, side="right")]
        case GeometricLength():
            return _geometric(spec)
        case QuantileLength():
            return _interpolated(np.array(spec.table))


def _lognormal(spec: LognormalLength) -> _Quantiles:
    low, high = (normal_cdf(bound) for bound in spec.bounds_sigma)
    longest = spec.max if spec.max is not None else 1 << 40

    def draw(u: Floats) -> Ints:
        tokens = spec.median * np.exp(spec.sigma * normal_quantile(low + u * (high - low)))
        # Rounding of the bounds themselves may end half a token outside.
        return np.clip(np.rint(tokens), spec.min, longest).astype(np.int64)

    return draw


def _geometric(spec: GeometricLength) -> _Quantiles:
    if spec.mean == 1:
        return lambda u: np.ones(len(u), dtype=np.int64)
    log_of_another = np.log1p(-1 / spec.mean)
    return lambda u: np.maximum(np.ceil(np.log1p(-u) / log_of_another), 1).astype(np.int64)


def _interpolated(table: Floats) -> _Quantiles:
    return lambda u: np.rint(np.interp(u, table[:, 0], table[:, 1])).astype(np.int64)


def _given_prompt(spec: ConditionalLength) -> Callable[[Ints, Floats], Ints]:
    limits = np.array([one.up_to for one in spec.bins[:-1]], dtype=np.int64)
    tables = [_interpolated(np.array(one.table)) for one in spec.bins]

    def draw(prompt_tokens: Ints, v: Floats) -> Ints:
        bins = np.searchsorted(limits, prompt_tokens, side="left")
        outputs = np.empty(len(v), dtype=np.int64)
        for number, table in enumerate(tables):
            members = bins == number
            outputs[members] = table(v[members])
        return outputs

    return draw


def _table_pairs(spec: LengthTable) -> LengthPairs:
    prompt_tokens, output_tokens = _read_pairs(spec.table, spec.prompt_column, spec.output_column)

    def draw(u: Floats, v: Floats) -> tuple[Ints, Ints]:
        rows = np.floor(u * len(prompt_tokens)).astype(np.int64)
        return prompt_tokens[rows], output_tokens[rows]

    return draw


def _read_pairs(path: Path, prompt_column: str, output_column: str) -> tuple[Ints, Ints]:
    columns = read_columns(path, {prompt_column: "number", output_column: "number"})
    if len(columns) == 0:
        raise TraceError("the table has no rows", place=str(path), remedy="give at least one pair of lengths")
    pairs = [token_counts(columns.numbers(name), name, columns.place) for name in (prompt_column, output_column)]
    return pairs[0], pairs[1]
