"""Pauses of sequences that have begun to emit tokens: written down when they emit again."""

from __future__ import annotations

from servsim.engine.facts import Facts
from servsim.request import Sequence

__all__ = ["Pauses"]


class Pauses:
    """Who misses decode steps, and who is about to emit again after that."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._decoded_s = 0.0  # when the decoders emitted last
        self.resuming: list[Sequence] = []
        """Who decodes again, and has not emitted since."""

    def begin(self, sequence: Sequence) -> None:
        """It emits none in the step that begins; its latest token came with a decode step or its own prefill."""
        if sequence in self.resuming:
            self.resuming.remove(sequence)
        elif sequence.first_token_s == sequence.first_token_s and sequence.paused_s != sequence.paused_s:
            sequence.paused_s = max(self._decoded_s, sequence.token_s)

    def decoded(self, now_s: float) -> None:
        """The decoders have emitted, and so those who had missed steps."""
        self._decoded_s = now_s
        for sequence in self.resuming:
            self._facts.paused(sequence, now_s)
        self.resuming.clear()
