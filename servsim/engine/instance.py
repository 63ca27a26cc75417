"""One serving engine on its devices, as a SimPy process: plan, stride, commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator

import simpy

from servsim.clock import BOUNDARY, PLAN, TIMER, schedule_at
from servsim.cost.stride import Stride
from servsim.engine.decoders import Decoders
from servsim.engine.exposed import exposed_step
from servsim.engine.intake import Intake
from servsim.engine.observation import Observation
from servsim.engine.pace import Pace
from servsim.engine.parts import Parts
from servsim.engine.pauses import Pauses
from servsim.engine.swapping import Swapping
from servsim.errors import SimulationError
from servsim.request import Request, Sequence
from servsim.scheduler.plan import Plan

__all__ = ["Instance", "Observation", "Parts"]

Waiting = Generator[simpy.Event, None, None]


class Instance:
    """Continuous batching on one engine.

    Life: idle until a request arrives; then plan, let the step (or stride) pass, commit what it
    produced, and plan again until nothing is left. Arrivals are seen at step boundaries only.
    """

    def __init__(
        self, env: simpy.Environment, index: int, parts: Parts, on_end: Callable[[Request, bool], None] | None = None
    ) -> None:
        self.env = env
        self.index = index
        self.policy = parts.policy
        self.running = parts.running
        self.memory = parts.memory
        self._predictor = parts.predictor
        self._facts = parts.facts
        self._single = parts.single_stepping
        self._on_end = on_end
        self._wake_up = (BOUNDARY if on_end is None else PLAN) + index
        self._intake = Intake(env, index, parts, on_end, self._arrived)
        self._asynchronous = getattr(parts.policy, "asynchronous", False)
        self._unseen: deque[tuple[float, Sequence]] = deque()  # arrived, and not yet seen by an asynchronous policy
        self._step_began_s = 0.0  # when the latest step began
        self._loading_since: dict[Sequence, float] = {}  # admitted, but their KV is still on its way
        self._transferred = False  # a copy between memories has ended since the latest plan
        self.memory.changed = self._transfer_ended
        self._swapping: Swapping | None = None
        if parts.swap_space is not None:
            self._swapping = Swapping(env, parts, parts.swap_space, self._transfer_ended)
        self._decoders = Decoders(parts)
        self._completions = self._decoders.completions
        self._pace = Pace(parts, self._decoders)
        if parts.lane is not None:
            parts.lane.cut = self._cut_at
        self._pauses = Pauses(parts.facts)
        self._admissions = 0
        self._idle: simpy.Event | None = None
        self._stride: Stride | None = None  # under way, with the steps that are committed and those to be
        self._steps_done = 0
        self._steps_target = 0
        self._boundary: simpy.Event | None = None  # the wake-up at the end of the target step; None: not to be moved
        self.process = env.process(self._run())

    def submit(self, request: Request) -> None:
        """A request arrives, now. It is rejected at once if it can never be held, or if the policy does not take it."""
        self._intake.submit(request)

    def _arrived(self, sequence: Sequence) -> None:
        """A sequence enters: the policy sees it now, or a step late where it plans asynchronously."""
        if self._asynchronous and self._idle is None:
            self._unseen.append((self.env.now, sequence))
            if self._boundary is not None:
                self._cut(steps_later=1)
            return
        self.policy.add(sequence)
        if self._idle is not None:
            self._wake(self._idle)
        elif self._boundary is not None and self.policy.arrival_matters(sequence):
            self._cut()

    def _show(self, until_s: float) -> None:
        """The policy sees what had arrived by ``until_s``."""
        while self._unseen and self._unseen[0][0] <= until_s:
            self.policy.add(self._unseen.popleft()[1])

    @property
    def waiting(self) -> int:
        """Sequences that wait, whether or not the policy sees them yet."""
        return self.policy.waiting + len(self._unseen)

    def observe(self, now_s: float) -> Observation:
        """Counts and KV use at ``now_s``: of a stride under way, the steps that ended before ``now_s`` count."""
        steps = 0
        if self._stride is not None and self._boundary is not None:
            steps = max(0, self._stride.first_end_at_or_after(now_s) - 1 - self._steps_done)
        return Observation(
            self.waiting + self._intake.predicting,
            len(self.running),
            self.memory.blocks_after(steps),
            self.memory.total_blocks,
        )

    def report(self) -> dict[str, float]:
        """What happened to KV, in numbers that can be added up over instances."""
        return {**self.memory.report(), **({} if self._swapping is None else self._swapping.space.report())}

    @property
    def num_unfinished(self) -> int:
        """How many requests have arrived and not ended."""
        return len(self._intake.requests)

    def unfinished(self) -> list[tuple[Sequence, Request]]:
        """What has not ended, in the order in which it was queued."""
        return list(self._intake.requests.items())

    def _run(self) -> Waiting:
        while True:
            if self._unseen:
                self._show(self._step_began_s)
            if self._transferred:
                self._take_loaded()
            began_s = self.env.now
            plan = self.policy.plan(began_s)
            plain = plan.plain
            if plain and self._swapping is not None and self._swapping.holds_up(plan):
                self._end_stride(0, self.running.decoders)
                yield from self._swapping.wait(plan)
                continue
            if not plain:
                self._end_stride(0, self.running.decoders)
                if plan.idle:
                    if self._unseen:
                        self._show(self.env.now)  # with nothing to run, the next plan follows at once
                    else:
                        yield self._sleep()
                    continue
                plan = self._begin(plan)
                if self._swapping is not None:
                    yield from self._swapping.wait(plan)
                    if not self._swapping.space.asynchronous:
                        self._take_loaded()
                if plan.instant:
                    continue  # preemptions alone take no time
            stalled = plain and self.memory.stalls
            if stalled:
                self._end_stride(0, self.running.decoders)
            stride = self._stride_of(plan, began_s, plain)
            if (stalled or not plain) and (fetches := self.memory.exposed()):
                stride = self._stride = yield from exposed_step(self.env, stride, fetches)
            steps = self._repeatable_steps(stride) if plain else 1
            yield from self._pass_time(stride, steps)
            ended = self._commit(plan, plain)
            if self._on_end is not None:
                for request in ended:
                    self._on_end(request, True)
                # What ends here or elsewhere at this very instant may cause arrivals, and they go before the plan.
                turn = simpy.Event(self.env)
                schedule_at(self.env, turn, self.env.now, PLAN + self.index)
                yield turn

    def _sleep(self) -> simpy.Event:
        """Nothing to do until something arrives or the policy's timer rings; raises if something waits for nothing."""
        self._idle = idle = simpy.Event(self.env)
        self._pace.sleep()
        if len(self._intake.requests) > self._intake.predicting:
            timer_s = self.policy.timer_s()
            if not self.env.now < timer_s < float("inf"):
                if self.memory.transfers or (self._swapping is not None and self._swapping.copies()):
                    return idle  # the end of a copy wakes it
                stuck = self.policy.head() or next(iter(self.running.sequences or self._intake.requests))
                raise SimulationError(
                    f"instance {self.index} plans nothing at {self.env.now} s while request {stuck.request_id} waits"
                )
            self._wake_at(idle, timer_s)
        return idle

    def _wake_at(self, idle: simpy.Event, time_s: float) -> None:
        """Ring for an instance that is still asleep at ``time_s``."""
        timer = simpy.Event(self.env)
        assert timer.callbacks is not None
        timer.callbacks.append(lambda _: self._wake(idle))
        schedule_at(self.env, timer, time_s, TIMER)

    def _wake(self, idle: simpy.Event | None) -> None:
        """Plan at this instant, once all that arrives now has arrived; not if it was woken before."""
        if idle is not None and idle is self._idle:
            self._idle = None
            schedule_at(self.env, idle, self.env.now, self._wake_up)

    def _transfer_ended(self) -> None:
        """KV has arrived, or memory is free again: the next plan may be another one."""
        self._transferred = True
        if self._idle is not None:
            self._wake(self._idle)
        elif self._boundary is not None:
            self._cut()

    def _take_loaded(self) -> None:
        """Sequences whose KV has arrived go on."""
        self._transferred = False
        for sequence in self.memory.loaded():
            self.running.prefilling[sequence] = None
            sequence.transfer_wait_s += self.env.now - self._loading_since.pop(sequence)
        for sequence in () if self._swapping is None else self._swapping.arrived():
            sequence.transfer_wait_s += self.env.now - self._loading_since.pop(sequence)
            self._end_stride(0, self.running.decoders)
            self._go_on(sequence)

    def _begin(self, plan: Plan) -> Plan:
        """Carry out what a plan does at the start of its step; the plan without those that must wait for their KV."""
        assert plan.round is not None
        now_s = self.env.now
        for sequence in (*plan.preempted, *plan.swapped_out):
            if sequence.decoding:
                self._decoders.stop(sequence)
            sequence.preemptions += 1
            self.running.remove(sequence)
            if sequence in self._loading_since:
                sequence.transfer_wait_s += now_s - self._loading_since.pop(sequence)
            self._pauses.begin(sequence)
        self.memory.commit(plan.round)
        if self._swapping is not None:
            self._swapping.begin(plan)
        for sequence in plan.preempted:
            sequence.kv_tokens = 0
        for sequence in plan.swapped_out:
            sequence.swapped = True
        for sequence in plan.swapped_in:
            self._swap_in(sequence, plan.copy_s)
        self.policy.begin(plan)
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._number(sequence)
            self.running.admit(sequence)
            if sequence.scheduled_s != sequence.scheduled_s:  # NaN: for the first time
                sequence.scheduled_s = now_s
                sequence.cached_tokens = max(sequence.cached_tokens, sequence.kv_tokens)
        if self.memory.loading:
            plan = self._without_loading(plan)
        if self._swapping is not None and self._swapping.space.asynchronous and not self.running.decoders:
            plan = plan._replace(decode=False)  # those whom the policy counted on are not there yet
        for sequence in () if plan.instant else plan.left_out:
            self._decoders.stop(sequence)
            self._pauses.begin(sequence)
        return plan

    def _without_loading(self, plan: Plan) -> Plan:
        """The plan without the prefills whose KV is still on its way."""
        loading = self.memory.loading
        for sequence, _ in plan.prefills:
            if sequence in loading and sequence in self.running.prefilling:
                del self.running.prefilling[sequence]
                self._loading_since[sequence] = self.env.now
        return plan._replace(prefills=[(one, tokens) for one, tokens in plan.prefills if one not in loading])

    def _swap_in(self, sequence: Sequence, copy_s: float) -> None:
        """A swapped sequence runs again, and goes on where it was unless its KV is on its way."""
        self._number(sequence)
        self.running.admit(sequence)
        if self._swapping is not None and self._swapping.awaits(sequence):
            del self.running.prefilling[sequence]
            self._loading_since[sequence] = self.env.now
            return
        sequence.transfer_wait_s += copy_s
        self._go_on(sequence)

    def _go_on(self, sequence: Sequence) -> None:
        """Its KV is there: it decodes, or prefills what is lacking."""
        if sequence.generated_tokens and sequence.kv_tokens == sequence.total_tokens - 1:
            self.running.prefilling.pop(sequence, None)
            self._start_decoding(sequence)
            self._pauses.resuming.append(sequence)
        else:
            self.running.prefilling[sequence] = None

    def _number(self, sequence: Sequence) -> None:
        sequence.admission = self._admissions
        self._admissions += 1

    def _stride_of(self, plan: Plan, began_s: float, plain: bool) -> Stride:
        """The stride that this plan goes on with, or a new one: anchored now, or for a step when its copies began."""
        if plain:
            if self._stride is not None and self._steps_done >= self._stride.limit:
                self._end_stride(0, self.running.decoders)  # another virtual engine woke after the latest commit
            if self._stride is None:
                self._stride = self._pace.decode(self.env.now)
                self._steps_done = 0
            return self._stride
        self._stride = self._pace.step(plan, began_s, self.env.now)
        self._steps_done = 0
        return self._stride

    def _repeatable_steps(self, stride: Stride) -> int:
        """How many of the next steps are surely the plain plan again; 1 whenever in doubt."""
        if self._single or self._pauses.resuming or self._unseen:
            return 1
        steps = min(self._completions.next_step() - self.running.step, stride.limit - self._steps_done)
        if steps > 1:
            steps = min(self.memory.steps_until_full(steps), self.policy.stable_steps())
        if steps > 1 and (timer_s := self.policy.timer_s()) < stride.end_s(self._steps_done + steps):
            steps = stride.first_end_at_or_after(timer_s) - self._steps_done
        if steps > 1 and self._swapping is not None and self._swapping.gated(steps):
            return 1
        return max(1, steps)

    def _pass_time(self, stride: Stride, steps: int) -> Waiting:
        """Wait for the end of the last of ``steps`` steps, or of the one under way when something cuts the stride."""
        boundary = simpy.Event(self.env)
        self._steps_target = self._steps_done + steps
        schedule_at(self.env, boundary, stride.end_s(self._steps_target), BOUNDARY + self.index)
        self._boundary = boundary if steps > 1 else None
        yield boundary
        self._boundary = None

    def _cut(self, steps_later: int = 0) -> None:
        """End the stride with the step that is under way now (or later)."""
        assert self._stride is not None
        self._cut_at(max(self._stride.first_end_at_or_after(self.env.now), self._steps_done + 1) + steps_later)

    def _cut_at(self, step: int) -> None:
        """End the stride with this step of it: its wake-up moves to an earlier boundary."""
        if self._boundary is None or step >= self._steps_target:
            return
        assert self._stride is not None
        # A new event takes over the callbacks of the old one, which stays in SimPy's queue and does nothing.
        # Cheaper than an interrupt or a condition: benchmarks/speed.py.
        earlier = simpy.Event(self.env)
        earlier.callbacks, self._boundary.callbacks = self._boundary.callbacks, []
        schedule_at(self.env, earlier, self._stride.end_s(step), BOUNDARY + self.index)
        self._steps_target = step
        self._boundary = earlier

    def _commit(self, plan: Plan, plain: bool) -> list[Request]:
        """The steps have passed: tokens appear, blocks grow, sequences end. Returns the requests that ended."""
        running = self.running
        now_s = self.env.now
        steps = self._steps_target - self._steps_done
        self._steps_done = self._steps_target
        if self._asynchronous and self._stride is not None:
            self._step_began_s = self._stride.end_s(self._steps_target - 1)
        decoders = 0
        if plan.decode:
            decoders = running.decoders
            self._decoders.advance(steps)
            self._pauses.decoded(now_s)
        for sequence in plan.left_out:
            self._start_decoding(sequence)
            self._pauses.resuming.append(sequence)
        if not plain:
            prefill_tokens = 0
            for sequence, tokens in plan.prefills:
                prefill_tokens += tokens
                sequence.kv_tokens += tokens
                if sequence.kv_tokens == sequence.total_tokens:
                    self._emit_after_prefill(sequence, now_s)
            self._end_stride(prefill_tokens, decoders)
        due = self._completions.pop_until(running.step)
        if due or (self._stride is not None and self._steps_done == self._stride.limit):
            self._end_stride(0, decoders)
        return [self._finish(one, now_s) for one in due if one.width == 1 or self._decoders.ends(one)]

    def _emit_after_prefill(self, sequence: Sequence, now_s: float) -> None:
        """The step that ended a prefill emits a token; from now on the sequence decodes."""
        sequence.generated_tokens += 1
        sequence.token_s = now_s
        if sequence.first_token_s != sequence.first_token_s:  # NaN: not yet
            sequence.first_token_s = now_s
        elif sequence.paused_s == sequence.paused_s:
            self._facts.paused(sequence, now_s)
        del self.running.prefilling[sequence]
        self._start_decoding(sequence)

    def _start_decoding(self, sequence: Sequence) -> None:
        self._decoders.start(sequence, self._intake.requests[sequence])

    def _finish(self, sequence: Sequence, now_s: float) -> Request:
        request = self._intake.requests.pop(sequence)
        self._decoders.leave(sequence)
        self.running.remove(sequence)
        self.memory.release(sequence)
        self.policy.finished(sequence, request.output_tokens)
        self._predictor.learn(request, request.output_tokens)
        self._facts.finished(sequence, request.output_tokens, self.index, now_s)
        return request

    def _end_stride(self, prefill_tokens: int, decoders: int) -> None:
        """Write down the stride (or step with prefill) that ends here, if one does."""
        if self._stride is not None:
            done = (self._stride, self._steps_done, prefill_tokens, decoders)
            self._facts.stride(self.index, *done, self.waiting, self.memory)
            self._stride = None
