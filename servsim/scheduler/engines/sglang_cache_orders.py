"""SGLang's queue policies that look at what its prefix tree holds: lpm, dfs-weight, shortest-prefill-first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable

from servsim.errors import ScenarioError
from servsim.memory.radix_protocol import PrefixTree
from servsim.request import Sequence
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["CacheOrder", "DfsWeightOrder", "LongestPrefixOrder", "ShortestPrefillOrder"]

_LONG_LINE = 128  # more waiting ones than that are not looked up
_FEW_TOKENS = 32  # found at the most of one that may be deferred ...
_COMMON_TOKENS = 32  # ... because an earlier one begins with the same tokens, at least so many


class CacheOrder(Order):
    """A line that is ranked anew, before a plan, when it or what the tree holds has changed.

    A kind of it gives :meth:`ranked`. Lines longer than :attr:`longest_line` are in the order of :meth:`key`, as if
    nothing were kept. Preempted sequences join the line like newcomers. Of the running ones the latest
    admitted is preempted first.
    """

    longest_line = _LONG_LINE

    def __init__(self, surroundings: Surroundings) -> None:
        self.cache = _tree_of(surroundings)
        self._joined = 0
        self._places: dict[Sequence, int] = {}
        self._line = KeyOrder(self.key)
        self._ranking: list[Sequence] | None = None
        self._version = -1

    @abstractmethod
    def ranked(self, line: list[Sequence]) -> list[Sequence]:
        """The line in the order in which it is served; it comes in the order of joining."""

    def key(self, sequence: Sequence) -> float:
        """The smallest first, in a long line: who joined first."""
        return self._places[sequence]

    def __len__(self) -> int:
        return len(self._line)

    def push(self, sequence: Sequence) -> None:
        """To the end of the line."""
        self._joined += 1
        self._places[sequence] = self._joined
        self._line.push(sequence)
        self._ranking = None

    def push_preempted(self, sequence: Sequence) -> None:
        """To the end of the line, like a newcomer."""
        self.push(sequence)

    def refresh(self, now_s: float) -> None:
        """Forget the ranking, if the tree is not as it was; who asks for the head has the line ranked again."""
        if self._ranking is not None and self.cache is not None and self._version != self.cache.cache_version:
            self._ranking = None

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head, as it was ranked for the latest plan."""
        if self._ranking is None:
            self._rank()
        return self._line.peek(index) if self._ranking is None else self._ranking[index]

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave: of the line as it was planned, whatever the tree holds by now."""
        for sequence in [self.peek(index) for index in range(count)]:
            self._line.remove(sequence)
            del self._places[sequence]
        if count:
            self._ranking = None

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Whenever there is a place: it may be the head, or change who is."""
        return has_place

    def stable_steps(self) -> int:
        """Until decoders evict something that one of the line would have found."""
        if self.cache is None or not 1 < len(self._line) <= self.longest_line:
            return UNBOUNDED
        return max(1, self.cache.steps_until_eviction(UNBOUNDED))

    def _rank(self) -> None:
        if self.cache is None or len(self._line) > self.longest_line:
            return
        self._version = self.cache.cache_version
        line = sorted(map(self._line.peek, range(len(self._line))), key=self._places.__getitem__)
        self._ranking = self.ranked(line)


class LongestPrefixOrder(CacheOrder):
    """The longest prefix found first (SGLang's lpm); with more than 128 waiting, first come, first served.

    One of which 32 tokens are found, or fewer, is deferred to the end of the line if it begins with the same 32
    tokens as an earlier such one: let one of them compute what all can use.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._tree = _needed(self.cache, "lpm")

    def ranked(self, line: list[Sequence]) -> list[Sequence]:
        """By what is found, the deferred ones last; ties as they joined."""
        ranks: dict[Sequence, tuple[bool, int]] = {}
        openings: set[Hashable] = set()
        for sequence in line:
            found = self._tree.cached_tokens(sequence)
            deferred = False
            if found <= _FEW_TOKENS:
                opening = self._tree.opening(sequence, _COMMON_TOKENS)
                deferred = opening is not None and opening in openings
                openings.add(opening)
            ranks[sequence] = (deferred, -found)
        return sorted(line, key=ranks.__getitem__)


class DfsWeightOrder(CacheOrder):
    """The tree depth first, of a node's children the one with the most waiting below it first (SGLang's dfs-weight).

    Those found on a node itself come after all below it. Equal weights go by who joined first. SGLang also works out
    whom lpm would defer, and does nothing with it here; neither does this. Lines of any length are ranked.
    """

    longest_line = UNBOUNDED

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._tree = _needed(self.cache, "dfs-weight")

    def ranked(self, line: list[Sequence]) -> list[Sequence]:
        """Depth first, heaviest first."""
        weights: dict[Hashable, int] = {}
        children: dict[Hashable, dict[Hashable, None]] = {None: {}}
        ending: dict[Hashable, list[Sequence]] = {}
        for sequence in line:
            above: Hashable = None
            for node in self._tree.found_path(sequence):
                weights[node] = weights.get(node, 0) + 1
                children[above][node] = None
                children.setdefault(node, {})
                above = node
            ending.setdefault(above, []).append(sequence)
        order: list[Sequence] = []
        todo: list[tuple[Hashable, bool]] = [(None, False)]
        while todo:
            node, below_done = todo.pop()
            if below_done:
                order += ending.get(node, [])
                continue
            todo.append((node, True))
            # The stack turns the order around: the heaviest is pushed last, of equal ones the first.
            todo += [(child, False) for child in _heaviest_last(children[node], weights)]
        return order


class ShortestPrefillOrder(CacheOrder):
    """The fewest tokens to prefill first, less those whose KV would be found (SGLang's shortest-prefill-first).

    All tokens count where nothing is kept, and in a line of more than 128.
    """

    def key(self, sequence: Sequence) -> float:
        """All its tokens."""
        return sequence.total_tokens

    def ranked(self, line: list[Sequence]) -> list[Sequence]:
        """By what is lacking; ties by arrival."""
        return sorted(line, key=self._rank_of)

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Of the running ones the longest, as it was when it was let in, is preempted first."""
        return (sequence.total_tokens, sequence.arrival_s, sequence.request_id)

    def _rank_of(self, sequence: Sequence) -> tuple[float, float, int]:
        found = 0 if self.cache is None else self.cache.cached_tokens(sequence)
        return (sequence.total_tokens - found, sequence.arrival_s, sequence.request_id)


def _heaviest_last(nodes: Iterable[Hashable], weights: dict[Hashable, int]) -> list[Hashable]:
    return sorted(nodes, key=weights.__getitem__, reverse=True)[::-1]


def _tree_of(surroundings: Surroundings) -> PrefixTree | None:
    memory = surroundings.memory
    return memory if isinstance(memory, PrefixTree) else None


def _needed(cache: PrefixTree | None, name: str) -> PrefixTree:
    if cache is None:
        raise ScenarioError(
            f"the order '{name}' goes by what a prefix tree holds, and this allocator has none",
            remedy="set instance.memory.allocator: radix",
        )
    return cache
