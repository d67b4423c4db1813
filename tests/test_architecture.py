"""The structure that ARCHITECTURE.md describes: layers, doors and sizes, checked against the code itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent

# From the words up to the entries; an import points to a lower layer, never sideways.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "settings", "telemetry"}),
    frozenset({"answers", "schemas", "survival", "topics"}),
    frozenset({"parameters"}),
    frozenset(
        {
            "access",
            "bodies",
            "circuit_breaker",
            "database",
            "local_analyzer",
            "models",
            "problems",
            "prompts",
            "queue_lock",
            "rate_limiter",
            "xai",
        }
    ),
    frozenset({"lane"}),
    frozenset({"grok_client", "mock_grok", "prefilter", "queries", "store"}),
    frozenset({"account", "intake", "loader", "reader", "upkeep"}),
    frozenset({"batch_processor"}),
    frozenset({"connections", "middleware", "routes"}),
    frozenset({"serving"}),
    frozenset({"backups", "demo", "ingest_data", "main"}),
)
PACKAGES = (
    "access",
    "account",
    "answers",
    "backups",
    "batch_processor",
    "database",
    "loader",
    "local_analyzer",
    "queries",
    "reader",
    "routes",
    "store",
    "survival",
    "telemetry",
    "xai",
)
DOORS = {
    "alembic": {"database"},
    "fastapi": {"main", "routes", "serving"},
    "fastapi_offline": {"routes"},
    "httpx2": {"demo", "grok_client", "loader", "main", "mock_grok"},
    "prometheus_client": {"telemetry"},
    "rich": {"demo", "ingest_data", "loader"},
    "settings": {"backups", "ingest_data", "main"},
    "sqlalchemy": {"database", "models", "queries", "store"},
    "structlog": {"telemetry"},
    "typer": {"access", "ingest_data"},
    "uvicorn": {"connections", "serving"},
    "yaml": {"topics", "xai"},
}
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 50
MOST_PARAMETERS = 6
MOST_NESTING = 3
MOST_ROOT_MODULES = 25


def all_modules() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).glob("*.py"))])


def _room_of(path: Path) -> str:
    """A root module by its name; a module of a package by the package's."""
    return path.stem if path.parent == ROOT else path.parent.name


def _layer_of(room: str) -> int:
    return next((level for level, rooms in enumerate(LAYERS) if room in rooms), -1)


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions() -> Iterator[tuple[Path, Function]]:
    for path in all_modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield path, node


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _nesting(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks stand in each other; an `elif` is no deeper than its `if`."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef | ast.Lambda):
            continue
        is_block = isinstance(child, ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try)
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, _nesting(child, depth + (is_block and not is_elif)))
    return deepest


def test_every_module_has_one_place_in_the_layers() -> None:
    rooms = {_room_of(path) for path in all_modules()}

    assert rooms == frozenset[str]().union(*LAYERS)
    assert sum(len(layer) for layer in LAYERS) == len(rooms)


@pytest.mark.parametrize("path", all_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_to_lower_layers_only(path: Path) -> None:
    room = _room_of(path)
    rooms = frozenset[str]().union(*LAYERS)

    upward = {name for name in _imports(path) & rooms - {room} if _layer_of(name) >= _layer_of(room)}

    assert not upward, f"{path.name} may not import {sorted(upward)}"


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_enters_through_its_doors_only(library: str) -> None:
    users = {_room_of(path) for path in all_modules() if library in _imports(path)}

    assert users <= DOORS[library]


def test_the_analyzer_needs_nothing_but_the_standard_library() -> None:
    imported = set[str]().union(*(_imports(path) for path in (ROOT / "local_analyzer").glob("*.py")))

    assert imported - {"local_analyzer"} <= sys.stdlib_module_names


def test_no_module_is_named_after_the_stdlib_or_a_dependency() -> None:
    names = {path.stem for path in ROOT.glob("*.py")} | set(PACKAGES)

    assert not names & (sys.stdlib_module_names | {"limits", "alembic", "fastapi", "sqlalchemy", "pydantic", "rich"})


def test_the_root_holds_at_most_25_modules() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_ROOT_MODULES


@pytest.mark.parametrize("path", all_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_a_sentence_and_stays_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    first_line = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]

    assert first_line.rstrip().endswith("."), "a module opens with one sentence ending in a period"
    assert source.count("\n") <= MOST_MODULE_LINES


def test_functions_stay_short_and_flat() -> None:
    too_long = [f"{path.name}:{node.name}" for path, node in _functions() if _length(node) > MOST_FUNCTION_LINES]
    too_deep = [f"{path.name}:{node.name}" for path, node in _functions() if _nesting(node) > MOST_NESTING]

    assert not too_long
    assert not too_deep


def test_a_typical_function_can_be_read_at_a_glance() -> None:
    lengths = [_length(node) for _, node in _functions()]

    assert median(lengths) <= 10
    assert quantiles(lengths, n=10)[-1] <= 30


def test_parameters_are_few_and_named_after_the_second() -> None:
    wrong: list[str] = []
    for path, node in _functions():
        positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        unnamed = [name for name in positional if name not in {"self", "cls"}]
        if len(unnamed) + len(node.args.kwonlyargs) > MOST_PARAMETERS or len(unnamed) > 3:
            wrong.append(f"{path.name}:{node.name}")

    assert not wrong


def test_importing_the_service_does_nothing(tmp_path: Path) -> None:
    check = (
        "import os, sys, threading; sys.path.insert(0, sys.argv[1]); before = dict(os.environ);"
        "import main, ingest_data;"
        "assert threading.active_count() == 1 and os.listdir('.') == [] and dict(os.environ) == before"
    )

    result = subprocess.run(
        [sys.executable, "-B", "-c", check, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

    missing = [room for layer in LAYERS for room in sorted(layer) if f"`{room}`" not in text]

    assert not missing
    assert text.count("\n") <= 200
