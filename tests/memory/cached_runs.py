"""Small runs of one instance with a prefix cache and tiers, put together by hand, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import simpy
from hypothesis import strategies as st

from servsim import registry
from servsim.clock import ARRIVAL, schedule_at
from servsim.cost.fixed import FixedCost
from servsim.engine.facts import Facts
from servsim.engine.instance import Instance
from servsim.engine.parts import Parts
from servsim.hardware import LinkSpec, Tier
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.records import Recorder, Records
from servsim.request import Request
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.predictors import Oracle
from servsim.scheduler.running import Running
from servsim.streams import Streams

BLOCK_SIZE = 4
KV = KvShape(num_layers=2, row_bytes=25, bytes_per_token=100)
BLOCK_BYTES = BLOCK_SIZE * KV.bytes_per_token
COST = FixedCost(0.25, 0.125)


class Asked(NamedTuple):
    """One request; content comes in units of ``Scene.tokens_per_hash``."""

    arrival_s: float
    prompt: int
    output: int
    hash_ids: tuple[int, ...] = ()
    session: int = -1


@dataclass(frozen=True)
class Scene:
    """What runs."""

    requests: tuple[Asked, ...]
    num_blocks: int = 40
    policy: str = "fcfs"
    allocator: str = "prefix_blocks"
    settings: dict[str, Any] = field(default_factory=dict)
    policy_settings: dict[str, Any] = field(default_factory=dict)
    tiers: tuple[Tier, ...] = ()
    cost: Any = COST
    max_num_seqs: int = 4
    max_num_batched_tokens: int = 64
    tokens_per_hash: int | None = BLOCK_SIZE
    block_size: int = BLOCK_SIZE


def link(bytes_per_s: float = 8000.0, **spec: Any) -> LinkSpec:
    """A link of round numbers."""
    defaults = {"duplex": "full", "latency_s": 0.0, "launch_s": 0.0, "sources": {"made up": "for a test"}}
    both = {"read_bandwidth_bytes_per_s": bytes_per_s, "write_bandwidth_bytes_per_s": bytes_per_s}
    return LinkSpec.model_validate({"name": "wire", "kind": "link", **both, **defaults, **spec})


def tier(blocks: int, bytes_per_s: float = 8000.0, name: str = "cpu", **spec: Any) -> Tier:
    """A tier that holds so many blocks."""
    return Tier(name, "cpu", blocks * BLOCK_BYTES, link(bytes_per_s, **spec))


class Run:
    """One run of a scene; ``looked_at`` is called after every event."""

    def __init__(self, scene: Scene, *, single: bool = False) -> None:
        self.scene = scene
        self.env = simpy.Environment()
        self.recorder = Recorder()
        kind = registry.resolve("allocators", scene.allocator)
        cost = scene.cost
        self.memory = kind(
            MemorySurroundings(
                scene.num_blocks,
                scene.block_size,
                1 << 20,
                kind.Parameters(**scene.settings),
                kv=KV,
                tokens_per_hash=scene.tokens_per_hash,
                tiers=scene.tiers,
                env=self.env,
                prefill_s=lambda tokens: cost.step_s([(tokens, 0)], 1, 0, 0),
            )
        )
        running = Running()
        policy = registry.resolve("schedulers", scene.policy)
        own = policy.Parameters(**scene.policy_settings) if scene.policy_settings else None
        streams = Streams(0)
        surroundings = Surroundings(
            running, self.memory, scene.max_num_seqs, scene.max_num_batched_tokens, own, streams.get
        )
        facts = Facts(self.recorder)
        predictor = Oracle(None, streams.get("predictor"))
        parts = Parts(policy(surroundings), running, self.memory, cost, predictor, facts, 1 << 20, single)
        self.instance = Instance(self.env, 0, parts)
        for number, asked in enumerate(scene.requests):
            self._arrive(number, asked)

    def _arrive(self, number: int, asked: Asked) -> None:
        request = Request(
            number,
            asked.arrival_s,
            asked.prompt,
            asked.output,
            asked.output,
            hash_ids=asked.hash_ids,
            session=asked.session,
        )
        event = simpy.Event(self.env)
        assert event.callbacks is not None
        event.callbacks.append(lambda _: self.instance.submit(request))
        schedule_at(self.env, event, asked.arrival_s, ARRIVAL)

    def run(self, look: Callable[[], None] | None = None) -> Records:
        """To the end."""
        events = 0
        while self.env.peek() < float("inf"):
            self.env.step()
            if look is not None:
                look()
            events += 1
            assert events < 50_000, "the simulation does not come to an end"
        for sequence, request in self.instance.unfinished():
            raise AssertionError(f"request {request.request_id} is left over: {sequence}")
        self.recorder.memory.update(self.memory.report())
        return self.recorder.records(("default",), ("default",))


def with_prefixes(draw: Any, count: int) -> tuple[Asked, ...]:
    """Requests of a few families, each of which begins alike."""
    unit_ids = [tuple(draw(st.lists(st.integers(0, 2), min_size=12, max_size=12))) for _ in range(2)]
    requests, clock_s = [], 0.0
    for number in range(count):
        clock_s += draw(st.sampled_from([0.0, 0.125, 0.3, 1.0]))
        prompt, output = draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 10, 25]))
        shared = draw(st.sampled_from(unit_ids))[: draw(st.sampled_from([0, 2, 5, 12]))]
        ids = (*shared, *range(100 * number + 100, 100 * number + 120))
        session = number if draw(st.booleans()) else -1
        known = -(-(prompt + (output if session >= 0 else 0)) // BLOCK_SIZE)
        requests.append(
            Asked(clock_s, prompt, output, ids[:known] if draw(st.sampled_from([1, 1, 0])) else (), session)
        )
    return tuple(requests)


@st.composite
def scenes(draw: Any, policy: str) -> Scene:
    requests = with_prefixes(draw, draw(st.integers(4, 12)))
    longest = max(-(-(one.prompt + one.output) // BLOCK_SIZE) for one in requests)
    return Scene(
        requests,
        num_blocks=longest + 1 + draw(st.sampled_from([0, 1, 3, 8, 30])),
        policy=policy,
        settings={
            "reserve_full_isl": draw(st.sampled_from([True, True, False])),
            "watermark": draw(st.sampled_from([0.0, 0.1])),
        },
        cost=draw(st.sampled_from([FixedCost(0.25, 0.125), FixedCost(0.1, 0.03)])),
        max_num_seqs=draw(st.sampled_from([2, 4, 8])),
        max_num_batched_tokens=draw(st.sampled_from([8, 16, 64, 2000])),
    )


def same_bits(one: Any, other: Any) -> None:
    assert one.memory == other.memory
    for table in ("requests", "strides", "pauses"):
        for name, column in getattr(one, table).items():
            assert column.tobytes() == getattr(other, table)[name].tobytes(), (table, name)


def one_after_the_other(draw: Any) -> tuple[Asked, ...]:
    requests = with_prefixes(draw, 25)
    return tuple(one._replace(arrival_s=1000.0 * number) for number, one in enumerate(requests))


def counted_from_file(path: Path, max_model_len: int) -> tuple[int, int]:
    """Prompt tokens, and those of them whose blocks of 512 an earlier row had, but for each row's last token."""
    seen: set[int] = set()
    asked = hit = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["input_length"] + row["output_length"] > max_model_len:
            continue
        asked += row["input_length"]
        chain, chains = 0, []
        for one in row["hash_ids"][: row["input_length"] // 512]:
            chain = hash((chain, one))
            chains.append(chain)
        for one in chains[: (row["input_length"] - 1) // 512]:
            if one not in seen:
                break
            hit += 512
        seen.update(chains)
    return asked, hit
