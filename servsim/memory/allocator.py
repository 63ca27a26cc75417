"""What an engine and a policy ask of a KV allocator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from servsim.request import Sequence

__all__ = ["Allocator", "Fetch", "Round", "StaysOnDevice"]


class Fetch(NamedTuple):
    """KV of one sequence that is copied to the device while a step waits for it."""

    sequence: Sequence
    layers: int  # the step computes a layer as soon as that layer's share is there; 1: it waits for all of it
    idle_s: float  # what the copy takes on idle links
    on_end: Callable[[Callable[[], None]], None]  # calls back when the copy has ended; at once if it has


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

    def lacking(self, sequence: Sequence) -> int:
        """Tokens that the prefill of a waiting sequence has to compute: all, less those whose KV this round would find.

        At least 1, since its next token has to be computed from something. For one that this round has admitted,
        what it was when it was admitted.
        """
        ...

    def admit(self, sequence: Sequence, tokens: int, *, alone: bool) -> bool:
        """The first prefill chunk of a waiting sequence, at most :meth:`lacking` tokens; ``alone``: nothing else runs.

        When the round is committed, ``sequence.kv_tokens`` is what was found for it.
        """
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
    Between ``leave`` and ``join`` a sequence's ``kv_tokens`` says what it stores. One whose attribute ``forks`` is true
    holds sequence groups as well, as :class:`servsim.engine.groups.Forking` has it.
    """

    block_size: int
    total_blocks: int  # what sequences can hold
    loading: dict[Sequence, None]  # admitted, but their KV is still on its way to the device
    transfers: int  # copies between memories that are under way
    shared_tokens: int  # of decoders, counted for each beyond the first that has them; where that was asked for, else 0
    changed: Callable[[], None]  # to be called when the end of a copy may change what the next plan does

    @property
    def used_blocks(self) -> int:
        """Blocks that sequences hold (of :attr:`total_blocks`); what is only cached counts as free."""
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

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of a waiting sequence whose KV would be found now; the look changes nothing. 0 without a cache."""
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

    @property
    def stalls(self) -> bool:
        """Whether a step that only decodes, and begins now, has to wait first, as :meth:`exposed` says."""
        ...

    def blocks_after(self, steps: int) -> int:
        """:attr:`used_blocks` when the decoders will have taken ``steps`` more steps."""
        ...

    def release(self, sequence: Sequence) -> None:
        """The sequence ended; whatever it holds is free again."""
        ...

    def loaded(self) -> list[Sequence]:
        """Sequences whose KV has arrived since this was last asked; they are :attr:`loading` no more."""
        ...

    def exposed(self) -> list[Fetch]:
        """Copies that the step which begins now has to wait for, since the latest commit."""
        ...

    def report(self) -> dict[str, float]:
        """What happened, in numbers that can be added up over instances; empty where nothing is to be told."""
        ...

    def check_integrity(self) -> None:
        """Raise SimulationError unless free and used blocks add up to all of them."""
        ...


class StaysOnDevice:
    """The part of an :class:`Allocator` that has nothing to find again and no other memory to copy to."""

    def __init__(self) -> None:
        self.loading: dict[Sequence, None] = {}
        self.transfers = 0
        self.shared_tokens = 0
        self.changed: Callable[[], None] = lambda: None

    @property
    def stalls(self) -> bool:
        """Never."""
        return False

    def cached_tokens(self, sequence: Sequence) -> int:
        """Nothing is kept: 0."""
        return 0

    def loaded(self) -> list[Sequence]:
        """Nothing is ever on its way."""
        return []

    def exposed(self) -> list[Fetch]:
        """No step waits."""
        return []

    def report(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}
