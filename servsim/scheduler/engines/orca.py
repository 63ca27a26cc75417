"""Orca: iteration-level batching of whole prompts under a reservation."""

from __future__ import annotations

from pydantic import Field

from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.engines.reservation import Reservation, ReservationParameters
from servsim.scheduler.orders import Order
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["Orca", "OrcaParameters"]


class OrcaParameters(ReservationParameters):
    """What a scenario may say about Orca."""

    max_batch: int | None = Field(None, ge=1, description="most sequences in an iteration; max_num_seqs by default")


class Orca(VllmV1Batching):
    """Orca (OSDI 2022): iteration-level batching, prompts whole and mixed with decodes, KV reserved at admission.

    Every started sequence is in every iteration; the head of the line joins as soon as its reservation fits
    (:class:`Reservation`), and is not skipped while it does not. An iteration prefills prompts whole, so that
    ``max_num_batched_tokens`` bounds nothing here. Nobody is preempted unless a prediction was too short; then the
    newest is, by recompute. One scheduler over several batches in flight is not modelled; see
    :class:`servsim.cluster.virtual_engines.VirtualEngines`.

    Any order may be given, and any admission rule in place of the reservation; with one that knows nothing
    of memory the newest are preempted for it.

    Sources: Yu et al., OSDI 2022; reservations as Vidur and sarathi-serve rebuild them (``max``), ``pow2`` and
    ``oracle`` as the PagedAttention paper (SOSP 2023) describes its baselines; ``declared``, which is how we
    understand Orca's own rule, is weakly sourced.
    """

    Parameters = OrcaParameters

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        settings = surroundings.parameters or OrcaParameters()
        super().__init__(surroundings, order, admission or Reservation(surroundings))
        self.max_num_seqs = min(self.max_num_seqs, settings.max_batch or self.max_num_seqs)
        self.max_num_batched_tokens = UNBOUNDED
