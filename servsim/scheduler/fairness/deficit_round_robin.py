"""Deficit round-robin over tenants."""

from __future__ import annotations

import math

from pydantic import Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.fairness.service_ledger import ServiceLedger, TenantAccount
from servsim.scheduler.fairness.vtc import LcfParameters
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.running import Running

__all__ = ["DeficitRoundRobin", "DeficitRoundRobinParameters", "RoundRobinOrder"]


class DeficitRoundRobinParameters(LcfParameters):
    """What a scenario may say about deficit round-robin."""

    quantum: float = Field(1000.0, ge=1, le=1e9, description="service given to a tenant at its turn, in token prices")


class RoundRobinOrder(Order):
    """Tenants in turn, each as long as its deficit is positive.

    A tenant whose turn comes with a deficit of 0 or less gets a quantum (times its weight); if that does not make it
    positive, the turn passes on. Prompts are taken off the deficit at admission, output tokens as
    they are decoded. The tenant whose turn it is keeps it while its head waits for memory.
    """

    def __init__(self, running: Running, parameters: DeficitRoundRobinParameters) -> None:
        self.ledger = ServiceLedger(running, parameters.weights, prefill_token_charged=parameters.prefill_token_charged)
        self._w_p, self._w_q, self._quantum = parameters.w_p, parameters.w_q, parameters.quantum
        self._count = 0
        self._ring: list[TenantAccount] = []
        self._turn: int | None = None  # place in the ring; None: to be found
        self._last = -1
        self._picked: list[Sequence] = []

    def __len__(self) -> int:
        return self._count

    def deficit(self, account: TenantAccount) -> float:
        """Service that a tenant may still have in its turn."""
        step = self.ledger.settle()
        return account.offset - (self._w_p * account.prompt_tokens + self._w_q * account.output_tokens(step))

    def push(self, sequence: Sequence) -> None:
        """To the end of its tenant's line; a new tenant's turn is the last."""
        self._account(sequence).line.append(sequence)
        self._count += 1

    def push_preempted(self, sequence: Sequence) -> None:
        """To the front of its tenant's line; its prompt is paid for."""
        self._account(sequence).line.appendleft(sequence)
        self._count += 1

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Whose turn it is stays the same while it waits, so only where nobody waited before."""
        return has_place and len(self) == 1

    def refresh(self, now_s: float) -> None:
        """Deficits move on with the steps."""
        self._picked.clear()

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, if those before it are admitted; the first one keeps its turn then."""
        if self._turn is None:
            before = self._last
            if before >= 0 and self._ring[before].line and self.deficit(self._ring[before]) > 0:
                before -= 1  # something is left of its turn
            self._turn, refills = self._find(before, {}, {})
            for account, refill in refills.items():
                account.offset += refill
        if index >= len(self._picked):
            self._picked = self._look_ahead(index + 1)[0]
        return self._picked[index]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave, and are charged; refills on the way are kept."""
        self.peek(0)
        picked, refills, turn = self._look_ahead(count)
        for account, refill in refills.items():
            account.offset += refill
        for sequence in picked:
            account = self.ledger.account(sequence.tenant)
            account.line.popleft()
            self.ledger.admitted(sequence)
        self._count -= count
        self._picked.clear()
        self._last = turn
        self._turn = None

    def began(self, plan: Plan) -> None:
        """Who decodes from now on is charged from now on."""
        self.ledger.began(plan)
        self._picked.clear()

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It is charged no more."""
        self.ledger.finished(sequence)
        self._picked.clear()

    def _account(self, sequence: Sequence) -> TenantAccount:
        account = self.ledger.account(sequence.tenant)
        if account.place == len(self._ring):
            self._ring.append(account)
        return account

    def _look_ahead(self, count: int) -> tuple[list[Sequence], dict[TenantAccount, float], int]:
        """The next ``count`` sequences, the refills that their turns take, and whose turn the last one is."""
        turn = self._turn
        assert turn is not None
        taken: dict[TenantAccount, int] = {}
        change: dict[TenantAccount, float] = {}
        refills: dict[TenantAccount, float] = {}
        picked: list[Sequence] = []
        while True:
            account = self._ring[turn]
            sequence = account.line[taken.get(account, 0)]
            taken[account] = taken.get(account, 0) + 1
            picked.append(sequence)
            if self.ledger.new(sequence):
                change[account] = change.get(account, 0.0) - self._w_p * sequence.prompt_tokens
            if len(picked) == count:
                return picked, refills, turn
            left = self.deficit(account) + change.get(account, 0.0)
            if taken[account] == len(account.line) or left <= 0:
                turn, found = self._find(turn, taken, change)
                for one, refill in found.items():
                    refills[one] = refills.get(one, 0.0) + refill
                    change[one] = change.get(one, 0.0) + refill

    def _find(
        self, last: int, taken: dict[TenantAccount, int], change: dict[TenantAccount, float]
    ) -> tuple[int, dict[TenantAccount, float]]:
        """Whose turn comes after ``last``, and what everybody on the way there is given."""
        size = len(self._ring)
        refills: dict[TenantAccount, float] = {}
        turn = last
        walked = 0
        while True:
            if walked == size:
                self._skip_rounds(refills, change)
            walked += 1
            turn = (turn + 1) % size
            account = self._ring[turn]
            if taken.get(account, 0) == len(account.line):
                continue
            left = self.deficit(account) + change.get(account, 0.0) + refills.get(account, 0.0)
            if left <= 0:
                refills[account] = refills.get(account, 0.0) + self._quantum * account.weight
                left += self._quantum * account.weight
            if left > 0:
                return turn, refills

    def _skip_rounds(self, refills: dict[TenantAccount, float], change: dict[TenantAccount, float]) -> None:
        """After a round in which all who wait were given a quantum in vain: give out further such rounds at once."""
        rounds = math.inf
        for account, refill in refills.items():
            left = self.deficit(account) + change.get(account, 0.0) + refill
            rounds = min(rounds, math.floor(-left / (self._quantum * account.weight)))
        for account in refills:
            refills[account] += rounds * self._quantum * account.weight


class DeficitRoundRobin(VllmV1Batching):
    """Deficit round-robin over tenants on vLLM v1's batching (a baseline of VTC).

    The order is :class:`RoundRobinOrder`. The quantum's default is ours: its source leaves it to the user.
    """

    Parameters = DeficitRoundRobinParameters

    def __init__(self, surroundings: Surroundings) -> None:
        parameters = surroundings.parameters or DeficitRoundRobinParameters()
        super().__init__(surroundings, RoundRobinOrder(surroundings.running, parameters))
