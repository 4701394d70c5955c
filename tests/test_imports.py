"""What edgemask imports: little, in one direction, and the runtime in one place only.

A Pi has neither the room nor the memory for a training framework, so the rule is proved on the
syntax tree (what is written anywhere, also in functions that no test calls) and in a fresh process
(what is really loaded).
"""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgemask"

RUNTIMES = {"ai_edge_litert", "tflite_runtime"}
WORKSTATION = {"tensorflow", "keras", "tf_keras", "torch", "convert", "edgemask_convert"}
CORE = {"numpy", "PIL", "tqdm"}
# For one function or module each, which says how to install them.
OPTIONAL = {"paho", "pycocotools", "supervision"}
LATE = {*OPTIONAL, "tqdm"}  # imported by the function that needs them, never with a module


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, and whether that happens when a function runs."""

    module: str
    line: int
    late: bool
    typing_only: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str, source: str) -> list[Import]:
    """Return every import of a module, `from package import module` resolved to the module."""
    package = name if SOURCES.get(name, Path()).name == "__init__.py" else name.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, late: bool, typing_only: bool) -> None:
        for target in targets(node):
            found.append(Import(target, getattr(node, "lineno", 0), late, typing_only))
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, late, True)
            for child in node.orelse:
                visit(child, late, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, late, typing_only)

    def targets(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in SOURCES else base

    visit(ast.parse(source), False, False)
    return found


IMPORTS = {name: imports_of(name, path.read_text("utf-8")) for name, path in SOURCES.items()}


def test_the_walk_sees_every_form_of_import() -> None:
    source = (
        "import a.b, c\n"
        "from .errors import InputError\n"
        "from . import boxes as bx\n"
        "from edgemask import nms\n"
        "def f():\n    from tensorflow import keras\n"
        "if TYPE_CHECKING:\n    import d\nelse:\n    import e\n"
    )
    found = imports_of("edgemask.masks", source)
    assert [(i.module, i.late, i.typing_only) for i in found] == [
        ("a.b", False, False),
        ("c", False, False),
        ("edgemask.errors", False, False),
        ("edgemask.boxes", False, False),
        ("edgemask.nms", False, False),
        ("tensorflow", True, False),
        ("d", False, True),
        ("e", False, False),
    ]
    assert len(SOURCES) > 20


@pytest.mark.parametrize("name", SOURCES)
def test_only_what_a_device_has(name: str) -> None:
    for found in IMPORTS[name]:
        where = f"{SOURCES[name].relative_to(ROOT)}:{found.line} imports {found.module}"
        assert found.top not in WORKSTATION, where
        if found.top in RUNTIMES:
            assert name == "edgemask.interpreter", where
            continue
        known = {"edgemask", *sys.stdlib_module_names, *CORE}
        assert found.top in (known | LATE if found.late or found.typing_only else known), where


@pytest.mark.parametrize("name", SOURCES)
def test_no_import_by_a_name_in_a_string(name: str) -> None:
    allowed = RUNTIMES if name == "edgemask.interpreter" else set()
    pattern = re.compile(rf"({'|'.join((RUNTIMES | WORKSTATION) - allowed)})(\.\w+)*")
    for node in ast.walk(ast.parse(SOURCES[name].read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not pattern.fullmatch(node.value), f"{SOURCES[name]}:{node.lineno}"


def test_imports_go_one_way() -> None:
    graph = {
        name: {i.module for i in found if i.top == "edgemask" and not i.typing_only}
        for name, found in IMPORTS.items()
    }
    for name, wanted in graph.items():
        assert wanted <= set(SOURCES), f"{name} imports {wanted - set(SOURCES)}, which is not there"
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle


def test_imports_follow_the_layers_of_the_documentation() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("<!-- layers -->\n```\n")[2].partition("```")[0].splitlines()
    layer = {module: number for number, line in enumerate(table) for module in line.split()}
    for name, found in IMPORTS.items():
        inner = name.split(".")[1:2]
        if inner in ([], ["__main__"]):  # the package itself, which loads names when asked
            continue
        assert inner[0] in layer, f"docs/architecture.md has no place for {name}"
        for other in found:
            other_inner = other.module.split(".")[1:2]
            if other.top == "edgemask" and other_inner and other_inner != inner:
                assert layer[other_inner[0]] < layer[inner[0]], f"{name} imports {other.module}"


def toolchain_imports() -> Iterator[tuple[str, str]]:
    """Pairs of folders, or modules beside them, of the toolchain: who imports whom."""
    folder = ROOT / "convert"
    for path in folder.rglob("*.py"):
        package = path.relative_to(folder).parts[:-1]
        own = path.relative_to(folder).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = package[: len(package) - node.level + 1]
                inner = (node.module or "").split(".") if node.module else [node.names[0].name]
                other = (*above, *inner)[0]
                if other != own:
                    yield own, other


def test_imports_of_the_toolchain_follow_the_layers_of_the_documentation() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("<!-- toolchain layers -->\n```\n")[2].partition("```")[0].splitlines()
    # Names come first in a line; two spaces or more set them apart, and from what they are.
    names = [[word for word in re.split(r"\s{2,}", line) if " " not in word] for line in table]
    layer = {name: number for number, line in enumerate(names) for name in line}
    # Of those two, one runs the command line and the other only names a type.
    pairs = set(toolchain_imports()) - {("__main__", "cli"), ("config_rules", "config")}
    assert {own for own, _ in pairs} | {"jobs"} <= set(layer)
    for own, other in pairs:
        assert layer[other] < layer[own], f"convert/{own} imports convert/{other}"


def loaded(code: str, cwd: Path) -> set[str]:
    """Return the top-level modules that are loaded after running code in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"],
        capture_output=True, text=True, cwd=cwd, check=True, env=environment(),
    )  # fmt: skip
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_import_edgemask_loads_next_to_nothing(tmp_path: Path) -> None:
    seen = loaded("import edgemask", tmp_path)
    assert "edgemask" in seen
    assert seen.isdisjoint(RUNTIMES | WORKSTATION | LATE | CORE)


def test_every_public_name_loads_without_the_runtime(tmp_path: Path) -> None:
    seen = loaded(
        "import edgemask, edgemask.segmenter, edgemask.evaluate, edgemask.cli\n"
        "for name in edgemask.__all__: getattr(edgemask, name)",
        tmp_path,
    )
    assert seen >= CORE - {"tqdm"}  # which the first progress bar loads
    assert seen.isdisjoint(RUNTIMES | WORKSTATION | LATE)


def test_a_whole_run_loads_one_runtime_and_nothing_of_a_workstation(tmp_path: Path) -> None:
    code = "from edgemask.cli import main\nassert main(['demo', '--out', 'results']) == 0"
    seen = loaded(code, tmp_path)
    assert len(seen & RUNTIMES) == 1
    assert seen.isdisjoint(WORKSTATION | OPTIONAL | {"cv2", "scipy", "matplotlib"})
