"""Shortest prompt first."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching

__all__ = ["ShortestPromptFirst"]


class ShortestPromptFirst(VllmV1Batching):
    """Shortest prompt first on vLLM v1's batching; what inference-sim and others call SJF.

    It needs no predictor, and knows nothing of outputs. Running sequences are not displaced; when memory runs out the
    one with the longest prompt is preempted. Prompts are counted whole: nothing is cached between requests here.
    """

    def order_key(self, sequence: Sequence) -> float:
        """Prompt tokens."""
        return sequence.prompt_tokens
