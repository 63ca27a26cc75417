"""Where KV and weights live."""

from servsim.memory.allocator import Allocator, Round
from servsim.memory.contiguous import ContiguousAllocator
from servsim.memory.paged import PagedAllocator

__all__ = ["Allocator", "ContiguousAllocator", "PagedAllocator", "Round"]
