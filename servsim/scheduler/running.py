"""Who runs in an instance, and how far the decoders are."""

from __future__ import annotations

from dataclasses import dataclass, field

from servsim.request import Sequence

__all__ = ["Running"]


@dataclass(slots=True, eq=False)
class Running:
    """The running sequences of an instance; policies read it, the engine alone changes it.

    All decoders take every decode step together, so their progress is one shared counter, ``step``:
    a decoder has emitted ``step - decode_base`` tokens and stores KV for all of its prompt and output
    but the newest token. A sequence group counts as ``width`` decoders.
    """

    sequences: dict[Sequence, None] = field(default_factory=dict)  # in order of admission (a dict keeps it)
    prefilling: dict[Sequence, None] = field(default_factory=dict)  # those whose prefill has not ended
    wider: int = 0  # the widths of all of them, less one each
    widest: int = 1  # the widest that was ever admitted
    decoders: int = 0
    step: int = 0  # decode steps taken so far
    context_tokens: int = 0  # tokens that all decoders together store

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def seats(self) -> int:
        """The widths of all of them: what vLLM v0 holds against ``max_num_seqs``."""
        return len(self.sequences) + self.wider

    def generated_tokens(self, sequence: Sequence) -> int:
        """Tokens that a sequence has emitted by now."""
        return self.step - sequence.decode_base if sequence.decoding else sequence.generated_tokens

    def kv_tokens(self, sequence: Sequence) -> int:
        """Tokens whose KV a sequence stores by now."""
        if not sequence.decoding:
            return sequence.kv_tokens
        return sequence.prompt_tokens + self.step - sequence.decode_base - 1

    def admit(self, sequence: Sequence) -> None:
        """A sequence leaves the queue and starts to prefill."""
        self.sequences[sequence] = None
        self.prefilling[sequence] = None
        if sequence.width > 1:
            self.wider += sequence.width - 1
            self.widest = max(self.widest, sequence.width)

    def join(self, sequence: Sequence) -> None:
        """It decodes from now on, from ``generated_tokens`` and ``kv_tokens`` as they stand."""
        sequence.decoding = True
        sequence.decode_base = self.step - sequence.generated_tokens
        width = sequence.width
        self.decoders += width
        self.context_tokens += width * sequence.kv_tokens

    def leave(self, sequence: Sequence) -> None:
        """It decodes no more; its progress is written into it."""
        sequence.generated_tokens = self.step - sequence.decode_base
        sequence.kv_tokens = sequence.prompt_tokens + sequence.generated_tokens - 1
        sequence.decoding = False
        width = sequence.width
        self.decoders -= width
        self.context_tokens -= width * sequence.kv_tokens

    def narrow(self, sequence: Sequence, width: int) -> None:
        """Outputs of a group that does not decode have ended; so many are left."""
        self.wider -= sequence.width - width
        sequence.width = width

    def remove(self, sequence: Sequence) -> None:
        """A sequence that does not decode runs no more."""
        del self.sequences[sequence]
        self.prefilling.pop(sequence, None)
        if sequence.width > 1:
            self.wider -= sequence.width - 1

    def advance(self, steps: int) -> None:
        """Every decoder took ``steps`` steps."""
        self.step += steps
        self.context_tokens += steps * self.decoders
