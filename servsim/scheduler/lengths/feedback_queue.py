"""FastServe's skip-join feedback queue: levels, quanta, demotion and promotion, without any memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

from servsim.request import Sequence

__all__ = ["Entry", "FeedbackQueue", "Job", "Place", "join_level"]


class Place(Enum):
    """Where a job's KV is, and whether the engine runs it."""

    FRESH = 0  # no KV: not started, or dropped
    RUNNING = 1
    PARKED = 2  # on the device, but not running
    SWAPPED = 3  # in host memory


@dataclass(slots=True, eq=False)
class Job:
    """A sequence in the queue."""

    sequence: Sequence
    level: int
    position: int  # within the level
    last_step_s: float
    place: Place = Place.FRESH
    charged_s: float = 0.0  # of its quantum, up to ``since_s``
    since_s: float = 0.0  # service time at which it entered the batch
    serving: bool = False
    ended: bool = False
    due_s: float = 0.0  # service time at which its quantum is used up, while it is served
    noted_s: float = float("inf")  # the time of its note in the heap, at or before ``due_s``
    notes: int = 0

    @property
    def entry(self) -> Entry:
        """Its place in line, to be sorted by."""
        return (self.level, self.position, self)


Entry = tuple[int, int, Job]


def join_level(first_s: float, quantum_s: float) -> int:
    """The smallest level whose quantum ``quantum_s * 2**level`` covers the first iteration."""
    level = 0
    while quantum_s * 2**level < first_s:
        level += 1
    return level


class FeedbackQueue:
    """Jobs by level and place in it. Every member of a batch is charged the full time of each iteration.

    Members that are served on and on are charged by a clock, not step by step: it stands still while all
    of them are stalled. A job is demoted at the first boundary where it was charged *more* than the quantum of
    its level, one level at a time, and its charge begins anew. A batch goes back to the front of its
    levels in the order that it had.
    """

    def __init__(self, quantum_s: float) -> None:
        self.quantum_s = quantum_s
        self.started: list[Entry] = []
        self.fresh: list[Entry] = []
        self._stalled_s = 0.0  # for how long the clock has stood still
        self._stall_since_s: float | None = None
        self._stall_batch: list[Job] = []
        self._advanced_s = -1.0  # the latest boundary seen
        self._served_until_s = 0.0  # when those who run were stepped last
        self._due: list[tuple[float, int, int, Job]] = []
        self._front = 0
        self._back = 0

    def join(self, sequence: Sequence, first_s: float) -> Job:
        """A request arrives: at the end of the level that covers its first iteration."""
        self._back += 1
        job = Job(sequence, join_level(first_s, self.quantum_s), self._back, sequence.arrival_s)
        insort(self.fresh, job.entry)
        return job

    def remove(self, job: Job) -> None:
        """It ended."""
        job.serving = False
        job.ended = True
        _take(self.fresh if job.place is Place.FRESH else self.started, job)

    def move(self, job: Job, place: Place) -> None:
        """Its KV goes somewhere else."""
        before = self.fresh if job.place is Place.FRESH else self.started
        after = self.fresh if place is Place.FRESH else self.started
        job.place = place
        if before is not after:
            _take(before, job)
            insort(after, job.entry)

    def serve(self, job: Job, now_s: float) -> None:
        """It is in the batch from now on."""
        if not job.serving:
            job.serving = True
            job.since_s = now_s - self._stalled_s
            self._expect(job)

    def rest(self, job: Job, now_s: float) -> None:
        """It leaves the batch, and keeps what it was charged."""
        if job.serving:
            job.serving = False
            job.charged_s += now_s - self._stalled_s - job.since_s
        job.last_step_s = max(job.last_step_s, self._served_until_s)

    def stall(self, batch: list[Job], now_s: float) -> None:
        """All who are served stand still for an iteration, and only these, which are new, are charged for it."""
        self._stall_since_s = now_s
        self._stall_batch = batch

    def advance(self, now_s: float) -> list[Job]:
        """It is a boundary: demote who is due; those demoted."""
        if now_s > self._advanced_s:
            if self._stall_since_s is None:
                self._served_until_s = now_s
            else:
                self._end_stall(now_s)
            self._advanced_s = now_s
        service_s = now_s - self._stalled_s
        due: list[Job] = []
        while self._first_due_s() < service_s:
            job = heappop(self._due)[3]
            job.noted_s = float("inf")
            due.append(job)
        # From the last to the first, each to the front of its new level: so they keep their order.
        due.sort(key=lambda job: (job.level, job.position), reverse=True)
        for job in due:
            job.charged_s = 0.0
            job.since_s = service_s
            self._to_front(job, job.level + 1)
            self._expect(job)
        return due

    def promote(self, now_s: float, after_s: float) -> bool:
        """Whoever was not stepped for so long goes to the front of level 0, one by one; whether there was any."""
        served_s = self._served_until_s
        starving = []
        for _, _, job in _merged(self.started, self.fresh):
            stepped_s = max(job.last_step_s, served_s) if job.place is Place.RUNNING else job.last_step_s
            if now_s - stepped_s >= after_s:
                starving.append(job)
        for job in starving:
            self._to_front(job, 0)
            if job.serving:
                self._expect(job)
        return bool(starving)

    def next_demotion_s(self) -> float:
        """When the next one is due, on the engine's clock; never later than it is."""
        # A hair too early only costs a step by itself, and covers the rounding of two clocks.
        return self._first_due_s() + self._stalled_s - 1e-9

    def _end_stall(self, now_s: float) -> None:
        assert self._stall_since_s is not None
        elapsed_s = now_s - self._stall_since_s
        self._stalled_s += elapsed_s
        self._stall_since_s = None
        for job in self._stall_batch:
            job.last_step_s = now_s
            if not job.ended and job.place is Place.RUNNING:
                job.charged_s += elapsed_s
                job.serving = True
                job.since_s = now_s - self._stalled_s
                self._expect(job)
        self._stall_batch = []

    def _expect(self, job: Job) -> None:
        """Note when it will have been charged all of its quantum."""
        job.due_s = job.since_s + (self.quantum_s * 2**job.level - job.charged_s)
        if job.due_s < job.noted_s:
            self._note(job)

    def _note(self, job: Job) -> None:
        job.noted_s = job.due_s
        job.notes += 1
        heappush(self._due, (job.due_s, job.sequence.request_id, job.notes, job))

    def _first_due_s(self) -> float:
        """When the first of those who are served is due, in service time; notes that are too early are put right."""
        while self._due:
            noted_s, _, number, job = self._due[0]
            if number == job.notes and job.serving and job.due_s == noted_s:
                return noted_s
            heappop(self._due)
            if number == job.notes:
                job.noted_s = float("inf")
                if job.serving:
                    self._note(job)
        return float("inf")

    def _to_front(self, job: Job, level: int) -> None:
        entries = self.fresh if job.place is Place.FRESH else self.started
        _take(entries, job)
        self._front -= 1
        job.level, job.position = level, self._front
        insort(entries, job.entry)


def _take(entries: list[Entry], job: Job) -> None:
    del entries[bisect_left(entries, (job.level, job.position))]


def _merged(one: list[Entry], other: list[Entry]) -> Iterable[Entry]:
    return sorted([*one, *other])
