"""Every servsim command and every piece of Python in the README runs, cut to few requests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from servsim import registry
from servsim.cli import main

README = Path(__file__).parents[1] / "README.md"
ON_MEASUREMENTS = {"validate": "set SERVSIM_DATA", "calibrate": "no such file"}  # and what each says without them
SIMULATING = {"run", "compare", "sweep", "capacity"}
FEW = ["--set", "workload.num_requests=100"]


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every servsim command of the README, in order, as words after ``servsim``."""
    found = []
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("#")[0].split("&&"):
                words = shlex.split(command)
                if words[:1] == ["servsim"] and ">" not in words:
                    found.append(words[1:])
    return found


def test_every_servsim_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [words for words in commands() if words[0] not in ON_MEASUREMENTS]
    assert {words[0] for words in found} >= {"run", "check", "list", "new", "compare", "sweep", "capacity", "plot"}
    for words in found:
        words = [*words, *FEW] if words[0] in SIMULATING else words
        with pytest.raises(SystemExit) as ended:
            main([*words, "--jobs", "1"] if words[0] in {"compare", "sweep", "capacity"} else words)
        assert ended.value.code == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out


def test_commands_on_measurements_are_well_formed_and_ask_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERVSIM_DATA", raising=False)
    found = [words for words in commands() if words[0] in ON_MEASUREMENTS]
    assert {words[0] for words in found} == set(ON_MEASUREMENTS)
    for words in found:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert ON_MEASUREMENTS[words[0]] in capsys.readouterr().err


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.KINDS})
    found = blocks("python")
    assert len(found) == 2
    for block in found:
        exec(compile(block, str(README), "exec"), {})
        assert capsys.readouterr().out


def test_a_policy_of_ones_own_takes_at_most_fifteen_lines() -> None:
    policy = next(block for block in blocks("python") if "class " in block)
    assert len(policy.strip().splitlines()) <= 15


def test_every_figure_and_document_that_the_readme_names_is_there() -> None:
    for name in re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / name).is_file(), name
