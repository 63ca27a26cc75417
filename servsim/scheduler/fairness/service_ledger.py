"""What each tenant has been served, in tokens, and who of it waits; nothing is touched per step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from servsim.request import Sequence
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED
from servsim.scheduler.running import Running

__all__ = ["ServiceLedger", "TenantAccount"]


@dataclass(slots=True, eq=False)
class TenantAccount:
    """One tenant: its waiting line and the tokens that it was charged.

    Output tokens at a step are ``output_constant + charged_decoders * step``, in whole numbers, so that
    strides and single steps agree to the bit.
    """

    place: int  # in order of the tenants' first requests
    weight: float = 1.0
    line: deque[Sequence] = field(default_factory=deque)
    prompt_tokens: int = 0
    output_constant: int = 0
    charged_decoders: int = 0
    offset: float = 0.0  # lifts of a counter, refills of a deficit

    def output_tokens(self, step: int) -> int:
        """Output tokens charged by a step."""
        return self.output_constant + self.charged_decoders * step


@dataclass(slots=True, eq=False)
class _Served:
    """A sequence between its first admission and its end."""

    account: TenantAccount
    paid_tokens: int  # charged in advance
    steps: int = 0  # decode steps taken up to ``since``
    since: int = -1  # the step from which it decodes; -1 while it does not
    begin: int = 0  # the step from which it is charged
    charged: bool = False
    version: int = 0


class ServiceLedger:
    """Charges prompts at admission and outputs by decode steps, a token for every decoder and step.

    The token that a prefill emits is free unless ``prefill_token_charged``: S-LoRA charges a decode step as
    it is launched. Tokens paid in advance are free until they are used up; the rest is refunded at the end.
    A prompt is charged once, however often it is preempted and prefilled again.
    """

    def __init__(
        self, running: Running, weights: tuple[float, ...] = (), *, prefill_token_charged: bool = False,
        double_charge_on_finish: bool = False,
    ) -> None:  # fmt: skip
        self.running = running
        self.accounts: dict[int, TenantAccount] = {}
        self._weights = weights
        self._prefill_token = int(prefill_token_charged)
        self._double = double_charge_on_finish
        self._doubled_step = 0
        self._served: dict[Sequence, _Served] = {}
        self._decoding: dict[Sequence, None] = {}
        # Swapped in, with their tokens then: they decode as soon as their KV is there, and nobody says when that is.
        self._returning: dict[Sequence, int] = {}
        self._later: list[tuple[int, int, int, _Served]] = []  # not charged yet, by the step from which they are

    def account(self, tenant: int) -> TenantAccount:
        """The tenant's account, opened if there is none."""
        found = self.accounts.get(tenant)
        if found is None:
            weight = self._weights[tenant] if tenant < len(self._weights) else 1.0
            found = self.accounts[tenant] = TenantAccount(len(self.accounts), weight)
        return found

    def settle(self) -> int:
        """Bring the accounts to the present step, which is returned."""
        step = self.running.step
        for sequence, tokens in list(self._returning.items()):
            if sequence.decoding or sequence.generated_tokens > tokens:
                del self._returning[sequence]
                self._join(sequence, sequence.decode_base + tokens)
        while self._later and self._later[0][0] <= step:
            begin, _, version, served = heappop(self._later)
            if version == served.version:
                served.charged = True
                served.account.output_constant -= begin
                served.account.charged_decoders += 1
        return step

    def next_change(self) -> int:
        """In how many steps a decoder more is charged, if nothing else happens."""
        step = self.settle()
        return self._later[0][0] - step if self._later else UNBOUNDED

    def new(self, sequence: Sequence) -> bool:
        """Whether its prompt was not charged yet."""
        return sequence not in self._served

    def admitted(self, sequence: Sequence, paid_tokens: int = 0) -> None:
        """A sequence leaves the line; its prompt is charged, and so many output tokens in advance, the first time."""
        if sequence not in self._served:
            account = self.account(sequence.tenant)
            account.prompt_tokens += sequence.prompt_tokens
            account.output_constant += paid_tokens
            self._served[sequence] = _Served(account, paid_tokens)

    def began(self, plan: Plan) -> None:
        """Prefills that end with this plan are decoders after it; who is preempted, swapped or left out takes none."""
        self.settle()
        after = self.running.step + plan.decode
        for sequence in (*plan.preempted, *plan.swapped_out):
            self._returning.pop(sequence, None)
            if sequence in self._decoding:
                self._leave(sequence)
        for sequence in plan.swapped_in:
            if sequence.decoding:
                self._join(sequence, self.running.step)
            else:
                self._returning[sequence] = sequence.generated_tokens
        for sequence in plan.left_out:
            self._leave(sequence)
            self._join(sequence, after)
        for sequence, tokens in plan.prefills:
            if sequence.kv_tokens + tokens == sequence.total_tokens:
                self._served[sequence].account.output_constant += self._prefill_token
                self._join(sequence, after)

    def finished(self, sequence: Sequence) -> None:
        """A sequence ended; what it had paid for and did not use is refunded."""
        step = self.settle()
        if self._double and self._doubled_step < step:
            self._doubled_step = step
            for other in self._decoding:  # the batch of the step that ended
                served = self._served[other]
                served.account.output_constant += served.since < step
        self._leave(sequence)
        served = self._served.pop(sequence)
        served.account.output_constant -= max(0, served.paid_tokens - served.steps)

    def _join(self, sequence: Sequence, step: int) -> None:
        served = self._served[sequence]
        served.since = step
        served.begin = step + max(0, served.paid_tokens - served.steps)
        self._decoding[sequence] = None
        heappush(self._later, (served.begin, sequence.request_id, served.version, served))

    def _leave(self, sequence: Sequence) -> None:
        served = self._served[sequence]
        step = self.running.step
        served.steps += step - served.since
        served.version += 1  # what is in the heap about it is void
        if served.charged:
            served.charged = False
            served.account.output_constant += step
            served.account.charged_decoders -= 1
        del self._decoding[sequence]
