"""What a block holds, as a number: the chain of content that leads up to its end."""

from __future__ import annotations

from servsim.request import Sequence

__all__ = ["block_keys", "known_tokens"]

_NOTHING_BEFORE = 0x9E3779B97F4A7C15  # stands for the parent of a first block


def known_tokens(sequence: Sequence, tokens_per_hash: int | None) -> int:
    """How many of a sequence's first tokens its ``hash_ids`` tell, in whole units of ``tokens_per_hash``.

    Traces give one id more for a last unit that the prompt fills in part; what follows it in that unit is the answer,
    which such an id says nothing of, so it does not count. It does in a session, or where ids for the
    answer follow: there they tell the conversation, whoever wrote which part of it.
    """
    if not sequence.hash_ids or not tokens_per_hash:
        return 0
    units = len(sequence.hash_ids)
    if sequence.session < 0 and units == -(-sequence.prompt_tokens // tokens_per_hash):
        units = sequence.prompt_tokens // tokens_per_hash
    return units * tokens_per_hash


def block_keys(sequence: Sequence, tokens_per_hash: int | None, block_size: int) -> list[int]:
    """One 64-bit key for each block that the known tokens fill; equal keys: equal content, from the first token on.

    ``h_i = hash((h_{i-1}, content of block i))``, as vLLM chains them. The content of a block is the ids that cover
    it: with equal parents two blocks begin at the same place inside their first id, so that no offset is needed.
    Units may be larger than a block, equal, smaller, or not a multiple of either. ``hash`` of
    whole numbers is the same in every process. Ids must be at least 0.
    """
    count = known_tokens(sequence, tokens_per_hash) // block_size
    if not count:
        return []
    assert tokens_per_hash is not None
    ids = sequence.hash_ids
    keys: list[int] = []
    key = _NOTHING_BEFORE
    if tokens_per_hash % block_size == 0:
        blocks_per_id = tokens_per_hash // block_size
        for one in ids[: -(-count // blocks_per_id)]:
            for _ in range(blocks_per_id):
                key = hash((key, one))
                keys.append(key)
        return keys[:count]
    for start in range(0, count * block_size, block_size):
        key = hash((key, ids[start // tokens_per_hash : -(-(start + block_size) // tokens_per_hash)]))
        keys.append(key)
    return keys
