"""A stream of requests, handed out in blocks of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servsim.workload.closed_loop import ClosedLoop

__all__ = ["BLOCK_REQUESTS", "Floats", "Ints", "RequestBlock", "RequestStream"]

BLOCK_REQUESTS = 1 << 16  # 4 MB of arrays; what is drawn does not depend on it

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RequestBlock:
    """Requests with consecutive ids, as arrays of one length n, at most :data:`BLOCK_REQUESTS`.

    Arrivals do not fall, within a block and from block to block. In a closed loop the arrivals are 0 for the first
    ``concurrency`` requests of the stream and NaN for the others, which arrive when the simulation says so.
    """

    first_request_id: int  # the others follow, one by one
    arrival_s: Floats
    prompt_tokens: Ints  # at least 1
    output_tokens: Ints  # at least 1; the truth, which policies do not see
    max_tokens: Ints  # the declared bound, at least output_tokens
    tenant: NDArray[np.int32]  # index into the stream's tenants
    slo_class: NDArray[np.int32]  # index into the stream's slo_classes
    priority: NDArray[np.int32]  # lower is more urgent
    hash_ids: list[tuple[int, ...]] | None = None  # content of the prompts' blocks, None where nothing is known

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class RequestStream:
    """The requests of one simulation, in the order of their ids; :meth:`blocks` gives the same ones every time."""

    make_blocks: Callable[[], Iterator[RequestBlock]]
    num_requests: int | None = None  # None: not known beforehand, since a duration ends the stream
    tenants: tuple[str, ...] = ("default",)
    slo_classes: tuple[str, ...] = ("default",)
    closed_loop: ClosedLoop | None = None
    tokens_per_hash: int | None = None  # prompt tokens that one of hash_ids stands for
    notes: tuple[str, ...] = ()  # what the summary has to tell about these requests, say dropped rows

    def blocks(self) -> Iterator[RequestBlock]:
        """The requests from the first one on, drawn or cut as they are asked for."""
        return self.make_blocks()
