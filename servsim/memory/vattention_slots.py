"""The fixed slots of a virtually contiguous KV memory, and the page groups that are mapped into them."""

from __future__ import annotations

from bisect import insort

from servsim.errors import SimulationError

__all__ = ["Slots"]


class Slots:
    """A place in the batch for each sequence; its pages stay mapped when it is free.

    ``spare[slot]`` are the groups mapped into a slot beyond those that its sequence needs: all of them where the slot
    is idle. They are taken back from the highest slot down when the free pool runs short.
    """

    def __init__(self, count: int) -> None:
        self.spare = [0] * count
        self.spare_groups = 0  # the sum of spare
        self.idle = list(range(count))

    def take(self, groups: int) -> int:
        """A free slot for a sequence that will need so many groups.

        The first idle one, unless a later one has enough groups and fewer than the best so far: best fit in name, but
        a first idle slot without any pages is kept (vAttention's ``alloc_new_batch_idx`` does so).
        """
        spare, chosen = self.spare, self.idle[0]
        for slot in self.idle:
            if groups <= spare[slot] < spare[chosen]:
                chosen = slot
        self.idle.remove(chosen)
        return chosen

    def give(self, slot: int, groups: int) -> None:
        """The sequence has left, and ``groups`` that it needed stay mapped beside those that it did not."""
        insort(self.idle, slot)
        self.add(slot, groups)

    def use(self, slot: int, groups: int) -> int:
        """The sequence needs so many groups more; how many of them were mapped before."""
        used = min(groups, self.spare[slot])
        self.add(slot, -used)
        return used

    def add(self, slot: int, groups: int) -> None:
        """More (or fewer) groups that are mapped and not needed."""
        self.spare[slot] += groups
        self.spare_groups += groups

    def reclaim(self, groups: int) -> None:
        """Unmap so many spare groups, from the highest slot down; there must be as many."""
        for slot in reversed(range(len(self.spare))):
            if groups <= 0:
                return
            if self.spare[slot]:
                taken = min(groups, self.spare[slot])
                self.add(slot, -taken)
                groups -= taken
        if groups > 0:
            raise SimulationError(f"{groups} page groups are needed and neither free nor spare")

    def check_integrity(self) -> None:
        """Raise SimulationError unless the counts are those of the slots."""
        if min(self.spare) < 0 or sum(self.spare) != self.spare_groups or len(set(self.idle)) != len(self.idle):
            raise SimulationError(f"spare groups {self.spare} counted as {self.spare_groups}, idle slots {self.idle}")
