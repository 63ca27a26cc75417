"""Virtual token counters: the tenant that was served least goes first; its predictive variant, and LCF."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.fairness.service_ledger import ServiceLedger, TenantAccount
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.running import Running

__all__ = ["Lcf", "LcfParameters", "PredictiveVtcParameters", "Vtc", "VtcOrder", "VtcParameters", "VtcPredictive"]


class LcfParameters(BaseModel):
    """What a scenario may say about counters of service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    w_p: float = Field(1.0, gt=0, le=1e6, description="price of a prompt token")
    w_q: float = Field(2.0, gt=0, le=1e6, description="price of an output token")
    weights: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = Field(
        (), description="share of each tenant, by its index; 1 where none is given"
    )
    prefill_token_charged: bool = Field(False, description="charge the token that a prefill emits, too")


class VtcParameters(LcfParameters):
    """What a scenario may say about VTC."""

    double_charge_on_finish: bool = Field(
        False, description="charge every decoder a token more in a step where one ends, as S-LoRA's code does"
    )


class PredictiveVtcParameters(LcfParameters):
    """What a scenario may say about predictive VTC."""

    prediction: Literal["ema", "predictor"] = Field(
        "ema", description="lengths: the tenant's moving average (4 old + new) / 5, or the scenario's predictor"
    )


class VtcOrder(Order):
    """First the oldest request of the waiting tenant with the smallest counter, ties to the older tenant.

    A counter is ``(w_p x prompt tokens + w_q x output tokens) / weight``: prompts are charged at admission (so the
    second one admitted in a plan knows of the first), outputs as decode steps are taken. A tenant that comes
    back after its line was empty is lifted to the smallest counter of the other tenants that have
    requests waiting; if none has, it is not (S-LoRA's code; the paper then lifts to the counter of the tenant
    that left the line last). Arrivals enter with the next plan, when counters are those of a boundary. O(tenants)
    for each admission.
    """

    def __init__(self, running: Running, parameters: LcfParameters, *, lift: bool) -> None:
        self.ledger = ServiceLedger(
            running,
            parameters.weights,
            prefill_token_charged=parameters.prefill_token_charged,
            double_charge_on_finish=getattr(parameters, "double_charge_on_finish", False),
        )
        self._w_p, self._w_q = parameters.w_p, parameters.w_q
        self._prediction: str | None = getattr(parameters, "prediction", None)
        self._averages: dict[int, float] = {}
        self._lift = lift
        self._count = 0
        self._arrived: list[Sequence] = []
        self._waiting: dict[int, TenantAccount] = {}  # those with a line
        self._picked: list[Sequence] = []  # of the plan under way
        self._places: dict[TenantAccount, int] = {}  # how far the picks went into each line
        self._owed: dict[TenantAccount, float] = {}  # what they would be charged

    def __len__(self) -> int:
        return self._count

    def counter(self, account: TenantAccount, step: int) -> float:
        """The tenant's counter at a step; the ledger is settled."""
        service = self._w_p * account.prompt_tokens + self._w_q * account.output_tokens(step)
        return account.offset + service / account.weight

    def push(self, sequence: Sequence) -> None:
        """Into its tenant's line, with the next plan."""
        self._count += 1
        self._arrived.append(sequence)

    def push_preempted(self, sequence: Sequence) -> None:
        """To the front of its tenant's line; it was charged already, and lifts nothing."""
        account = self.ledger.account(sequence.tenant)
        account.line.appendleft(sequence)
        self._waiting[sequence.tenant] = account
        self._count += 1
        self._forget()

    def refresh(self, now_s: float) -> None:
        """Arrivals enter, the counters move on."""
        self.ledger.settle()
        for sequence in self._arrived:
            self._enter(sequence)
        self._arrived.clear()
        self._forget()

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, if those before it are admitted."""
        if self._arrived:
            self.refresh(0.0)
        while len(self._picked) <= index:
            self._pick()
        return self._picked[index]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave, and are charged."""
        self.peek(count - 1)
        for sequence in self._picked[:count]:
            account = self.ledger.account(sequence.tenant)
            account.line.popleft()
            if not account.line:
                del self._waiting[sequence.tenant]
            self.ledger.admitted(sequence, self._predicted(sequence))
        self._count -= count
        self._forget()

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Unless its tenant has others waiting: it is lifted at the very next boundary, and may be the head."""
        return sequence.tenant not in self._waiting

    def stable_steps(self) -> int:
        """Until the counter of another waiting tenant passes below that of the head's."""
        if len(self._waiting) < 2:
            return UNBOUNDED
        steps = self.ledger.next_change()
        step = self.ledger.running.step
        head = self.ledger.account(self.peek(0).tenant)
        value, slope = self.counter(head, step), head.charged_decoders / head.weight
        for account in self._waiting.values():
            closing = (slope - account.charged_decoders / account.weight) * self._w_q
            if closing > 0:
                # Too early is safe, so a hair of rounding is taken off.
                steps = min(steps, int((self.counter(account, step) - value) / closing - 1e-6))
        return max(1, steps)

    def began(self, plan: Plan) -> None:
        """Who decodes from now on is charged from now on."""
        self.ledger.began(plan)
        self._forget()

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Refunds, and what the tenant's average learns."""
        self.ledger.finished(sequence)
        old = self._averages.get(sequence.tenant, output_tokens)
        self._averages[sequence.tenant] = (4 * old + output_tokens) / 5
        self._forget()

    def _enter(self, sequence: Sequence) -> None:
        account = self.ledger.account(sequence.tenant)
        if not account.line:
            if self._lift and self._waiting:
                step = self.ledger.running.step
                least = min(self.counter(other, step) for other in self._waiting.values())
                account.offset += max(0.0, least - self.counter(account, step))
            self._waiting[sequence.tenant] = account
        account.line.append(sequence)

    def _pick(self) -> None:
        step = self.ledger.settle()
        open_ = [one for one in self._waiting.values() if self._places.get(one, 0) < len(one.line)]
        chosen = min(open_, key=lambda one: (self.counter(one, step) + self._owed.get(one, 0.0), one.place))
        place = self._places.get(chosen, 0)
        sequence = chosen.line[place]
        self._places[chosen] = place + 1
        self._picked.append(sequence)
        if self.ledger.new(sequence):
            owed = self._w_p * sequence.prompt_tokens + self._w_q * self._predicted(sequence)
            self._owed[chosen] = self._owed.get(chosen, 0.0) + owed / chosen.weight

    def _predicted(self, sequence: Sequence) -> int:
        """Output tokens charged at admission; a tenant of whom nothing has ended yet is charged none."""
        if self._prediction is None:
            return 0
        if self._prediction == "predictor":
            return round(sequence.predicted_tokens)
        return round(self._averages.get(sequence.tenant, 0.0))

    def _forget(self) -> None:
        if self._picked:
            self._picked.clear()
            self._places.clear()
            self._owed.clear()


class _Counters(VllmV1Batching):
    """vLLM v1's batching in the order of tenants' counters."""

    queue: VtcOrder

    def __init__(self, surroundings: Surroundings, order: VtcOrder) -> None:
        super().__init__(surroundings, order)

    def stable_steps(self) -> int:
        """Crossing counters matter only where a place is free."""
        return super().stable_steps() if len(self.running) < self.max_num_seqs else UNBOUNDED


class Vtc(_Counters):
    """Virtual token counters: the tenant served least goes first, weighted; fair to within a bound (S-LoRA, OSDI 2024).

    The order is :class:`VtcOrder`. It is served on vLLM v1's batching until a head does not fit, and no
    other tenant is tried then. Not imitated: S-LoRA forms new batches only every 10 decode steps, and
    admits by LightLLM's conservative peak, so that it never preempts; a sequence that is preempted here goes to
    the front of its tenant's line and is not charged for its prompt again.
    """

    Parameters = VtcParameters

    def __init__(self, surroundings: Surroundings) -> None:
        parameters = surroundings.parameters or VtcParameters()
        super().__init__(surroundings, VtcOrder(surroundings.running, parameters, lift=True))


class VtcPredictive(_Counters):
    """VTC that charges a predicted output at admission and refunds what is not used (S-LoRA's VTC-predict).

    Decode tokens are free up to the prediction (rounded) and charged beyond it.
    """

    Parameters = PredictiveVtcParameters

    def __init__(self, surroundings: Surroundings) -> None:
        parameters = surroundings.parameters or PredictiveVtcParameters()
        super().__init__(surroundings, VtcOrder(surroundings.running, parameters, lift=True))


class Lcf(_Counters):
    """Least counter first: VTC without the lift, so that who was idle may starve the others (VTC's baseline)."""

    Parameters = LcfParameters

    def __init__(self, surroundings: Surroundings) -> None:
        parameters = surroundings.parameters or LcfParameters()
        super().__init__(surroundings, VtcOrder(surroundings.running, parameters, lift=False))
