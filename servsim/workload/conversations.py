"""Requests whose content is known, drawn session by session: shared prefixes, and turns that repeat what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from servsim.errors import ScenarioError
from servsim.scenario.workload_spec import SyntheticWorkload
from servsim.streams import Streams
from servsim.workload.arrivals import arrival_times
from servsim.workload.blocks import Floats, Ints, RequestBlock, Turns
from servsim.workload.contents import Contents
from servsim.workload.lengths import length_pairs, quantiles
from servsim.workload.mixture import Mixture, drawn_lengths
from servsim.workload.prefixes import Prefixes
from servsim.workload.times import time_quantiles

__all__ = ["conversation_blocks"]

_MOST_TURNS = 1 << 16
_ROWS_PER_SESSION = 64  # so many times fewer sessions than requests are drawn at once
_STREAMS = ("classes", "prefixes", "lengths.prompt", "lengths.output", "sessions.turns", "sessions.think_time")
_NO_LIMIT = (1 << 63) - 1

_Values = TypeVar("_Values", Ints, Floats)


def conversation_blocks(
    spec: SyntheticWorkload, mixture: Mixture, streams: Streams, block_requests: int
) -> Iterator[RequestBlock]:
    """The turns of all sessions, numbered session by session, with think times and content.

    A workload without sessions has sessions of one turn, of which only the prompt's content is known. Raises
    ScenarioError for a session of more than 65,536 turns.
    """
    next_times = arrival_times(spec.arrivals, streams)
    drawing = _Drawing(spec, mixture, streams)
    at_once = max(1, block_requests // _ROWS_PER_SESSION) if any(mixture.sessions) else block_requests
    left = spec.num_requests
    while left is None or left > 0:
        asked = at_once if left is None else min(at_once, left)
        arrival_s = next_times(asked)
        ended = len(arrival_s) < asked
        if spec.duration_s is not None:
            late = int(np.count_nonzero(arrival_s >= spec.duration_s))
            ended, arrival_s = ended or late > 0, arrival_s[: len(arrival_s) - late]
        if len(arrival_s):
            block = drawing.block(arrival_s, left)
            left = None if left is None else left - len(block)
            yield block
        if ended:
            return


class _Rows(NamedTuple):
    """Turns of several sessions, session by session."""

    session: Ints  # which of the sessions that are drawn at once
    first: Ints  # rows of the first turns, one a session
    prompt_tokens: Ints
    output_tokens: Ints
    think_s: Floats


class _Drawing:
    """Sessions one after the other; each quantity has a random stream of its own, read in the order of the turns."""

    def __init__(self, spec: SyntheticWorkload, mixture: Mixture, streams: Streams) -> None:
        self._mixture = mixture
        self._unit = spec.tokens_per_hash
        self._prefixes = Prefixes(mixture.prefixes, streams, self._unit)
        self._draws = {name: streams.get(name).random for name in _STREAMS}
        self._sessions = any(mixture.sessions)
        self._turns = [quantiles(one.turns) if one else None for one in mixture.sessions]
        self._think_s = [time_quantiles(one.think_time_s) if one else None for one in mixture.sessions]
        # The lengths of first turns by class, then those of later ones.
        later = [one.lengths if one else None for one in mixture.sessions]
        opened = [
            first if one is None else length_pairs(one) for first, one in zip(mixture.lengths, later, strict=True)
        ]
        self._lengths = (*mixture.lengths, *opened)
        limits = [(one.max_context_tokens if one else None) or _NO_LIMIT for one in mixture.sessions]
        self._longest = np.array(limits, dtype=np.int64)
        self._given = 0
        self._given_sessions = 0
        self._next_id = self._prefixes.used_ids

    def block(self, arrival_s: Floats, most: int | None) -> RequestBlock:
        """The turns of the next sessions, which begin at these times; at most so many turns, the last session cut."""
        count = len(arrival_s)
        members = self._mixture.members(self._draws["classes"](count))
        prefixes = self._prefixes.choose(members, self._draws["prefixes"](count))
        rows = self._rows(members, prefixes.tokens)
        known = rows.prompt_tokens + rows.output_tokens if self._sessions else rows.prompt_tokens
        units = known // self._unit
        last = np.append(rows.first[1:], len(units)) - 1
        own_units = units[last] - prefixes.units
        own_id = self._next_id + np.cumsum(own_units) - own_units
        self._next_id += int(own_units.sum())
        starts_s = np.full(len(units), np.nan)
        starts_s[rows.first] = arrival_s
        kept = slice(most)
        who, session = members[rows.session][kept], rows.session[kept]
        output_tokens = rows.output_tokens[kept]
        turns = Turns(self._given_sessions + session, rows.think_s[kept]) if self._sessions else None
        block = RequestBlock(
            first_request_id=self._given,
            arrival_s=starts_s[kept],
            prompt_tokens=rows.prompt_tokens[kept],
            output_tokens=output_tokens,
            max_tokens=np.maximum(self._mixture.max_tokens[who], output_tokens),
            tenant=self._mixture.tenant[who],
            slo_class=self._mixture.slo_class[who],
            priority=self._mixture.priority[who],
            hash_ids=Contents(prefixes.first_id[session], prefixes.units[session], own_id[session], units[kept]),
            turns=turns,
        )
        self._given += len(block)
        self._given_sessions += count
        return block

    def _rows(self, members: Ints, prefix_tokens: Ints) -> _Rows:
        """The turns of sessions of these classes, whose prompts begin with so many tokens of a prefix."""
        session, first = self._turns_of(members)
        who = members[session]
        is_first = np.zeros(len(session), dtype=bool)
        is_first[first] = True
        kind = np.where(is_first, who, who + len(self._mixture.lengths))
        uniforms = self._draws["lengths.prompt"](len(session)), self._draws["lengths.output"](len(session))
        new_tokens, output_tokens = drawn_lengths(self._lengths, kind, *uniforms)
        said = np.cumsum(new_tokens + output_tokens)
        before_session = (said - new_tokens - output_tokens)[first]
        prompt_tokens = prefix_tokens[session] + said - output_tokens - before_session[session]
        think_s = self._thoughts(who)
        think_s[first] = 0.0
        # Contexts only grow, so that a session's turns that stay within its limit are its first ones.
        kept = is_first | (prompt_tokens + output_tokens <= self._longest[who])
        return _Rows(
            session[kept], np.flatnonzero(is_first[kept]), prompt_tokens[kept], output_tokens[kept], think_s[kept]
        )

    def _turns_of(self, members: Ints) -> tuple[Ints, Ints]:
        """The session of each turn, and the row of each session's first one."""
        if not self._sessions:
            numbers = np.arange(len(members))
            return numbers, numbers
        turns = _by_class(self._turns, members, self._draws["sessions.turns"], np.ones(len(members), dtype=np.int64))
        if turns.max() > _MOST_TURNS:
            raise ScenarioError(
                f"a session of {int(turns.max()):,} turns was drawn",
                remedy=f"give workload.sessions.turns a max; a session has at most {_MOST_TURNS:,}",
            )
        return np.repeat(np.arange(len(members)), turns), np.cumsum(turns) - turns

    def _thoughts(self, who: Ints) -> Floats:
        if not self._sessions:
            return np.zeros(len(who))
        return _by_class(self._think_s, who, self._draws["sessions.think_time"], np.zeros(len(who)))


def _by_class(
    choices: list[Callable[[Floats], _Values] | None],
    members: Ints,
    draw: Callable[[int], Floats],
    values: _Values,
) -> _Values:
    """``values``, with a draw of its own class in the place of each whose class has one."""
    uniforms = draw(len(members))
    for number, quantile in enumerate(choices):
        if quantile is not None:
            mine = members == number
            values[mine] = quantile(uniforms[mine])
    return values
