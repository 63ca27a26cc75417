"""The running requests as admission rules weigh them: prompt, declared bound, progress, and what they lack."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence
from servsim.scheduler.progress import Progress
from servsim.scheduler.running import Running

__all__ = ["BatchState"]

Tokens = NDArray[np.int64]


class BatchState(Progress):
    """A :class:`Progress` whose marks are the prompt and the declared bound of each running request."""

    def __init__(self, running: Running) -> None:
        super().__init__(running, lambda sequence: sequence.prompt_tokens, lambda sequence: sequence.max_tokens)

    def state(self) -> tuple[Tokens, Tokens, Tokens]:
        """Prompt, declared bound and generated tokens of each."""
        prompt, bound = self.all_marks().astype(np.int64)
        return prompt, bound, self.generated()

    def lacking(self, loading: Iterable[Sequence] = ()) -> Tokens:
        """Tokens that each must still compute before it emits its next: 1 for a decoder; ``loading``: KV on its way."""
        lacking = np.ones(len(self.members), dtype=np.int64)
        for sequence in (*self._running.prefilling, *loading):
            lacking[self._places[sequence]] = sequence.total_tokens - sequence.kv_tokens
        return lacking
