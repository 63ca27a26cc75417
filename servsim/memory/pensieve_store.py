"""What is kept of idle conversations on the device and in the memory below it, and the copies between them."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from servsim.errors import SimulationError
from servsim.hardware import Direction, Tier
from servsim.memory.link import Link
from servsim.memory.pensieve_chunks import (
    ABOVE,
    BELOW,
    BOTH,
    COPYING,
    LEAVING,
    NOWHERE,
    ByAge,
    Conversation,
    Outgoing,
    Retention,
)
from servsim.memory.surroundings import KvShape
from servsim.memory.swap_cost import copy_operations
from servsim.memory.tier import units_held
from servsim.memory.tiers import Copy, Granularity
from servsim.request import Sequence

__all__ = ["KeptChunks"]

Chunks = list[tuple[Conversation, int]]

_KEPT = (ABOVE, BELOW, BOTH, LEAVING, COPYING)
_WITH_ABOVE = bytes(state | ABOVE for state in range(256))


class KeptChunks:
    """Chunks of idle conversations: the least valuable goes first, from the device as from the memory below.

    A chunk of which there is a copy below leaves the device without a loss. Below, a chunk goes when a copy needs its
    place, unless it is on the device too: then it would have to be copied again. All that a conversation has below
    stays there while somebody runs it.

    Without a ``tier`` nothing is ever copied.
    """

    def __init__(
        self,
        env: simpy.Environment | None,
        tier: Tier | None,
        kv: KvShape,
        retention: Retention,
        granularity: Granularity,
    ) -> None:
        self.env = env
        self.retention = retention
        self.changed: Callable[[], None] = lambda: None
        self.transfers = 0
        self.in_state = [0] * 6
        """Chunks of idle conversations, by state; those that are nowhere are not counted."""
        self.sessions: dict[int, Conversation] = {}
        """The conversation of each session of which something is kept, or which somebody runs."""
        self.tier = tier
        self.tier_chunks = 0  # taken below, whoever runs the conversation
        self.dropped_chunks = self.evicted_chunks = self.evicted_below_chunks = 0
        self.in_bytes = self.out_bytes = 0
        self._conversations: dict[Conversation, None] = {}
        self._above = ByAge()
        self._below = ByAge()
        self._granularity = granularity
        self._layers = kv.num_layers
        self._devices = kv.devices
        self._chunk_bytes = retention.chunk_tokens * kv.bytes_per_token  # on one device
        self._link: Link | None = None
        self.capacity_chunks = 0
        self._made = 0
        if tier is not None:
            self.capacity_chunks = units_held(tier, self._chunk_bytes * kv.devices, "chunk")
            if env is not None:
                self._link = Link(env, tier.route)

    @property
    def now_s(self) -> float:
        """The time; raises SimulationError without a clock."""
        if self.env is None:
            raise SimulationError("idle times need a clock")
        return float(self.env.now)

    @property
    def device_chunks(self) -> int:
        """Chunks of idle conversations on the device."""
        return self.in_state[ABOVE] + self.in_state[BOTH] + self.in_state[COPYING]

    @property
    def copied_chunks(self) -> int:
        """Those of them that could go without a loss, or will when their copies have ended."""
        return self.in_state[BOTH] + self.in_state[COPYING]

    @property
    def can_copy(self) -> bool:
        """Whether there is something to copy and room for it."""
        return self.in_state[ABOVE] > 0 and self._room > 0

    def new(self, owner: Sequence) -> Conversation:
        """A conversation of which nothing is kept, run by ``owner``."""
        self._made += 1
        conversation = Conversation(self._made, owner=owner, author=owner)
        self._conversations[conversation] = None
        return conversation

    def name(self, conversation: Conversation, session: int) -> None:
        """From now on it is the session's, unless the session has one already."""
        if self.sessions.setdefault(session, conversation) is conversation:
            conversation.session = session

    def claim(self, conversation: Conversation, owner: Sequence, chunks: int) -> Copy | None:
        """Somebody runs it who shares its first ``chunks``; the copy that brings what is not on the device."""
        self._leave(conversation)
        conversation.owner = conversation.author = owner
        self._cut(conversation, chunks)
        states = conversation.states
        lower = []
        index = states.find(BELOW)
        while index >= 0:
            lower.append((conversation, index))
            states[index] = BOTH
            index = states.find(BELOW, index + 1)
        return self._fetch(lower) if lower else None

    def park(self, conversation: Conversation, chunks: int, holes: int, ids: tuple[int, ...]) -> None:
        """Nobody runs it any more; its first ``chunks`` are on the device but for the last ``holes`` it lacked."""
        states = conversation.states
        self._cut(conversation, chunks)
        states.extend(bytes(chunks - len(states)))
        if holes:
            missing = [index for index, state in enumerate(states) if not state & ABOVE]
            for index in missing[: len(missing) - holes]:
                states[index] |= ABOVE
        else:
            states[:] = states.translate(_WITH_ABOVE)
        conversation.ids = ids
        conversation.compared = None
        conversation.owner = None
        conversation.active_s = self.now_s
        for state in _KEPT:
            self.in_state[state] += states.count(state)
        self._sort(conversation)

    def discard(self, conversation: Conversation) -> None:
        """Nothing of it is of use any more."""
        if conversation.owner is None:
            self._leave(conversation)
        self._cut(conversation, 0)
        self._forget(conversation)

    def evict(self, chunks: int, awaited: list[Copy] | None) -> None:
        """So many leave the device at once, the least valuable first of those copied, being copied, and neither.

        Of the latter two nothing is lost where the coming step can wait: the copies to wait for go into ``awaited``.
        """
        for state in (BOTH, COPYING, ABOVE):
            count = min(chunks, self.in_state[state])
            if not count:
                continue
            chunks -= count
            self.evicted_chunks += count
            going = self._above.lowest(count, state, self.retention, self.now_s)
            if state == BOTH:
                self._set(going, BELOW)
            elif awaited is not None and state == COPYING:
                copies = {conversation.outgoing[index]: None for conversation, index in going}
                awaited.extend(copy for copy in copies if copy not in awaited)
                self._set(going, LEAVING)
            else:
                saved = self._make_room(len(going)) if awaited is not None else 0
                # Where there is no room for all, the least valuable are lost.
                gone, rest = going[: len(going) - saved], going[len(going) - saved :]
                if rest and awaited is not None:
                    awaited.append(self._send(rest, LEAVING))
                self._give_up(gone)
                self.dropped_chunks += len(gone)

    def copy_ahead(self, chunks: int) -> None:
        """Begin to copy the least valuable chunks of which there is no copy, as far as there is room."""
        count = self._make_room(min(chunks, self.in_state[ABOVE]))
        if count:
            self._send(self._above.lowest(count, ABOVE, self.retention, self.now_s), COPYING)

    def check_integrity(self) -> None:
        """Raise SimulationError unless the books agree with what is written of every conversation."""
        counted = [0] * len(self.in_state)
        taken = 0
        for one in self._conversations:
            states, idle = one.states, one.owner is None
            taken += len(states) - states.count(NOWHERE) - states.count(ABOVE)
            leaving = {index for index, state in enumerate(states) if state >= LEAVING}
            if leaving != set(one.outgoing) or any((one, index) not in one.outgoing[index].chunks for index in leaving):
                raise SimulationError(
                    f"chunks {sorted(leaving)} should be on their way, but {sorted(one.outgoing)} are"
                )
            if (one in self._above, one in self._below) != (idle and _has_above(states), idle and BELOW in states):
                raise SimulationError(f"a conversation in states {bytes(states)!r} is looked for in the wrong place")
            for state in _KEPT if idle else ():
                counted[state] += states.count(state)
            if idle and not any(states):
                raise SimulationError("a conversation is remembered of which nothing is kept")
        if counted != self.in_state:
            raise SimulationError(f"idle chunks by state are {counted}, but {self.in_state} are counted")
        if not taken == self.tier_chunks <= self.capacity_chunks:
            raise SimulationError(
                f"{taken} chunks below the device, {self.tier_chunks} counted, {self.capacity_chunks} fit"
            )
        if any(one not in self._conversations for one in self.sessions.values()):
            raise SimulationError("a session's conversation is not known")
        in_flight = self._link.in_flight if self._link is not None else 0
        if in_flight != self.transfers:
            raise SimulationError(f"{self.transfers} transfers are waited for, but {in_flight} are under way")

    @property
    def _room(self) -> int:
        """Places below that are free or may be."""
        return self.capacity_chunks - self.tier_chunks + self.in_state[BELOW]

    def _make_room(self, chunks: int) -> int:
        """Drop the least valuable chunks below for as many; how many there is room for."""
        count = min(chunks, self._room)
        short = count - (self.capacity_chunks - self.tier_chunks)
        if short > 0:
            self.evicted_below_chunks += short
            self.dropped_chunks += short
            self.tier_chunks -= short
            self._set(self._below.lowest(short, BELOW, self.retention, self.now_s), NOWHERE)
        return count

    def _send(self, chunks: Chunks, state: int) -> Outgoing:
        """Copy chunks below, as one transfer; they are in ``state`` meanwhile."""
        copy = Outgoing(chunks=dict.fromkeys(chunks))
        for conversation, index in chunks:
            conversation.outgoing[index] = copy
        self.tier_chunks += len(chunks)
        self._set(chunks, state)
        size_bytes = len(chunks) * self._chunk_bytes * self._devices

        def ended() -> None:
            self.out_bytes += size_bytes
            for conversation, index in copy.chunks:
                del conversation.outgoing[index]
                on_device = conversation.states[index] & ABOVE
                if conversation.owner is None:
                    self._set([(conversation, index)], BELOW | on_device)
                else:
                    conversation.states[index] = BELOW | on_device

        self._start(copy, chunks, "out", ended)
        return copy

    def _fetch(self, chunks: Chunks) -> Copy:
        """Copy chunks to the device, as one transfer."""
        copy = Copy()
        size_bytes = len(chunks) * self._chunk_bytes * self._devices

        def ended() -> None:
            self.in_bytes += size_bytes

        self._start(copy, chunks, "in", ended)
        return copy

    def _start(self, copy: Copy, chunks: Chunks, direction: Direction, ended: Callable[[], None]) -> None:
        if self._link is None:
            raise SimulationError("copies need a clock")
        runs = len(chunks)
        if self._granularity == "groups":
            places = {(conversation.number, index) for conversation, index in chunks}
            runs = sum((number, index - 1) not in places for number, index in places)
        amount = (len(chunks) * self._chunk_bytes, copy_operations(runs, self._layers), direction)
        copy.idle_s = self._link.idle_time_s(*amount)
        self.transfers += 1

        def done(_: object) -> None:
            self.transfers -= 1
            ended()
            copy.end()
            self.changed()

        self._link.start(*amount, done)

    def _give_up(self, chunks: Chunks) -> None:
        """Chunks on the device go, and so do copies of them that are under way."""
        for conversation, index in chunks:
            self._call_back(conversation, index)
        self._set(chunks, NOWHERE)

    def _call_back(self, conversation: Conversation, index: int) -> None:
        """A chunk that may be on its way below is not wanted there any more."""
        copy = conversation.outgoing.pop(index, None)
        if copy is not None:
            del copy.chunks[conversation, index]
            self.tier_chunks -= 1

    def _set(self, chunks: Chunks, state: int) -> None:
        """Chunks of idle conversations are in another state."""
        for conversation, index in chunks:
            self.in_state[conversation.states[index]] -= 1
            conversation.states[index] = state
        if state:
            self.in_state[state] += len(chunks)
        for conversation in dict.fromkeys(conversation for conversation, _ in chunks):
            self._sort(conversation)

    def _sort(self, conversation: Conversation) -> None:
        """Look for an idle conversation where it has something, and forget one that has nothing."""
        states = conversation.states
        (self._above.add if _has_above(states) else self._above.discard)(conversation)
        (self._below.add if BELOW in states else self._below.discard)(conversation)
        if not any(states):
            states.clear()
            self._forget(conversation)

    def _forget(self, conversation: Conversation) -> None:
        self._conversations.pop(conversation, None)
        if self.sessions.get(conversation.session) is conversation:
            del self.sessions[conversation.session]

    def _leave(self, conversation: Conversation) -> None:
        """It is not idle any more."""
        for state in _KEPT:
            self.in_state[state] -= conversation.states.count(state)
        self._above.discard(conversation)
        self._below.discard(conversation)

    def _cut(self, conversation: Conversation, chunks: int) -> None:
        """Of one that is not idle, forget what stands behind its first ``chunks``."""
        states = conversation.states
        for index in [index for index in conversation.outgoing if index >= chunks]:
            self._call_back(conversation, index)
        self.tier_chunks -= states.count(BELOW, chunks) + states.count(BOTH, chunks)
        del states[chunks:]


def _has_above(states: bytearray) -> bool:
    return ABOVE in states or BOTH in states or COPYING in states
