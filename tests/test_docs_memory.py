"""docs/memory.md: it names all that can be written under memory; commands, YAML and Python run, and numbers hold."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import servsim
from servsim import registry
from servsim.cli import drawing, main
from servsim.hardware import LinkSpec
from servsim.memory.contiguous import ContiguousAllocator
from servsim.memory.pensieve_chunks import Retention
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.memory.vattention_pages import page_groups
from servsim.request import Sequence
from servsim.scenario import load_scenario
from servsim.scenario.compression_spec import CompressionSpec
from servsim.scenario.instance_spec import MemorySpec
from servsim.scenario.plug_in import parameter_schema
from servsim.scenario.tier_spec import TierSpec

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "memory.md").read_text(encoding="utf-8")
ALLOCATORS = registry.names("allocators")
KIB, MIB = 1 << 10, 1 << 20


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every servsim command of the page, as words after ``servsim``."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def _cut(word: str) -> str:
    """The values of an axis of numbers but for the first and the last left out."""
    path, equals, values = word.partition("=")
    numbers = values.split(",")
    return f"{path}={numbers[0]},{numbers[-1]}" if equals and re.fullmatch(r"[\d.,]+,[\d.]+", values) else word


def rows(first_cell: str) -> list[list[str]]:
    """The cells of the tables' rows that begin with a cell that holds these words."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    return [row for row in cells if first_cell in row[0]]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator_is_explained_with_all_its_parameters(name: str) -> None:
    assert f"\n## `{name}`: " in PAGE
    row = next(line for line in PAGE.split("\n## All of them\n")[1].splitlines() if line.startswith(f"| `{name}` |"))
    paged = set(parameter_schema("allocators", "paged").model_fields) if "as `paged`" in row else set()  # type: ignore[union-attr]
    schema = parameter_schema("allocators", name)
    assert schema is not None
    for parameter in set(schema.model_fields) - paged:
        assert f"`{parameter}`" in row, parameter


def test_every_key_of_memory_tiers_links_and_compression_is_named() -> None:
    for spec in (MemorySpec, TierSpec, LinkSpec, CompressionSpec):
        for key in set(spec.model_fields) - {"name"}:
            assert re.search(rf"\b{key}\b", PAGE), key


@pytest.mark.parametrize("block", blocks("yaml"))
def test_the_yaml_of_the_page_is_valid(block: str) -> None:
    data = yaml.safe_load(block)
    if "name" in data:
        data["workload"] = "multi-turn-chat"  # the trace is not at hand
    else:
        memory = data["memory"] if "memory" in data else data["instance"]["memory"]
        data = {
            "model": "llama-3.1-8b",
            "instance": {"hardware": "h100-sxm", "memory": memory},
            "workload": "multi-turn-chat",
        }
    assert load_scenario(data).instance.memory.allocator == "prefix_blocks"


def test_every_command_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut to 40 requests, one seed and two numbers an axis, capacity to a rough answer; Mooncake's trace is made up."""
    monkeypatch.chdir(tmp_path)
    trace = [
        {"timestamp": 500 * i, "input_length": 1500, "output_length": 9, "hash_ids": [i % 5, 7 + i % 5, 20 + i]}
        for i in range(40)
    ]
    Path("mooncake_synthetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trace))
    Path("mooncake.yaml").write_text(next(block for block in blocks("yaml") if "mooncake" in block))
    drawn, drawn_for_good = [], drawing.save
    found = commands()
    assert {words[0] for words in found} == {"capacity", "compare", "sweep"}
    for number, words in enumerate(found):
        words = [_cut(word) for word in words] + ["--set", "workload.num_requests=40", "--seeds", "1", "--jobs", "1"]
        words += ["--low", "10", "--high", "20", "--tolerance", "0.9"] if words[0] == "capacity" else []
        if words[0] != "capacity" and "--out" not in words:
            words += ["--out", f"out-{number}"]
        shown = any(word.startswith("memory-") for word in words)
        save = drawn_for_good if shown else lambda figure, stem: []  # drawing takes longer than all the rest
        monkeypatch.setattr(drawing, "save", save)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out
        drawn += [word for word in words if word.startswith("memory-")]
    figures = set(re.findall(r"figures/(memory-[\w-]+)\.png", PAGE))
    assert figures == set(drawn) == {path.stem for path in (DOCS / "figures").glob("memory-*.png")}


def test_every_figure_document_and_heading_that_the_page_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        name, _, heading = target.partition("#")
        if name.startswith("http"):
            continue
        page = PAGE if not name else (DOCS / name).read_text(encoding="utf-8") if heading else ""
        assert not name or (DOCS / name).is_file(), target
        headings = [re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()) for line in page.splitlines() if line[:1] == "#"]
        assert not heading or heading in [line.replace(" ", "-") for line in headings], target


def test_the_reservations_of_the_page_hold() -> None:
    sequence = Sequence(0, 0.0, 100, 512, 0, 0, 0, ())
    sequence.predicted_tokens = 60
    for reserve in ("max", "declared", "pow2", "oracle", "predicted"):
        settings = ContiguousAllocator.Parameters(reserve=reserve)  # type: ignore[arg-type]
        memory = ContiguousAllocator(MemorySurroundings(4096, 16, 2048, settings))
        (row,) = [row for row in rows(f"`{reserve}`") if len(row) == 3]
        number = re.match(r"[\d,]+(?! \+)", row[1].rpartition("= ")[2])
        assert number is not None
        assert memory.reservation(sequence, 100) == int(number[0].replace(",", ""))


def test_the_page_groups_of_the_page_hold() -> None:
    shapes = {
        "8 KV heads of 128, 32 layers": KvShape(32, 8 * 128 * 2),
        "the same on two devices": KvShape(32, 4 * 128 * 2),
        "1 KV head of 128, 80 layers": KvShape(80, 128 * 2),
    }
    for words, kv in shapes.items():
        (row,) = rows(words)
        groups = [page_groups(kv, page_bytes) for page_bytes in (64 * KIB, 128 * KIB, 256 * KIB, 2 * MIB)]
        single = page_groups(kv, 2 * MIB, single_tensor=True)
        sizes = [kv.row_bytes, *(group.tokens for group in groups), groups[-1].size_bytes // MIB, single.tokens]
        assert [int(cell.split()[0].replace(",", "")) for cell in row[1:]] == sizes


def test_the_values_of_conversations_of_the_page_hold() -> None:
    retention = Retention(1, 100, 32)
    found = [retention.value(place, 100) for place in range(3)] + [retention.value(0, 50)]
    text = "`V` is 1.32, 1.64 and 1.96 for X, 2.64 for Y"
    assert text in PAGE
    assert found == pytest.approx([float(number) for number in re.findall(r"\d\.\d+", text)])


def test_the_python_of_the_page_runs_and_its_allocator_strides_exactly_and_preempts_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.KINDS})
    (block,) = blocks("python")
    exec(compile(block, "docs/memory.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out
    short_of_memory = [
        "workload.num_requests=200",
        "workload.arrivals.rate_per_s=60",
        "instance.memory.num_blocks=900",
        "instance.max_model_len=8192",
    ]
    own = servsim.simulate("chat-on-one-h100", [*short_of_memory, "instance.memory.allocator=pledged"])
    single = ["instance.memory.allocator=pledged", "instance.stepping=single"]
    assert own.requests.equals(servsim.simulate("chat-on-one-h100", [*short_of_memory, *single]).requests)
    paged = servsim.simulate("chat-on-one-h100", short_of_memory)
    assert own.summary["preemptions"]["total"] == 0 < paged.summary["preemptions"]["total"]
