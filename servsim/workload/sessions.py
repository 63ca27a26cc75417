"""Sessions that are under way: what their next turns will be, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from servsim.request import Request
from servsim.workload.blocks import RequestBlock
from servsim.workload.contents import Content, Contents

__all__ = ["NextTurn", "SessionBook"]


class NextTurn(NamedTuple):
    """A turn that waits for the answer to the one before it."""

    think_s: float  # from the end of that answer to its arrival
    request: Request


class _Live(NamedTuple):
    later: list[NextTurn]  # the last one first, without their hash_ids, which are long
    content: Content


class SessionBook:
    """Keeps the later turns of every session that has begun and not ended, and nothing of any other.

    Life of a session: its first turn comes out of :meth:`starts`; each of :meth:`after` gives the next one, until
    there is none or the session is given up by :meth:`end`.
    """

    def __init__(self, blocks: Iterator[RequestBlock], tokens_per_hash: int) -> None:
        self._blocks = blocks
        self._unit = tokens_per_hash
        self._live: dict[int, _Live] = {}

    def __len__(self) -> int:
        """How many sessions have a turn to come."""
        return len(self._live)

    def starts(self) -> Iterator[Request]:
        """The first turns of all sessions, in their order; later turns are remembered as their first is taken."""
        for block in self._blocks:
            assert isinstance(block.hash_ids, Contents)
            turns: list[NextTurn] = []
            for row, turn in enumerate(_turns(block)):
                if turns and turn.request.session != turns[0].request.session:
                    yield self._begin(turns, block.hash_ids.content(row - 1))
                    turns = []
                turns.append(turn)
            yield self._begin(turns, block.hash_ids.content(len(block) - 1))

    def after(self, request: Request) -> NextTurn | None:
        """The turn that follows this one, which has its answer now; None where it was the last."""
        live = self._live.get(request.session)
        if live is None:
            return None
        turn = live.later.pop()
        if not live.later:
            del self._live[request.session]
        return turn._replace(request=self._told(turn.request, live.content))

    def end(self, request: Request) -> None:
        """No further turn of this request's session will come."""
        self._live.pop(request.session, None)

    def _begin(self, turns: list[NextTurn], content: Content) -> Request:
        first = turns[0].request
        if len(turns) > 1:
            self._live[first.session] = _Live(turns[:0:-1], content)
        return self._told(first, content)

    def _told(self, request: Request, content: Content) -> Request:
        units = (request.prompt_tokens + request.output_tokens) // self._unit
        return request._replace(hash_ids=content.ids(units))


def _turns(block: RequestBlock) -> Iterator[NextTurn]:
    assert block.turns is not None
    return map(NextTurn, block.turns.think_s.tolist(), block.requests(told=False))
