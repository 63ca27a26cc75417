"""A stream of requests, handed out in blocks of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.request import Request
from servsim.workload.closed_loop import ClosedLoop

__all__ = ["BLOCK_REQUESTS", "Floats", "Ints", "RequestBlock", "RequestStream", "Turns"]

BLOCK_REQUESTS = 1 << 16  # 4 MB of arrays; what is drawn does not depend on it

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Turns:
    """Which requests of a block are turns of one session: those with one number, in their order, all in one block."""

    session: Ints  # numbers that rise from 0, session by session
    think_s: Floats  # from the end of the answer before to this turn; 0 for a session's first turn


@dataclass(frozen=True, slots=True)
class RequestBlock:
    """Requests with consecutive ids, as arrays of one length n, at most :data:`BLOCK_REQUESTS` without sessions.

    Arrivals do not fall, within a block and from block to block. In a closed loop the arrivals are 0 for the first
    ``concurrency`` requests (or sessions) of the stream and NaN for the others, which arrive when the simulation says
    so; NaN are those of later turns of a session, too.
    """

    first_request_id: int  # the others follow, one by one
    arrival_s: Floats
    prompt_tokens: Ints  # at least 1
    output_tokens: Ints  # at least 1; the truth, which policies do not see
    max_tokens: Ints  # the declared bound, at least output_tokens
    tenant: NDArray[np.int32]  # index into the stream's tenants
    slo_class: NDArray[np.int32]  # index into the stream's slo_classes
    priority: NDArray[np.int32]  # lower is more urgent
    hash_ids: Sequence[tuple[int, ...]] | None = None  # content of the prompts, of sessions' outputs too; None: unknown
    turns: Turns | None = None  # None: no request waits for the end of another
    further_outputs: Ints | None = None  # a row a request: lengths of its outputs but the longest, longest first
    beam_width: int = 1  # of all of them

    def __len__(self) -> int:
        return len(self.arrival_s)

    def requests(self, *, told: bool = True) -> Iterator[Request]:
        """The requests one by one; where not ``told``, without their hash_ids, of which a long prompt has thousands."""
        columns: list[Iterable[Any]] = [
            range(self.first_request_id, self.first_request_id + len(self)),
            self.arrival_s.tolist(),
            self.prompt_tokens.tolist(),
            self.output_tokens.tolist(),
            self.max_tokens.tolist(),
            self.tenant.tolist(),
            self.slo_class.tolist(),
            self.priority.tolist(),
            self.hash_ids if told and self.hash_ids is not None else repeat(()),
        ]
        if self.turns is not None:
            columns.append(self.turns.session.tolist())
        if self.further_outputs is not None or self.beam_width > 1:
            further = repeat(()) if self.further_outputs is None else map(tuple, self.further_outputs.tolist())
            session = () if self.turns is not None else (repeat(-1),)
            columns.extend((*session, further, repeat(self.beam_width)))
        return map(Request, *columns)


@dataclass(frozen=True, slots=True)
class RequestStream:
    """The requests of one simulation, in the order of their ids; :meth:`blocks` gives the same ones every time.

    With sessions these are the turns that are planned: one that is rejected, or that runs into ``duration_s``, takes
    the rest of its session with it.
    """

    make_blocks: Callable[[], Iterator[RequestBlock]]
    num_requests: int | None = None  # None: not known beforehand, since a duration ends the stream
    tenants: tuple[str, ...] = ("default",)
    slo_classes: tuple[str, ...] = ("default",)
    closed_loop: ClosedLoop | None = None
    sessions: bool = False  # whether there are turns that wait for the answer before them
    duration_s: float | None = None  # no request arrives at or after this time
    tokens_per_hash: int | None = None  # tokens that one of hash_ids stands for
    notes: tuple[str, ...] = ()  # what the summary has to tell about these requests, say dropped rows

    def blocks(self) -> Iterator[RequestBlock]:
        """The requests from the first one on, drawn or cut as they are asked for."""
        return self.make_blocks()
