"""Shortest job first, by predicted output length."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching

__all__ = ["Sjf"]


class Sjf(VllmV1Batching):
    """Shortest predicted output first on vLLM v1's batching: its priority mode, the prediction as the priority.

    The key is the predicted total output, fixed at arrival (algorithms of the field often sort by prompt
    length under this name; this one does not). Running sequences are not displaced by shorter
    newcomers; when memory runs out, the longest predicted one is preempted.
    """

    def order_key(self, sequence: Sequence) -> float:
        """Predicted output tokens."""
        return sequence.predicted_tokens
