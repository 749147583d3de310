"""The house stands: imports point downwards, files stay short, and importing the package costs nothing."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rlvr_lite

PACKAGE = Path(rlvr_lite.__file__).parent
FLOORS = {
    "errors": 0,
    "lazy": 0,
    "habits": 0.2,
    "host": 1,
    "typed": 0.5,
    "deadline": 1,
    "config": 1,
    "figure": 1,
    "options": 2,
    "progress": 1,
    "records": 1,
    "table": 1,
    "analysis": 2,
    "grpo": 2,
    "rewards": 2,
    "runs": 2,
    "tasks": 3,
    "bases": 4,
    "methods": 4,
    "sampling": 4.5,
    "resolve": 5,
    "recipes": 6,
    "planning": 6,
    "evaluation": 6,
    "exports": 7,
    "conversation": 8,
    "training": 9,
    "study": 10,
    "paper": 11,
    "api": 12,
    "diagnostics": 12,
    "demo": 12,
    "__init__": 13,
    "commands": 13,
    "cli": 14,
    "__main__": 15,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Rooms that a file imports from, wherever in it the import stands."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rlvr_lite":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rlvr_lite.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = _room(path)
    assert not {other for other in _imported(path) - {room} if FLOORS[other] >= FLOORS[room]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_reaches_for_a_private_name_of_another(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rlvr_lite":
            taken = [f"{node.module}.{alias.name}".split(".") for alias in node.names]
            found |= {".".join(parts) for parts in taken if parts[1] != _room(path) and _is_private(parts[2:])}
    assert not found


def _is_private(parts: list[str]) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


@pytest.mark.parametrize(
    "room", sorted(path.parent for path in FILES if path.name == "__init__.py"), ids=lambda room: room.name
)
def test_a_module_that_others_may_use_is_listed_in_its_room(room):
    """All else begins with an underscore; a file that registers what it defines, or is a command, is found by that."""
    listed = set(re.findall(r"\w+", (room / "__init__.py").read_text(encoding="utf-8")))
    public = [path for path in room.glob("*.py") if not path.stem.startswith("_")]
    assert room == PACKAGE or not {
        path.stem
        for path in public
        if path.stem not in listed and not re.search("register\\(|argparse", path.read_text(encoding="utf-8"))
    }


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in FILES}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _imports_at_run_time(name: str, node: ast.AST) -> set[str]:
    """Modules of the package that a syntax tree imports, in functions too; what is for type checkers alone is left out."""
    found: set[str] = set()
    if isinstance(node, ast.Import):
        found = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        taken = {f"{source}.{alias.name}" for alias in node.names}
        found = {full if full in MODULES else source for full in taken}
    children = node.orelse if _is_for_types(node) else ast.iter_child_nodes(node)
    return found.union(*(_imports_at_run_time(name, child) for child in children)) & set(MODULES)


@pytest.mark.parametrize("room", sorted({_room(path) for path in FILES} - {"__init__"}))
def test_no_modules_of_a_room_import_each_other_in_a_circle(room):
    """An import inside a function hides a circle, it does not mend it."""
    inside = {name for name, path in MODULES.items() if _room(path) == room}
    graph = {
        name: _imports_at_run_time(name, ast.parse(MODULES[name].read_text(encoding="utf-8"))) & inside
        for name in inside
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_core_knows_nothing_of_the_rest():
    found = set().union(*(_imported(path) for path in FILES if _room(path) == "grpo"))
    assert found <= {"grpo"}
    trees = [ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES if _room(path) == "grpo"]
    froms = {
        node.module.split(".")[0] for tree in trees for node in tree if isinstance(node, ast.ImportFrom) and node.module
    }
    assert not froms & {"trl", "peft", "transformers", "datasets"}


def test_no_file_is_two_rooms():
    long = {
        str(path.relative_to(PACKAGE)): lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_importing_the_package_loads_no_heavy_library():
    code = "import rlvr_lite, sys; print(*sorted(m for m in ('torch', 'transformers', 'peft', 'trl', 'sympy', 'numpy') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_every_public_name_exists():
    for name in rlvr_lite.__all__:
        assert getattr(rlvr_lite, name) is not None
    with pytest.raises(AttributeError):
        rlvr_lite.no_such_name  # noqa: B018


def test_what_is_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    declared = {re.split(r"[^\w-]", name)[0].replace("-", "_") for name in said}
    found: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    assert found - set(sys.stdlib_module_names) - {"rlvr_lite"} <= declared
