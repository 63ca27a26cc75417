"""Facts as they happen in a simulation: requests that ended, strides that passed, pauses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.records.columns import Columns

__all__ = ["FINISHED", "PAUSE_REASONS", "REJECTED", "STATUSES", "UNFINISHED", "Recorder", "Records"]

FINISHED, REJECTED, UNFINISHED = 0, 1, 2
STATUSES = ("finished", "rejected", "unfinished")
PAUSE_REASONS = ("preempted", "left_out", "swapped")

_REQUEST_TYPES = {
    "request_id": "i8",
    "arrival_s": "f8",
    "prompt_tokens": "i8",
    "output_tokens": "i8",
    "cached_tokens": "i8",
    "tenant": "i4",
    "slo_class": "i4",
    "instance": "i4",
    "scheduled_s": "f8",
    "first_token_s": "f8",
    "finish_s": "f8",
    "transfer_wait_s": "f8",
    "preemptions": "i4",
    "status": "i1",
}
_STRIDE_TYPES = {
    "instance": "i4",
    "start_s": "f8",
    "end_s": "f8",
    "steps": "i8",
    "first_step_s": "f8",
    "last_step_s": "f8",
    "prefill_tokens": "i4",
    "decode_seqs": "i4",
    "waiting": "i4",
    "kv_blocks_used": "i4",
    "kv_blocks_total": "i4",
    "kv_tokens_stored": "i8",
    "kv_tokens_reserved": "i8",
    "kv_external_fragmentation": "f8",
}
_PAUSE_TYPES = {"request_id": "i8", "start_s": "f8", "end_s": "f8", "reason": "i1"}


@dataclass(frozen=True, slots=True)
class Records:
    """All facts of one simulation, as columns (numpy arrays of one length a table).

    ``requests`` has one row for every submitted request, sorted by ``request_id``: ``tenant`` and
    ``slo_class`` are indices into :attr:`tenants` and :attr:`slo_classes`, ``instance`` is -1 for a
    request that never reached one, ``status`` an index into :data:`STATUSES`, and a time that never
    came is NaN. ``strides`` has one row a stride or a step with prefill, by instance and time; states in it are
    as of ``end_s``, before what finishes there is freed. ``pauses`` says when a started request
    emitted nothing: not at any t with ``start_s < t < end_s``, again at ``end_s``. ``memory`` has what the allocators
    of all instances report together. ``further_tokens`` says of each request how long its outputs
    other than the longest are in all, of a beam search its beams other than one; None where there are none.
    """

    requests: dict[str, NDArray[Any]]
    strides: dict[str, NDArray[Any]]
    pauses: dict[str, NDArray[Any]]
    tenants: tuple[str, ...] = ("default",)
    slo_classes: tuple[str, ...] = ("default",)
    notes: tuple[str, ...] = ()
    partial: bool = False
    memory: dict[str, float] = field(default_factory=dict)
    further_tokens: NDArray[np.int64] | None = None


@dataclass(slots=True, eq=False)
class Recorder:
    """Where a running simulation writes its facts down."""

    requests: Columns = field(default_factory=lambda: Columns(_REQUEST_TYPES))
    strides: Columns = field(default_factory=lambda: Columns(_STRIDE_TYPES))
    pauses: Columns = field(default_factory=lambda: Columns(_PAUSE_TYPES))
    memory: dict[str, float] = field(default_factory=dict)
    further_tokens: dict[int, int] = field(default_factory=dict)  # by request_id, of those that have several outputs

    def records(
        self,
        tenants: tuple[str, ...],
        slo_classes: tuple[str, ...],
        notes: tuple[str, ...] = (),
        partial: bool = False,
    ) -> Records:
        """What was written, sorted: requests by id, strides by instance and time, pauses by request and time. Once."""
        requests = _sorted(self.requests.take(), "request_id")
        return Records(
            requests=requests,
            strides=_sorted(self.strides.take(), "instance", "start_s"),
            pauses=_sorted(self.pauses.take(), "request_id", "start_s"),
            tenants=tenants,
            slo_classes=slo_classes,
            notes=notes,
            partial=partial,
            memory=self.memory,
            further_tokens=self._further(requests["request_id"]) if self.further_tokens else None,
        )

    def _further(self, request_id: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self.further_tokens.get(number, 0) for number in request_id.tolist()], dtype=np.int64)


def _sorted(columns: dict[str, NDArray[Any]], *keys: str) -> dict[str, NDArray[Any]]:
    """The table by its keys, the first one first; stable."""
    order = np.lexsort([columns[key] for key in reversed(keys)])
    if np.array_equal(order, np.arange(len(order))):
        return columns
    for name in columns:
        columns[name] = columns[name][order]
    return columns
