"""Rooms import one way only, and files stay small and documented (design.md of the project, section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "servsim"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors", "version"},
    {"units", "streams", "clock", "registry", "documents", "writing"},
    {"request"},
    {"scenario", "model", "hardware", "records"},
    {"workload", "cost", "memory"},
    {"scheduler"},
    {"engine"},
    {"cluster"},
    {"metrics"},
    {"report"},
    {"setup"},
    {"simulation"},
    {"sweep"},
    {"calibration"},
    {"validation"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
BOTTOM = {room for rooms in LAYERS[:3] for room in rooms}

SIMPY_ROOMS = {"engine", "workload", "memory", "cluster", "setup", "simulation"}
# Slow to import, or wanted by few: these alone may be imported inside a function.
SLOW = {"importlib", "joblib", "matplotlib", "numpy", "pandas", "pyarrow", "rich", "scipy", "sklearn"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    for module in imported_modules(tree):
        if module.startswith("servsim."):
            yield module.split(".")[1]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Dotted names, relative imports excluded (there are none, and a test says so)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "servsim":
            yield from (f"servsim.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def shown(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(path) for path in FILES} - {"__init__", "__main__"} <= set(RANK)


def test_imports_point_to_lower_rooms_only(trees: dict[Path, ast.Module]) -> None:
    wrong = []
    for path, tree in trees.items():
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue  # the package's own names, resolved lazily
        for other in imported_rooms(tree):
            if other != room and RANK[other] >= RANK[room]:
                wrong.append(f"{shown(path)} imports {other}")
    assert wrong == []


def test_metrics_reads_records_and_scenario_alone(trees: dict[Path, ast.Module]) -> None:
    allowed = BOTTOM | {"records", "scenario", "metrics"}
    for path, tree in trees.items():
        if room_of(path) == "metrics":
            assert set(imported_rooms(tree)) <= allowed, shown(path)


def test_report_reads_records_scenario_and_metrics_alone(trees: dict[Path, ast.Module]) -> None:
    allowed = BOTTOM | {"records", "scenario", "metrics", "report"}
    for path, tree in trees.items():
        if room_of(path) == "report":
            assert set(imported_rooms(tree)) <= allowed, shown(path)


def test_simpy_is_imported_where_time_passes_only(trees: dict[Path, ast.Module]) -> None:
    for path, tree in trees.items():
        used = any(module.split(".")[0] == "simpy" for module in imported_modules(tree))
        if used and room_of(path) not in SIMPY_ROOMS:
            assert path.name == "clock.py", f"{shown(path)} imports simpy"


def test_the_clock_imports_simpy_for_type_checkers_only(trees: dict[Path, ast.Module]) -> None:
    tree = trees[PACKAGE / "clock.py"]
    at_run_time = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "simpy" not in {module for node in at_run_time for module in imported_modules(node)}


def test_imports_are_absolute(trees: dict[Path, ast.Module]) -> None:
    for path, tree in trees.items():
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), shown(path)


def test_nothing_but_a_slow_dependency_is_imported_inside_a_function(trees: dict[Path, ast.Module]) -> None:
    wrong = []
    for path, tree in trees.items():
        if room_of(path) == "cli":
            continue  # a verb imports the simulator when it is called, so that --help stays fast
        for function in functions_of(tree):
            for module in imported_modules(function):
                if module.split(".")[0] not in SLOW:
                    wrong.append(f"{shown(path)}: {function.name} imports {module}")
    assert wrong == []


@pytest.mark.parametrize("module", ["servsim", "servsim.scenario", "servsim.registry", "servsim.cli"])
def test_what_every_command_imports_brings_neither_numpy_nor_pandas(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'numpy', 'pandas', 'matplotlib', 'pyarrow'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_a_simulation_brings_neither_pandas_nor_matplotlib() -> None:
    code = "import sys, servsim.simulation; print(*sorted({'pandas', 'matplotlib', 'joblib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_no_file_passes_400_lines() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_passes_60_lines(trees: dict[Path, ast.Module]) -> None:
    long = {
        f"{shown(path)}: {function.name}": length
        for path, tree in trees.items()
        for function in functions_of(tree)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > 60
    }
    assert long == {}


def test_every_public_name_is_documented(trees: dict[Path, ast.Module]) -> None:
    bare = []
    for path, tree in trees.items():
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            bare.append(shown(path))
        bare += [f"{shown(path)}: {name}" for name in undocumented(tree.body)]
    assert bare == []


def test_every_public_definition_is_in_its_module_s_all(trees: dict[Path, ast.Module]) -> None:
    for path, tree in trees.items():
        public = declared_public(tree)
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        open_names = {name for name in defined if not name.startswith("_")}
        if path.name in ("__init__.py", "__main__.py") or not open_names:
            continue
        assert public is not None, f"{shown(path)} has no __all__"
        assert open_names <= set(public), f"{shown(path)}: {open_names - set(public)} not in __all__"


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def declared_public(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return None


def undocumented(body: list[ast.stmt], owner: str = "") -> Iterator[str]:
    """Public classes, functions and methods without a docstring; an overload and a setter need none."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{owner}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{node.name}.")
