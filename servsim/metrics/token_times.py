"""When tokens came: inter-token latencies of a run, token times of a request.

Records hold no row a token. In a row of ``strides`` with ``decode_seqs`` every decoding sequence emits a token at each
step's end, and a request decodes in every row between its first token and its last one, but for its
pauses; so both follow exactly from strides, requests and pauses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servsim.metrics.gaps import Gaps, Progressions
from servsim.records import FINISHED

if TYPE_CHECKING:
    from servsim.records import Records

__all__ = ["TokenGaps", "all_token_times", "inter_token_latencies", "step_ends", "token_times"]


def inter_token_latencies(records: Records) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every gap between two tokens of a finished request, as values in seconds and how often each occurs.

    Takes 16 bytes for each decode step of the run; :class:`TokenGaps` gives statistics without that.
    """
    return TokenGaps(records).of(records.requests["status"] == FINISHED).expand()


def token_times(records: Records, request_id: int) -> NDArray[np.float64]:
    """When each token of a finished request was emitted, in seconds: an array of ``output_tokens`` times.

    Raises KeyError for a request that is not there or did not finish.
    """
    row = int(np.searchsorted(records.requests["request_id"], request_id))
    known = row < len(records.requests["request_id"]) and records.requests["request_id"][row] == request_id
    if not known or records.requests["status"][row] != FINISHED:
        raise KeyError(f"request {request_id} is not among the finished ones")
    only = np.zeros(len(records.requests["request_id"]), dtype=bool)
    only[row] = True
    return next(_token_times(records, only))[1]


def all_token_times(records: Records) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Each finished request's id and :func:`token_times`, instance by instance."""
    yield from _token_times(records, records.requests["status"] == FINISHED)


class TokenGaps:
    """The inter-token latencies of a run, for any selection of its requests.

    Rows are those of ``records.strides`` followed by those of ``records.pauses``: the gap across a
    preemption is a row of its own.
    """

    def __init__(self, records: Records) -> None:
        strides, pauses = records.strides, _Pauses.of(records)
        self._records = records
        self._pauses = pauses
        self._stalls = _Stalls.of(strides)
        first, last, steps = self._stalls.without(strides)
        single = np.concatenate([self._stalls.first_step_s, pauses.end_s - pauses.start_s])
        self._rows = Progressions(
            low=np.concatenate([np.minimum(first, last), single]),
            high=np.concatenate([np.maximum(first, last), single]),
            steps=np.concatenate([steps, np.ones(len(single), dtype=np.int64)]),
        )

    def of(self, select: NDArray[np.bool_]) -> Gaps:
        """The gaps of the selected requests (an array with a row a request); unfinished ones have none."""
        requests, pauses = self._records.requests, self._pauses
        select = select & (requests["status"] == FINISHED)
        paused = select[pauses.request]
        weights = [np.empty(0, dtype=np.int64)]
        for instance, rows in _instances(self._records):
            mine = np.flatnonzero(select & (requests["instance"] == instance))
            held = np.flatnonzero(paused & (requests["instance"][pauses.request] == instance))
            middles = _middles(self._records, rows)
            joins = _after(middles, requests["first_token_s"][mine]), _after(middles, pauses.end_s[held])
            leaves = _after(middles, requests["finish_s"][mine]), _after(middles, pauses.start_s[held])
            size = len(middles) + 1
            changes = np.bincount(np.concatenate(joins), minlength=size)
            changes -= np.bincount(np.concatenate(leaves), minlength=size)
            weights.append(np.cumsum(changes)[:-1])
        return Gaps(self._rows, np.concatenate([self._stalls.share(np.concatenate(weights)), paused.astype(np.int64)]))


@dataclass(frozen=True, slots=True)
class _Stalls:
    """Steps without any decode, in which decoders wait: the gap of the next decode step spans them.

    A decoder that was there before a run of such rows has the gap of all of them and the decode step after; one
    whose prefill ended in the run has what followed. So row i of a run stands for those who were there
    in it and not in the row before, and the first step of the row after the run for those who joined in its last row.
    """

    row: NDArray[np.bool_]  # rows that stall
    goes_on: NDArray[np.bool_]  # rows that stall after another one
    span_s: NDArray[np.float64]  # of such a row: from its start to the end of the next decode step
    after: NDArray[np.int64]  # rows that decode right after one that stalls
    first_step_s: NDArray[np.float64]  # of each of them

    @classmethod
    def of(cls, strides: dict[str, NDArray[Any]]) -> _Stalls:
        row = strides["decode_seqs"] == 0
        follows = np.diff(strides["instance"], prepend=-1) == 0
        before = np.concatenate([[False], row[:-1]]) & follows
        after = np.flatnonzero(before & ~row)
        # The end of the next decode step, carried back over the run; a run that nobody decodes after carries none.
        next_row = np.searchsorted(after, np.flatnonzero(row))
        known = np.append(strides["start_s"][after] + strides["first_step_s"][after], np.nan)
        span_s = np.zeros(len(row))
        span_s[row] = np.nan_to_num(known[next_row] - strides["start_s"][row])
        return cls(row, row & before, span_s, after, strides["first_step_s"][after])

    def without(
        self, strides: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """First and last value and number of values of every row: a row after a run lacks its first step."""
        first, last = strides["first_step_s"].copy(), strides["last_step_s"].copy()
        steps = strides["steps"].copy()
        first[self.after] += ((last - first) / np.maximum(steps - 1, 1))[self.after]
        steps[self.after] -= 1
        first[self.row] = last[self.row] = self.span_s[self.row]
        steps[self.row] = 1
        alone = self.after[steps[self.after] == 0]
        first[alone] = last[alone]
        return first, last, steps

    def share(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Weights of the rows, then of the first steps after runs, from how many were there in each row."""
        shared = weights.copy()
        shared[1:][self.goes_on[1:]] -= weights[:-1][self.goes_on[1:]]
        return np.concatenate([shared, weights[self.after] - weights[self.after - 1]])


@dataclass(frozen=True, slots=True)
class _Pauses:
    """Pauses between two tokens: those before a first token, or never ended, hold no gap."""

    request: NDArray[np.int64]  # row of the request in records.requests
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]

    @classmethod
    def of(cls, records: Records) -> _Pauses:
        pauses, requests = records.pauses, records.requests
        row = np.searchsorted(requests["request_id"], pauses["request_id"])
        between = (pauses["start_s"] >= requests["first_token_s"][row]) & (pauses["end_s"] <= requests["finish_s"][row])
        return cls(row[between], pauses["start_s"][between], pauses["end_s"][between])


def _instances(records: Records) -> Iterator[tuple[int, slice]]:
    """Every instance with its rows of ``strides``, which are sorted by instance and time."""
    column = records.strides["instance"]
    starts = np.flatnonzero(np.diff(column, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(column)]):
        yield int(column[start]), slice(start, end)


def _middles(records: Records, rows: slice) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (records.strides["start_s"][rows] + records.strides["end_s"][rows]) / 2
    return middles


def _after(middles: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each end of a row, the place of the row that follows it.

    Compared with the middles of rows, so that rounding in the last place of a time decides nothing.
    """
    return np.searchsorted(middles, times_s)


def step_ends(strides: dict[str, NDArray[Any]], rows: slice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The end of every step in ``rows`` in seconds, and where each row's steps begin (one place more than rows)."""
    first, last = strides["first_step_s"][rows], strides["last_step_s"][rows]
    steps = strides["steps"][rows]
    begins = np.concatenate([[0], np.cumsum(steps)])
    done = np.arange(int(begins[-1])) - np.repeat(begins[:-1], steps) + 1
    # k steps of a progression from first by the slope d take k first + d k (k - 1) / 2.
    slope = np.repeat((last - first) / np.maximum(steps - 1, 1), steps)
    ends = np.repeat(strides["start_s"][rows], steps) + done * np.repeat(first, steps) + slope * (done * (done - 1) / 2)
    ends[begins[1:] - 1] = strides["end_s"][rows]
    return ends, begins


def _token_times(records: Records, select: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    requests, pauses = records.requests, _Pauses.of(records)
    for instance, rows in _instances(records):
        mine = np.flatnonzero(select & (requests["instance"] == instance))
        if not len(mine):
            continue
        middles = _middles(records, rows)
        begin = _after(middles, requests["first_token_s"][mine])
        end = _after(middles, requests["finish_s"][mine])
        offset = int(begin.min())  # only the rows that somebody selected decodes in are expanded
        selected = slice(rows.start + offset, rows.start + int(end.max()))
        ends_s, places = step_ends(records.strides, selected)
        emits = np.repeat(records.strides["decode_seqs"][selected] > 0, records.strides["steps"][selected])
        for row, first, last in zip(mine.tolist(), begin - offset, end - offset, strict=True):
            span = slice(places[first], places[max(first, last)])
            decoded = ends_s[span][emits[span]]
            held = slice(*np.searchsorted(pauses.request, [row, row + 1]))
            yield int(requests["request_id"][row]), _with_pauses(requests, row, decoded, pauses, held)


def _with_pauses(
    requests: dict[str, NDArray[Any]], row: int, decoded: NDArray[np.float64], pauses: _Pauses, held: slice
) -> NDArray[np.float64]:
    for start_s, end_s in zip(pauses.start_s[held], pauses.end_s[held], strict=True):
        # The last token before a pause is at its start; the next one at its end, whether or not others decoded then.
        tolerance_s = 1e-9 * max(1.0, end_s)
        before, after = decoded[decoded <= start_s + tolerance_s], decoded[decoded > end_s + tolerance_s]
        decoded = np.concatenate([before, [end_s], after])
    first = requests["first_token_s"][row]
    return np.concatenate([[first], decoded])
