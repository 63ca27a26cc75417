"""FastServe: a skip-join multi-level feedback queue with proactive swapping."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import islice

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.host_copies import HostCopies
from servsim.scheduler.lengths.fastserve_parameters import FastServeParameters
from servsim.scheduler.lengths.feedback_queue import Entry, FeedbackQueue, Job, Place
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["FastServe"]


@dataclass(slots=True)
class _Draft:
    """What a plan means to the jobs."""

    round: Round
    batch: list[Job]
    entering: list[Job]  # of the batch, those who do not run yet
    parked: list[Job] = field(default_factory=list)
    swapped: list[Job] = field(default_factory=list)
    dropped: list[Job] = field(default_factory=list)
    fetched: list[Job] = field(default_factory=list)
    copied_in: list[Job] = field(default_factory=list)
    copy_s: float = 0.0
    out_blocks: int = 0  # that are taken in the swap space
    back_blocks: int = 0
    decode: bool = False  # whether somebody in the batch does
    stalls: bool = False  # whether the decoders wait for prefills alone


class FastServe:
    """Skip-join MLFQ over iterations: short first tokens first, long jobs sink, KV is swapped ahead (FastServe).

    The batch is filled from the first level down, front to back: until ``max_num_seqs``, or until the
    prompts of new jobs exceed ``max_num_batched_tokens`` (decoders take none); nobody behind that is served in this
    iteration. Prompts are prefilled whole, in one iteration with decoders; one that exceeds the budget
    goes with no other new one. Who is not in the batch keeps its KV on the device ("swapped" in the records, at no
    cost) until the memory is needed: then the last ones in line are swapped out, and if there is nobody left, those
    at the tail of the batch. With ``proactive`` as many blocks as ``max_num_seqs`` (a tenth of the memory at
    most) are kept free, and while more are free, the first ones in line that are swapped come back ahead of their turn.
    Where the swap space is full a job's KV is dropped and computed again, as a new job's would be: the original
    has no rule for that.

    Source: the released code (SwiftTransformer's scheduler): a first quantum of 10 ms, promotion every 1,000
    iterations, swaps by level and not by the paper's estimated next scheduled time. Other than there, a
    job that never ran counts as stepped at its arrival, a batch keeps its order when it is put back, and copies
    are synchronous, unless with a tier ``swap_copies: async`` lets them overlap with computation, as FastServe
    does: a member of the batch then keeps its place in it, uncharged, until its KV is there, as does a new job whose
    prefix an allocator fetches; pushed out before it emits, it is dropped. Iteration times include copies that are
    waited for; first ones are the cost model's. Paged memory only is swapped proactively.

    Further deviations: the token cap counts prompts only and never holds a decoder back; the reservation is not
    repeated with an empty batch after an iteration; a copy's launch costs nothing unless ``copy_launch_s`` is given
    (5 us in ``priority_trace`` and ``vllm_v0``). In the results whoever leaves the batch, parked on the device or
    swapped, has a pause of reason ``swapped`` and counts as preempted once.
    """

    Parameters = FastServeParameters
    asynchronous = False
    swaps = True

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.running = surroundings.running
        self.memory = surroundings.memory
        self.max_num_seqs = surroundings.max_num_seqs
        self.max_num_batched_tokens = surroundings.max_num_batched_tokens
        self.settings: FastServeParameters = surroundings.parameters or FastServeParameters()
        quantum_s = self.settings.quantum_s
        if self.settings.first_quantum == "min_iteration":
            quantum_s = surroundings.decode_s(1, 1) or quantum_s
        self.queue = FeedbackQueue(quantum_s)
        self.swap = HostCopies(surroundings, self.settings)
        self._spare = min(self.max_num_seqs, self.memory.total_blocks // 10) if self.settings.proactive else 0
        self._jobs: dict[Sequence, Job] = {}
        self._run = 0  # jobs that the engine runs
        self._settled = False  # the batch is what runs, until something happens
        self._watched = True  # whether enough blocks are free, and shall be kept so
        self._prefill_iterations = 0  # those that the shared step counter does not count
        self._looked = 0  # the iteration of the latest look for starving jobs
        self._now_s = 0.0
        self._draft: _Draft | None = None
        self._awaited: dict[Job, None] = {}  # who is in the batch, and whose KV is on its way
        self._settled_blocks = 0  # of the swap space in use when the batch was settled

    @property
    def waiting(self) -> int:
        """How many sequences do not run: new, parked and swapped ones."""
        return len(self._jobs) - self._run

    def head(self) -> Sequence | None:
        """The first in line that does not run."""
        for _, _, job in sorted([*self.queue.started, *self.queue.fresh]):
            if job.place is not Place.RUNNING:
                return job.sequence
        return None

    def accepts(self, sequence: Sequence) -> bool:
        """Every request is taken."""
        return True

    def add(self, sequence: Sequence) -> None:
        """A sequence joins the level of its first iteration."""
        first_s = self.surroundings.prefill_s(sequence.prompt_tokens)
        self._jobs[sequence] = self.queue.join(sequence, first_s)
        if self.arrival_matters(sequence):
            self._settled = False

    def arrival_matters(self, sequence: Sequence) -> bool:
        """Not where new jobs are held back, nor behind a full batch."""
        if self._valve_shut():
            return False
        started = self.queue.started
        if self._run < self.max_num_seqs or self._run > len(started):
            return True
        return self._jobs[sequence].entry < started[self._run - 1]

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """A job is done."""
        self.queue.remove(self._jobs.pop(sequence))
        self._run -= 1
        if self._jobs:
            self._settled = self._settled and self.waiting == 0

    def timer_s(self) -> float:
        """The next demotion."""
        return self.queue.next_demotion_s()

    def stable_steps(self) -> int:
        """Until the next look for starving jobs, or until so little memory is free that somebody is swapped out."""
        period = self.settings.promotion_iterations
        return max(1, self._steps_with_spare(period - self._iteration % period))

    def plan(self, now_s: float) -> Plan:
        """Serve the first in line."""
        self._refresh(now_s)
        if not self._jobs:
            return IDLE
        if self._settled and self.memory.steps_until_full(1) and self._spared(1):
            return DECODE if self.running.decoders else IDLE
        draft = self._compose()
        plan = self._spelt_out(draft)
        self._draft = draft
        self._settled = plan.plain
        if self._settled:
            self._settled_blocks = self.swap.used_blocks
            # Nobody could be swapped out, if there is too little already; only an event changes that.
            self._watched = self._free_after(1) >= self._spare
        return plan

    def begin(self, plan: Plan) -> None:
        """Jobs go where the plan puts them."""
        draft, now_s, queue = self._draft, self._now_s, self.queue
        assert draft is not None
        for job, place in (
            *((job, Place.PARKED) for job in (*draft.parked, *draft.fetched)),
            *((job, Place.SWAPPED) for job in draft.swapped),
            *((job, Place.FRESH) for job in draft.dropped),
        ):
            if job.place is Place.RUNNING:
                self._run -= 1
                self._awaited.pop(job, None)
            queue.rest(job, now_s)
            if place is Place.FRESH:
                job.sequence.kv_tokens = 0
            queue.move(job, place)
        self.swap.moved(draft.out_blocks - draft.back_blocks)
        for job in draft.entering:
            self._run += 1
            overlaps = self.swap.asynchronous or job.place is Place.FRESH  # with other steps, if its KV is on its way
            queue.move(job, Place.RUNNING)
            if overlaps and job.sequence in self.memory.loading:
                self._awaited[job] = None
            elif not draft.stalls:
                queue.serve(job, now_s)
        if draft.stalls and (prefilled := [job for job in draft.batch if job not in self._awaited]):
            queue.stall(prefilled, now_s)
        self._prefill_iterations += not plan.decode
        self._settled = False

    @property
    def _iteration(self) -> int:
        return self.running.step + self._prefill_iterations

    def _valve_shut(self) -> bool:
        return self.swap.free_blocks < self.settings.fresh_valve * self.swap.total_blocks and self.swap.used_blocks > 0

    def _refresh(self, now_s: float) -> None:
        """Charges, demotions and promotions up to now; asked twice, the second time finds nothing to do."""
        self._now_s = now_s
        demoted = self.queue.advance(now_s)
        for job in [job for job in self._awaited if job.sequence not in self.memory.loading]:
            del self._awaited[job]
            self.queue.serve(job, now_s)
            self._settled = False
        if self._settled_blocks != self.swap.used_blocks:
            self._settled = False  # new jobs may be let in again
        if demoted and self._settled:
            last = self.queue.started[self._run - 1]
            behind = max(job.entry for job in demoted) > last
            overtaken = bool(self.queue.fresh) and not self._valve_shut() and self.queue.fresh[0] < last
            self._settled = not (behind or overtaken)
        iteration = self._iteration
        if iteration != self._looked and iteration % self.settings.promotion_iterations == 0:
            self._looked = iteration
            if self.queue.promote(now_s, self.settings.starving_s):
                self._settled = False

    def _batch(self) -> list[Job]:
        """Whom the budgets let be served, started ones first; memory aside."""
        started, budget = self.queue.started, self.max_num_batched_tokens
        new: list[Job] = []
        limit, prompts = len(started), sum(map(_lacking, self.running.prefilling))
        for entry in () if self._valve_shut() else self.queue.fresh:
            ahead = bisect_left(started, entry)
            if ahead + len(new) >= self.max_num_seqs:
                break
            tokens = entry[2].sequence.total_tokens
            if prompts and prompts + tokens > budget:
                limit = ahead
                break
            new.append(entry[2])
            prompts += tokens
        limit = min(limit, self.max_num_seqs - len(new))
        batch = [entry[2] for entry in started[:limit]]
        return sorted([*batch, *new], key=lambda job: (job.level, job.position)) if new else batch

    def _compose(self) -> _Draft:
        """The batch, and whose KV moves for it."""
        batch = self._batch()
        draft = self._quick(batch) or self._squeezed(batch)
        new = [job for job in draft.entering if job.place is Place.FRESH]
        starting = sum(map(self._is_starting, draft.batch)) if self._awaited or self.running.prefilling else 0
        draft.decode = len(draft.batch) > len(new) + starting
        draft.stalls = not draft.decode and bool(new or self._arrived(draft.batch))
        gone = {*draft.swapped, *draft.dropped}
        # The batch is the front of the line.
        rest = self.queue.started[len(draft.batch) - len(new) :]
        if self._spare and hasattr(draft.round, "free_blocks"):
            self._keep_spare(draft, rest, gone)
            gone = {*draft.swapped, *draft.dropped}
        if not draft.stalls:
            still = len(draft.batch) - len(draft.entering) + sum(job.place is Place.RUNNING for job in gone)
            running = (job for _, _, job in rest if job.place is Place.RUNNING and job not in gone)
            for job in islice(running, self._run - still):  # the line is long, and they stand at its front
                if self._is_starting(job):
                    self._evict(draft, job)
                else:
                    draft.parked.append(job)
        return draft

    def _arrived(self, batch: list[Job]) -> list[Sequence]:
        """Those in the batch whose prefill goes on, since the KV that was found for them is there."""
        begun = self.running.prefilling
        return [job.sequence for job in batch if job.sequence in begun] if begun else []

    def _is_starting(self, job: Job) -> bool:
        """Whether it was admitted and has not emitted: KV that an allocator found below the device was on its way."""
        return job.place is Place.RUNNING and not job.sequence.decoding and not self.swap.asynchronous

    def _quick(self, batch: list[Job]) -> _Draft | None:
        """All who run grow at once, the others find room; None where memory must be made."""
        running = Place.RUNNING  # looked up once: of an enumeration that is slow (benchmarks/policies.py)
        draft = _Draft(self.memory.round(), batch, [job for job in batch if job.place is not running])
        if not draft.round.grow_decoders():
            return None
        for job in (*map(self._jobs.__getitem__, self._arrived(batch)), *draft.entering):
            if not self._grant(draft, job, alone=job is batch[0]):
                return None
        return draft

    def _squeezed(self, batch: list[Job]) -> _Draft:
        """One after the other gets its memory, from the last in line, then from the tail of the batch."""
        draft = _Draft(self.memory.round(), [], [])
        chosen = set(batch)
        losers = [entry[2] for entry in self.queue.started if entry[2] not in chosen]
        losers = [job for job in losers if job.place is not Place.SWAPPED]
        rest = batch[::-1]
        while rest:
            job = rest.pop()
            while not self._grant(draft, job, alone=not draft.batch):
                if losers:
                    self._evict(draft, losers.pop())
                elif rest:
                    last = rest.pop(0)
                    if last.place in (Place.RUNNING, Place.PARKED):
                        self._evict(draft, last)
                else:
                    return draft
            draft.batch.append(job)
            if job.place is not Place.RUNNING:
                draft.entering.append(job)
        return draft

    def _grant(self, draft: _Draft, job: Job, *, alone: bool) -> bool:
        sequence = job.sequence
        if job.place is Place.FRESH:
            return draft.round.admit(sequence, draft.round.lacking(sequence), alone=alone)
        if sequence in self.running.prefilling:
            return draft.round.extend(sequence, _lacking(sequence))
        if job.place is not Place.SWAPPED:
            return sequence in self.memory.loading or draft.round.grow(sequence, self.running.kv_tokens(sequence))
        if not draft.round.restore(sequence):
            return False
        self._comes_back(draft, job)
        return True

    def _evict(self, draft: _Draft, job: Job) -> None:
        """Its KV leaves the device: to the swap space, or for good."""
        draft.round.release(job.sequence, self.running.kv_tokens(job.sequence))
        if self._is_starting(job) or not self._has_room(draft, job):
            draft.dropped.append(job)
            return
        blocks = self._blocks(job)
        draft.swapped.append(job)
        draft.copy_s += self.swap.copy_s(blocks)
        draft.out_blocks += self.swap.takes_blocks(job.sequence, blocks)

    def _keep_spare(self, draft: _Draft, rest: list[Entry], gone: set[Job]) -> None:
        """Swap out from the end of the line while too little is free, else swap in from its front."""
        round_, spare = draft.round, self._spare
        if round_.free_blocks < spare:  # type: ignore[attr-defined]
            for _, _, job in reversed(rest):
                if job in gone:
                    continue
                if job.place is not Place.SWAPPED and self._has_room(draft, job):
                    self._evict(draft, job)
                    if round_.free_blocks >= spare:  # type: ignore[attr-defined]
                        return
            return
        if self.swap.used_blocks and round_.free_blocks > spare:  # type: ignore[attr-defined]
            idle = (job for _, _, job in rest if job not in gone)
            for job in islice(idle, self.max_num_seqs):
                if job.place is Place.SWAPPED:
                    size = self._blocks(job) + 1
                    if round_.free_blocks < spare + size or not round_.restore(job.sequence):  # type: ignore[attr-defined]
                        return
                    self._comes_back(draft, job)
                    draft.fetched.append(job)

    def _has_room(self, draft: _Draft, job: Job) -> bool:
        """Whether the swap space does for a job, besides those whom this draft swaps out."""
        taken = self.swap.takes_blocks(job.sequence, self._blocks(job))
        return taken <= self.swap.free_blocks - draft.out_blocks

    def _comes_back(self, draft: _Draft, job: Job) -> None:
        blocks = self._blocks(job)
        draft.copied_in.append(job)
        draft.copy_s += self.swap.copy_s(blocks)
        draft.back_blocks += blocks

    def _blocks(self, job: Job) -> int:
        return -(-self.running.kv_tokens(job.sequence) // self.memory.block_size)

    def _spelt_out(self, draft: _Draft) -> Plan:
        """The plan of a draft; the plain decode plan where nothing moves."""
        entering = [(job.place is Place.FRESH, job.sequence) for job in draft.entering]
        new = [(sequence, draft.round.lacking(sequence)) for fresh, sequence in entering if fresh]
        going = [(one, _lacking(one)) for one in self._arrived(draft.batch)]
        back = [sequence for fresh, sequence in entering if not fresh]
        moved = (draft.parked, draft.swapped, draft.dropped, draft.fetched)
        if not new and not going and not back and not any(moved):
            return DECODE if self.running.decoders else IDLE
        out = [job.sequence for job in (*draft.parked, *draft.swapped) if job.place is Place.RUNNING]
        dropped = [job.sequence for job in draft.dropped if job.place is Place.RUNNING]
        copied_out = [job.sequence for job in draft.swapped]
        copied_in = [job.sequence for job in draft.copied_in]
        moves = (dropped, out, back, copied_out, copied_in, draft.copy_s)
        return Plan([*going, *new], len(new), draft.decode, (), *moves, draft.round)

    def _spared(self, steps: int) -> bool:
        """Whether nobody has to be swapped out within so many steps, to keep blocks free."""
        if not self._spare or not self._watched or self._run == len(self.queue.started):
            return True
        return self._free_after(steps) >= self._spare

    def _free_after(self, steps: int) -> int:
        return self.memory.total_blocks - self.memory.blocks_after(steps)

    def _steps_with_spare(self, at_most: int) -> int:
        if self._spared(at_most):
            return at_most
        low, high = 0, at_most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._spared(middle) else (low, middle)
        return low


def _lacking(sequence: Sequence) -> int:
    """Tokens that a prefill under way has yet to compute."""
    return sequence.total_tokens - sequence.kv_tokens
