"""One request at a time."""

from __future__ import annotations

from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import Order
from servsim.scheduler.policy import Surroundings

__all__ = ["Serial"]


class Serial(VllmV1Batching):
    """One request at a time from first to last token, as Ollama or llama.cpp with one slot serves them.

    ``max_num_seqs`` is 1 whatever the scenario says; prompts longer than ``max_num_batched_tokens`` are
    prefilled in chunks of it (llama.cpp's ``n_batch`` plays this part). Any order and any admission rule may be given.

    Source: the serial backend behind Clairvoyant's proxy.
    """

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        self.max_num_seqs = 1
