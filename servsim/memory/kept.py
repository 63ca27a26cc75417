"""How much of a sequence's KV is kept, or read, where that is less than all of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KvBounds"]

_FOREVER = 1 << 60


@dataclass(frozen=True, slots=True)
class KvBounds:
    """Of ``prompt_tokens`` in the prompt at most ``prompt`` count, and of all tokens at most ``total``.

    ``prompt`` is eviction to a budget when the prefill has ended (SnapKV), ``total`` one at every step (H2O), a
    sliding window, or a sparse read.
    """

    prompt: int | None = None
    total: int | None = None

    def of(self, prompt_tokens: int, tokens: int) -> int:
        """How many of the first ``tokens`` tokens count."""
        if self.prompt is not None and prompt_tokens > self.prompt:
            tokens -= min(tokens, prompt_tokens) - min(tokens, self.prompt)
        return tokens if self.total is None else min(tokens, self.total)

    def growing_steps(self, prompt_tokens: int, tokens: int) -> int:
        """For how many more tokens, beyond a prompt that is all there, each one counts."""
        return _FOREVER if self.total is None else self.total - self.of(prompt_tokens, tokens)
