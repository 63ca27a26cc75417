"""A tree of token runs whose KV is kept, as in SGLang's RadixAttention: match, split, lock, evict."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

__all__ = ["EVICTION_KEYS", "Content", "Found", "Node", "RadixTree"]


_LEAST_URGENT = 1 << 60


@dataclass(slots=True, eq=False)
class Content:
    """What a sequence's tokens are: ``pages`` of known content, told by ``ids``, and behind them its own.

    Its own tokens are found by nobody else, so that the object itself is their key.
    """

    ids: tuple[int, ...] = ()
    pages: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """A run of pages behind those of its parent, all of known content or all of one sequence's own."""

    parent: Node | None
    start: int  # pages before it
    pages: int
    ids: tuple[int, ...] | None  # the units that cover it; None: one sequence's own content
    owner: Content | None = None  # that sequence's
    locks: int = 0
    used_at: int = 0
    made_at: int = 0
    hits: int = 1
    priority: int = _LEAST_URGENT  # of the most urgent of its users; lower is more urgent
    readers: int = 0  # decoders that read it, where that is counted
    entry: int = -1  # its valid entry among the evictable leaves; -1: it is none
    children: dict[Hashable, Node] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Pages up to its end."""
        return self.start + self.pages


EVICTION_KEYS: dict[str, Callable[[Node], tuple[int, ...]]] = {
    "lru": lambda node: (node.used_at,),
    "lfu": lambda node: (node.hits, node.used_at),
    "fifo": lambda node: (node.made_at,),
    "mru": lambda node: (-node.used_at,),
    "filo": lambda node: (-node.made_at,),
    "priority": lambda node: (-node.priority, node.used_at),
}
"""The leaf with the smallest key goes first."""


class Found(NamedTuple):
    """The nodes on which a content is found, from the top; of the last one maybe not all pages."""

    nodes: tuple[Node, ...] = ()
    pages: int = 0  # of all of them together


class RadixTree:
    """Runs of pages; every page is protected (a sequence has locked it) or evictable.

    A page is ``page_tokens`` tokens, one id stands for ``unit_tokens`` of them. Times are counted in events
    (admissions, insertions), so that looking leaves no trace. Leaves that nobody has locked wait in a heap; stale
    entries are recognised by their number, and the heap is rebuilt when they outnumber the nodes.
    """

    def __init__(self, page_tokens: int, unit_tokens: int, eviction: str = "lru") -> None:
        self._page = page_tokens
        self._unit = unit_tokens
        self._key_of = EVICTION_KEYS[eviction]
        self.root = Node(None, 0, 0, None, locks=1)
        self.protected_pages = 0
        self.evictable_pages = 0
        self.evicted_pages = 0
        self.nodes = 0
        self.version = 0  # of what can be found
        self._clock = 0
        self._entries = 0
        self._heap: list[tuple[tuple[int, ...], int, Node]] = []

    def match(self, content: Content, at_most: int) -> Found:
        """The longest prefix that is kept, no more than ``at_most`` pages."""
        node, pages = self.root, 0
        nodes: list[Node] = []
        while pages < at_most:
            child = node.children.get(self._key(content, pages))
            if child is None:
                break
            common = self._common(child, content, at_most)
            if not common:
                break
            nodes.append(child)
            pages += common
            if common < child.pages:
                break
            node = child
        return Found(tuple(nodes), pages)

    def acquire(self, content: Content, pages: int, priority: int) -> Node:
        """Lock the first ``pages`` pages of a content, which are found; the node that they end with."""
        node = self.root
        while node.end < pages:
            child = node.children[self._key(content, node.end)]
            if child.end > pages:
                child = self._split(child, pages - child.start)
            self._lock(child)
            child.hits += 1
            node = child
        self._touch(node, priority)
        return node

    def insert(self, node: Node, content: Content, pages: int, priority: int) -> tuple[Node, int]:
        """Go on from a locked node to ``pages`` pages of a content, all locked.

        The node that they end with, and how many of the pages were there already.
        """
        there = 0
        while node.end < pages:
            key = self._key(content, node.end)
            child = node.children.get(key)
            if child is None:
                child = self._add(node, key, content, pages)
            else:
                common = self._common(child, content, pages)
                if common < child.pages:
                    child = self._split(child, common)
                there += child.pages
                child.hits += 1
            self._lock(child)
            node = child
        self._touch(node, priority)
        return node, there

    def unlock(self, node: Node) -> None:
        """Take one lock off the path that ends with a node."""
        while node.parent is not None:
            node.locks -= 1
            if not node.locks:
                self.protected_pages -= node.pages
                self.evictable_pages += node.pages
                if not node.children:
                    self._offer(node)
            node = node.parent

    def evict(self, pages: int) -> None:
        """Drop whole leaves that nobody has locked until ``pages`` pages are free, or nothing is left to drop."""
        while pages > 0 and self._heap:
            _, entry, node = heappop(self._heap)
            if node.entry != entry:
                continue
            pages -= node.pages
            self._drop(node)

    def walk(self) -> Iterator[Node]:
        """All nodes but the root, parents first."""
        todo = list(self.root.children.values())
        while todo:
            node = todo.pop()
            yield node
            todo.extend(node.children.values())

    def _key(self, content: Content, page: int) -> Hashable:
        """Under which a child is found that begins with this page of a content."""
        if page >= content.pages:
            return content
        start = page * self._page
        return self._covering(content.ids, start // self._unit, start)

    def _covering(self, ids: tuple[int, ...], place: int, start: int) -> Hashable:
        """The ids of the page that begins with token ``start``; ``ids[place]`` is the one that this token is in."""
        count = -(-(start + self._page) // self._unit) - start // self._unit
        return ids[place] if count == 1 else ids[place : place + count]

    def _common(self, node: Node, content: Content, at_most: int) -> int:
        """How many of a node's pages a content has too, in whole pages; they begin at the same place."""
        if node.ids is None:
            return min(node.pages, at_most - node.start)
        pages = min(node.pages, content.pages - node.start, at_most - node.start)
        first = node.start * self._page // self._unit
        ids = content.ids[first : -(-(node.start + pages) * self._page // self._unit)]
        if ids == node.ids[: len(ids)]:
            return pages
        same = next(place for place, (one, other) in enumerate(zip(ids, node.ids, strict=False)) if one != other)
        return (first + same) * self._unit // self._page - node.start

    def _add(self, parent: Node, key: Hashable, content: Content, pages: int) -> Node:
        """A new leaf, up to ``pages`` pages or to the end of what is known."""
        start = parent.end
        if start < content.pages:
            pages = min(pages, content.pages)
            ids = content.ids[start * self._page // self._unit : -(-pages * self._page // self._unit)]
            node = Node(parent, start, pages - start, ids)
        else:
            node = Node(parent, start, pages - start, None, content)
        node.made_at = self._clock + 1
        self.evictable_pages += node.pages  # until it is locked, at once
        parent.children[key] = node
        self.nodes += 1
        self.version += 1
        return node

    def _split(self, node: Node, pages: int) -> Node:
        """Cut the first ``pages`` pages off; they become a node of their own, with the locks and times of both."""
        assert node.parent is not None and 0 < pages < node.pages
        key = self._key_in_parent(node)
        cut = node.start + pages
        upper = Node(
            node.parent, node.start, pages, node.ids, node.owner, node.locks, node.used_at, node.made_at, node.hits,
            node.priority,
        )  # fmt: skip
        upper.readers = node.readers
        if node.ids is not None:
            first = node.start * self._page // self._unit
            upper.ids = node.ids[: -(-cut * self._page // self._unit) - first]
            node.ids = node.ids[cut * self._page // self._unit - first :]
        node.parent.children[key] = upper
        node.start, node.pages, node.parent = cut, node.pages - pages, upper
        upper.children[self._key_in_parent(node)] = node
        self.nodes += 1
        self.version += 1
        return upper

    def _key_in_parent(self, node: Node) -> Hashable:
        return node.owner if node.ids is None else self._covering(node.ids, 0, node.start * self._page)

    def _lock(self, node: Node) -> None:
        if not node.locks:
            self.evictable_pages -= node.pages
            self.protected_pages += node.pages
            node.entry = -1
        node.locks += 1

    def _touch(self, node: Node, priority: int) -> None:
        """The path that ends with a node is used now."""
        self._clock += 1
        while node.parent is not None:
            node.used_at = self._clock
            node.priority = min(node.priority, priority)
            node = node.parent

    def _offer(self, node: Node) -> None:
        """A leaf can be evicted from now on."""
        if len(self._heap) > 2 * self.nodes + 64:
            self._heap = [one for one in self._heap if one[2].entry == one[1]]
            heapify(self._heap)
        node.entry = self._entries
        heappush(self._heap, (self._key_of(node), self._entries, node))
        self._entries += 1

    def _drop(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None
        del parent.children[self._key_in_parent(node)]
        node.entry = -1
        self.evictable_pages -= node.pages
        self.evicted_pages += node.pages
        self.nodes -= 1
        self.version += 1
        if not parent.locks and not parent.children:
            self._offer(parent)
