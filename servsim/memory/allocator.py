"""What an engine and a policy ask of a KV allocator."""

from __future__ import annotations

from typing import Protocol

from servsim.request import Sequence

__all__ = ["Allocator", "Round"]


class Round(Protocol):
    """One plan's draft of grants and releases; nothing happens until the allocator commits it.

    Every grant returns False, and changes nothing, when the memory left in this round does not suffice.
    """

    def grow_decoders(self) -> bool:
        """One more token for every decoder at once."""
        ...

    def grow(self, sequence: Sequence, kv_tokens: int) -> bool:
        """One more token for one decoder that stores ``kv_tokens`` now."""
        ...

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """The next prefill chunk of a sequence that holds memory already."""
        ...

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first prefill chunk of a waiting sequence; ``alone``: nothing else runs."""
        ...

    def restore(self, sequence: Sequence) -> bool:
        """Room for the KV of a swapped sequence (``kv_tokens``) and for its next token."""
        ...

    def release(self, sequence: Sequence, kv_tokens: int) -> None:
        """Take back everything from a sequence that is preempted in this round, grown or not."""
        ...


class Allocator(Protocol):
    """Who holds which part of the KV memory.

    Decoders all store one more token a step, so their growth is counted together: :meth:`join` when a
    sequence starts to decode, :meth:`advance` when all of them took steps, :meth:`leave` when one stops.
    Between ``leave`` and ``join`` a sequence's ``kv_tokens`` says what it stores.
    """

    block_size: int
    total_blocks: int  # what sequences can hold

    @property
    def used_blocks(self) -> int:
        """Blocks that are granted (of :attr:`total_blocks`)."""
        ...

    @property
    def stored_tokens(self) -> int:
        """Tokens whose KV is resident."""
        ...

    @property
    def reserved_tokens(self) -> int:
        """Token slots that are granted; the difference to :attr:`stored_tokens` is reserved or wasted."""
        ...

    @property
    def external_fragmentation(self) -> float:
        """1 - largest free extent / all free memory; 0 where any free block serves any request."""
        ...

    def fits(self, tokens: int) -> bool:
        """Whether a lone sequence of so many stored tokens could ever be held."""
        ...

    def round(self) -> Round:
        """A draft of this instant's grants and releases."""
        ...

    def commit(self, round_: Round) -> None:
        """Carry a draft out; its released sequences have left the decoders before."""
        ...

    def join(self, sequence: Sequence) -> None:
        """The sequence decodes from now on, with ``sequence.kv_tokens`` stored."""
        ...

    def leave(self, sequence: Sequence) -> None:
        """The sequence decodes no more; ``sequence.kv_tokens`` is up to date."""
        ...

    def advance(self, steps: int) -> None:
        """Every decoder stored ``steps`` more tokens."""
        ...

    def steps_until_full(self, at_most: int) -> int:
        """For how many of the next ``at_most`` steps all decoders can grow without a refusal."""
        ...

    def blocks_after(self, steps: int) -> int:
        """:attr:`used_blocks` when the decoders will have taken ``steps`` more steps."""
        ...

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; whatever it holds is free again."""
        ...

    def check_integrity(self) -> None:
        """Raise SimulationError unless free and used blocks add up to all of them."""
        ...
