"""Conversations in chunks, each on the device, in the memory below it, in both or nowhere, and what each is worth."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from servsim.memory.tiers import Copy

if TYPE_CHECKING:
    from servsim.request import Sequence

__all__ = ["ABOVE", "BELOW", "BOTH", "COPYING", "LEAVING", "NOWHERE", "ByAge", "Conversation", "Outgoing", "Retention"]

# A chunk's state is the sum of 1: on the device, 2: in the memory below, 4: on its way there.
NOWHERE, ABOVE, BELOW, BOTH, LEAVING, COPYING = 0, 1, 2, 3, 4, 5


@dataclass(slots=True, eq=False)
class Conversation:
    """What is kept of one conversation: one byte for each chunk of its context, the first one first.

    While somebody runs it (``owner``) all that is kept is on the device, and none of it may go.
    """

    number: int
    session: int = -1
    states: bytearray = field(default_factory=bytearray)
    active_s: float = 0.0  # since when nobody runs it
    owner: Sequence | None = None
    author: Sequence | None = None  # who ran it last, and knows all of it
    ids: tuple[int, ...] = ()  # what is known of its content to others
    outgoing: dict[int, Outgoing] = field(default_factory=dict)  # by chunk, those on their way below
    compared: tuple[Sequence, int] | None = None  # tokens that this sequence has in common with it

    def kept(self, chunks: int) -> int:
        """How many of its first chunks can be found."""
        return chunks - self.states.count(NOWHERE, 0, chunks) - self.states.count(LEAVING, 0, chunks)


@dataclass(slots=True, eq=False)
class Outgoing(Copy):
    """A copy of chunks to the memory below; one that was given up is not among them any more."""

    chunks: dict[tuple[Conversation, int], None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retention:
    """``V = cost(l) / idle time`` with ``cost(l) = alpha * l + beta`` for a chunk that ends at context ``l``.

    The cost is that of computing the chunk anew: attention grows with what stands before it, the rest does not.
    """

    alpha: float
    beta: float
    chunk_tokens: int

    def cost(self, index: int) -> float:
        """Seconds, or anything in proportion to them, to compute a conversation's chunk of this number, from 0."""
        return self.alpha * (index + 1) * self.chunk_tokens + self.beta

    def value(self, index: int, idle_s: float) -> float:
        """What it is worth to keep it; infinite as long as its conversation has not been idle."""
        return self.cost(index) / idle_s if idle_s > 0 else float("inf")

    @classmethod
    def fitted(cls, prefill_s: Callable[[int], float], longest: int, chunk_tokens: int) -> Retention:
        """From what prefills of a quarter, half and all of ``longest`` tokens take.

        They are ``c + b n + a n**2 / 2``; a chunk then costs ``(b + a l)`` times its tokens. Where prefills
        take the same time whatever their length, all chunks cost the same: the longest idle goes first.
        """
        quarter = max(1, longest // 4)
        times = [prefill_s(quarter * times) for times in (1, 2, 4)]
        first, second = times[1] - times[0], times[2] - times[1]
        growth = max(0.0, (second - 2 * first) / (3 * quarter**2))
        constant = max(0.0, first / quarter - 1.5 * growth * quarter)
        if not growth and not constant:
            return cls(0.0, 1.0, chunk_tokens)
        return cls(growth * chunk_tokens, constant * chunk_tokens, chunk_tokens)


class ByAge:
    """Idle conversations, the one that has been idle for longest first."""

    def __init__(self) -> None:
        self._order: list[tuple[float, int, Conversation]] = []

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Conversation]:
        return (conversation for _, _, conversation in self._order)

    def __contains__(self, conversation: Conversation) -> bool:
        place = self._place(conversation)
        return place < len(self._order) and self._order[place][2] is conversation

    def add(self, conversation: Conversation) -> None:
        """It is idle; nothing happens if that is known."""
        if conversation not in self:
            insort(self._order, (conversation.active_s, conversation.number, conversation))

    def discard(self, conversation: Conversation) -> None:
        """It is not; nothing happens if that is known."""
        if conversation in self:
            del self._order[self._place(conversation)]

    def lowest(self, count: int, state: int, retention: Retention, now_s: float) -> list[tuple[Conversation, int]]:
        """The ``count`` chunks in this state with the lowest values, in their order; of equals the cheaper first."""
        return list(islice(self._ascending(state, retention, now_s), count))

    def _ascending(self, state: int, retention: Retention, now_s: float) -> Iterator[tuple[Conversation, int]]:
        """Looks at a conversation only when one that has been idle for as long may be next: few of many."""
        heap: list[tuple[float, float, int, int, Conversation]] = []
        order = self._order
        opened = 0
        while True:
            while opened < len(order):
                active_s, _, conversation = order[opened]
                if heap and heap[0][0] < retention.value(0, now_s - active_s):
                    break
                opened += 1
                _push(heap, conversation, conversation.states.find(state), retention, now_s)
            if not heap:
                return
            _, _, _, index, conversation = heappop(heap)
            yield conversation, index
            _push(heap, conversation, conversation.states.find(state, index + 1), retention, now_s)

    def _place(self, conversation: Conversation) -> int:
        return bisect_left(self._order, (conversation.active_s, conversation.number))


def _push(
    heap: list[tuple[float, float, int, int, Conversation]],
    conversation: Conversation,
    index: int,
    retention: Retention,
    now_s: float,
) -> None:
    if index >= 0:
        value = retention.value(index, now_s - conversation.active_s)
        heappush(heap, (value, retention.cost(index), conversation.number, index, conversation))
