"""The house holds: imports go only downward, each third-party library has its room, no file outgrows its subject.

FLOORS below is the one table of the house; `docs/draw.py` draws the picture of docs/architecture.md from it.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "flawsmith"

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("words", ("words",)),
    ("ground", ("arithmetic", "data", "nn")),
    ("run", ("run",)),
    ("contract", ("interfaces",)),
    ("families", ("generators", "filters", "metrics", "detectors", "exports")),
    ("chapters", ("synthesis", "screening", "evaluation", "export", "recipes")),
    ("overview", ("preflight", "choice", "reporting", "inspection", "integrations", "cluster", "testing")),
    ("browser", ("studio",)),
    ("doors", ("doors",)),
)
"""The floors from the ground up, and the rooms on each. An arrow goes to a lower floor, never to a room beside."""
WORDS = {
    "errors",
    "types",
    "config",
    "registry",
    "files",
    "leftovers",
    "paths",
    "locks",
    "interruption",
    "korean",
    "processes",
    "version",
}
DOORS = {
    *("cli", "__main__", "__init__", "pipeline", "factory_demo"),
}
FAMILIES = {"generators", "filters", "metrics", "detectors", "exports"}
CHAPTERS = {"synthesis", "screening", "evaluation", "export", "recipes"}
SINGLE = {"exports.export": "export"}
"""Files that are a room of their own: the stage that calls the exporters."""
BELOW: dict[str, set[str]] = {
    "words": {"words"},
    "arithmetic": {"words", "arithmetic"},
    "data": {"words", "data"},
    "nn": {"words", "nn"},
    "run": {"words", "data", "run"},
    "interfaces": {"words", "data", "nn"},
    "testing": {"words", "data", "nn", "interfaces", "export", "testing"},
    **{family: {"words", "arithmetic", "data", "nn", "interfaces"} for family in FAMILIES},
    "exports": {"words", "data", "nn", "interfaces"},
    "synthesis": {"words", "data", "nn", "run", "interfaces", "synthesis"},
    "screening": {"words", "data", "nn", "run", "interfaces", "screening"},
    "evaluation": {"words", "data", "nn", "run", "interfaces", "evaluation", "arithmetic"},
    "export": {"words", "data", "run", "interfaces"},
    "recipes": {"words", "data", "nn", "run", "interfaces", "recipes"},
    "preflight": {"words", "data", "nn", "run", "interfaces", "arithmetic", "preflight", *CHAPTERS},
    "choice": {"words", "data", "nn", "run", "interfaces", "choice", *CHAPTERS},
    "reporting": {"words", "data", "nn", "run", "interfaces", "arithmetic", "reporting", *CHAPTERS},
    "inspection": {"words", "data", "nn", "run", "interfaces", "arithmetic", "inspection", *CHAPTERS},
    "integrations": {"words", "data", "nn", "run", "export", "integrations"},
    "cluster": {"words", "nn", "run", "cluster"},
    "studio": {"words", "data", "run", "interfaces", "preflight", "reporting", "studio", *CHAPTERS},
    "doors": {
        *(
            "words",
            "data",
            "nn",
            "run",
            "interfaces",
            "testing",
            "preflight",
            "choice",
            "reporting",
            "inspection",
            "cluster",
            "studio",
            "doors",
        ),
        *CHAPTERS,
    },
}
"""What each room may import. A family is not in its own list: files inside a family do not know one another, and the
chapters (synthesis, screening, evaluation) meet only through records on disk."""
ROOM_OF_LIBRARY = {
    "diffusers": "nn",
    "transformers": "nn",
    "tokenizers": "nn",
    "PIL": "data",
    "tifffile": "data",
    "jinja2": "reporting",
    "onnxruntime": "inspection",
    "openvino": "inspection",
    "fastapi": "studio",
    "starlette": "studio",
    "uvicorn": "studio",
    "torchvision": "integrations",
    "ray": "cluster",
    "fsspec": "cluster",
}
"""Libraries that one room alone may import. torchvision is no dependency, for its wheels tie a CPU machine to CUDA; it
comes with Anomalib."""
LIGHT = {"words", "arithmetic", "run", "export", "exports"}
"""Rooms that import no torch at module level, so that `flawsmith --help`, `check` and `export` stay quick."""
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc"}
LONGEST = 350
MOST_FILES = 15
"""Files in one folder, without `__init__`."""


@dataclass(frozen=True)
class Import:
    """One import found in a file."""

    module: str
    """Dotted name; of our own package as deep as a module goes."""
    line: int
    on_load: bool
    """True: it happens when the file is imported; False: inside a function, or for type checkers alone."""


def modules_of(root: Path) -> dict[str, Path]:
    """Return {dotted name: file} of a source tree whose package is called flawsmith."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(("flawsmith", *(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)))] = path
    return found


def imports_of(path: Path, name: str, known: set[str]) -> list[Import]:
    """Return every import in a file: at module level, in functions, under TYPE_CHECKING, by import_module("...")."""
    found: list[Import] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, on_load: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                found.append(Import(deeper if deeper in known else base, node.lineno, on_load))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                found.append(Import(node.args[0].value, node.lineno, on_load))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            on_load = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, on_load)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, on_load)

    visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), True)
    return found


def room_of(module: str) -> str:
    """Return the room of one of our modules; "" for a module that has no room."""
    parts = module.split(".")
    first = parts[1] if len(parts) > 1 else "__init__"
    if (single := ".".join(parts[1:3])) in SINGLE:
        return SINGLE[single]
    if first in WORDS:
        return "words"
    if first in DOORS:
        return "doors"
    return first if first in BELOW else ""


def offences(root: Path) -> list[str]:
    """Return a sentence for each import that breaks a rule of the house, and for each file that has no place in it."""
    modules = modules_of(root)
    known = set(modules)
    wrong: list[str] = []
    graph: dict[str, set[str]] = {}
    for folder, count in Counter(path.parent for path in modules.values() if path.name != "__init__.py").items():
        if folder != root and count > MOST_FILES:
            wrong.append(f"{folder.relative_to(root)}: {count} files; a room with more than {MOST_FILES} is two rooms")
    for name, path in modules.items():
        room, where = room_of(name), path.relative_to(root)
        if not room:
            wrong.append(f"{where}: belongs to no room of the house")
            continue
        if VAGUE & set(where.with_suffix("").parts):
            wrong.append(f"{where}: name it after what it does")
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST:
            wrong.append(f"{where}: {length} lines; at {LONGEST} a file has two subjects")
        for one in imports_of(path, name, known):
            library = one.module.partition(".")[0]
            if library == "flawsmith":
                target = room_of(one.module)
                graph.setdefault(name, set()).add(one.module)
                if target not in BELOW[room]:
                    wrong.append(f"{where}:{one.line}: {room} may not import {one.module}")
            elif ROOM_OF_LIBRARY.get(library, room) != room:
                wrong.append(f"{where}:{one.line}: {library} is imported in {ROOM_OF_LIBRARY[library]} only")
            elif library == "torch" and room in LIGHT and one.on_load:
                wrong.append(f"{where}:{one.line}: {room} must load without torch")
    return wrong + [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return one cycle for each place where a depth-first walk comes back to itself."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> None:
        if node in way:
            found.append([*way[way.index(node) :], node])
            return
        if node in done:
            return
        for target in sorted(graph.get(node, ())):
            walk(target, [*way, node])
        done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found


def test_the_house_holds() -> None:
    wrong = offences(SOURCE)
    assert not wrong, "\n" + "\n".join(wrong)


def test_painting_with_pixels_loads_no_backbone() -> None:
    """diffusers takes seconds to load; `flawsmith paint` answers in four, and a training has many workers."""
    from flawsmith import registry

    modules = modules_of(SOURCE)
    pixels = [entry.target.partition(":")[0] for entry in registry._OURS["generators"].values() if entry.pixels]
    todo, loaded = ["flawsmith.synthesis.painted_dataset", "flawsmith.synthesis.by_hand.brush", *pixels], set()
    assert len(pixels) > 1
    while todo:
        name = todo.pop()
        loaded.add(name)
        if name in modules:
            todo += [one.module for one in imports_of(modules[name], name, set(modules)) if one.on_load]
            todo = [one for one in todo if one not in loaded]
    assert "flawsmith.synthesis.plan" in loaded and "torch" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("diffusers", "transformers", "tokenizers")}


def test_every_room_is_seen() -> None:
    """Guards the guard: a renamed folder must not make the test pass for want of files."""
    rooms = {room_of(name) for name in modules_of(SOURCE)}
    assert rooms >= {room for _, floor in FLOORS for room in floor}


def test_the_floors_are_what_the_table_says() -> None:
    """Every arrow that BELOW allows goes down."""
    level = {room: number for number, (_, floor) in enumerate(FLOORS) for room in floor}
    assert set(BELOW) == set(level)
    for room, targets in BELOW.items():
        wrong = [target for target in targets - {room} if level[target] >= level[room]]
        assert not wrong, f"{room} looks up or sideways at {wrong}"
    for chapter in ("synthesis", "screening", "evaluation"):
        assert not BELOW[chapter] & ({"synthesis", "screening", "evaluation"} - {chapter})


@pytest.mark.parametrize(
    ("file", "source", "said"),
    [
        ("data/a.py", "from flawsmith.nn import backbone", "data may not import flawsmith.nn"),
        ("nn/a.py", "def f():\n    from flawsmith.data import images", "nn/a.py:2: nn may not import flawsmith.data"),
        ("run/a.py", "import flawsmith.nn.trainer", "run may not import flawsmith.nn"),
        ("config.py", "from .run.folder import Run", "words may not import flawsmith.run.folder"),
        ("evaluation/a.py", "from flawsmith.exports.mvtec import write", "evaluation may not import flawsmith.exports"),
        (
            "evaluation/a.py",
            "from flawsmith.metrics.pictures import kid",
            "evaluation may not import flawsmith.metrics",
        ),
        ("evaluation/a.py", "from flawsmith.synthesis import train", "evaluation may not import flawsmith.synthesis"),
        ("synthesis/a.py", "from flawsmith.screening import gate", "synthesis may not import flawsmith.screening"),
        ("synthesis/a.py", "from flawsmith.reporting import charts", "synthesis may not import flawsmith.reporting"),
        ("screening/a.py", "from flawsmith.evaluation import measure", "screening may not import flawsmith.evaluation"),
        ("exports/export.py", "from flawsmith.screening import gate", "export may not import flawsmith.screening"),
        ("exports/a.py", "import torch", "exports must load without torch"),
        ("arithmetic/a.py", "from flawsmith.data import images", "arithmetic may not import flawsmith.data"),
        ("synthesis/a.py", 'import importlib\nimportlib.import_module("flawsmith.generators.x")', "may not import"),
        ("generators/a.py", "from flawsmith.generators import b", "generators may not import flawsmith.generators"),
        ("generators/a.py", "from flawsmith.synthesis import train", "generators may not import flawsmith.synthesis"),
        ("exports/a.py", "from flawsmith.filters import b", "exports may not import flawsmith.filters"),
        ("interfaces.py", "from flawsmith.synthesis import train", "interfaces may not import"),
        ("data/a.py", "from flawsmith.cli import app", "data may not import flawsmith.cli"),
        ("data/a.py", "import flawsmith", "data may not import flawsmith"),
        ("generators/a.py", "import diffusers", "diffusers is imported in nn only"),
        ("synthesis/a.py", "def f():\n    from transformers import CLIPTextModel", "transformers is imported in nn"),
        ("nn/a.py", "import torchvision", "torchvision is imported in integrations"),
        ("files.py", "import torch", "words must load without torch"),
        ("data/utils.py", "", "name it after what it does"),
        ("helpers.py", "", "belongs to no room"),
        ("data/long.py", "\n" * 351, "two subjects"),
    ],
)
def test_a_planted_offence_is_found(tmp_path: Path, file: str, source: str, said: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert said in "\n".join(offences(tmp_path))


def test_a_crowded_room_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(MOST_FILES + 1):
        (tmp_path / "data" / f"subject{number}.py").touch()
    assert offences(tmp_path) == [f"data: {MOST_FILES + 1} files; a room with more than {MOST_FILES} is two rooms"]


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("from flawsmith.data import b")
    (tmp_path / "data" / "b.py").write_text("def f():\n    from flawsmith.data.a import g")
    assert "import cycle: flawsmith.data.a -> flawsmith.data.b -> flawsmith.data.a" in offences(tmp_path)


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    for file, source in {
        "types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor\n",
        "files.py": "def f():\n    import torch",
        "data/a.py": "from flawsmith.data import b\nfrom flawsmith import types",
        "data/b.py": "from flawsmith.types import Example",
        "synthesis/a.py": "from flawsmith import registry\nfrom flawsmith.synthesis import b",
        "synthesis/b.py": "from flawsmith.interfaces import Generator",
        "interfaces.py": "def f():\n    from flawsmith.nn.weights import save",
        "nn/weights.py": "import diffusers",
        "registry.py": "",
        "cli.py": "from flawsmith import __version__\nfrom flawsmith.synthesis.a import x",
        "__init__.py": "",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert offences(tmp_path) == []
