"""How large the rooms (folders) of mmfuse are, and what no room may have: `make rooms` prints it, test_rooms.py asks.

Imports within functions and under TYPE_CHECKING count: who reads one file of a circle has to read them all.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp

PACKAGE = Path(__file__).resolve().parents[1] / "mmfuse"
MOST_LINES = 80
"""Of a function, its docstring included and its decorators not."""
MOST_PARAMETERS = 10
"""Of a function but a constructor, whose are options, a command, whose are the command line's, and `mmfuse.fit`."""


def lines_per_room() -> dict[str, int]:
    """Lines of Python by folder, the largest first."""
    counted = Counter[str]()
    for path in PACKAGE.rglob("*.py"):
        counted[str(path.parent.relative_to(PACKAGE.parent))] += len(path.read_text().splitlines())
    return dict(counted.most_common())


def circles() -> list[set[str]]:
    """Sets of modules that all import each other, directly or through others of the set."""
    return _circles(_arrows())


def circles_of_rooms() -> list[set[str]]:
    """The same of folders, which may be a circle where their files are none; each file of mmfuse itself is its own.

    A folder may read the one that it is in.
    """
    arrows: dict[str, set[str]] = {}
    for module, imported in _arrows().items():
        arrows.setdefault(_room(module), set()).update(map(_room, imported))
    inside = {
        room: {other for other in others if f"{room}.".startswith(f"{other}.")} for room, others in arrows.items()
    }
    return _circles({room: others - inside[room] for room, others in arrows.items()})


def _arrows() -> dict[str, set[str]]:
    """By module, what it imports. The root is left out: it names what is public, and others ask it for the version."""
    graph = grimp.build_graph("mmfuse", cache_dir=None)
    return {m: graph.find_modules_directly_imported_by(m) - {"mmfuse"} for m in graph.modules - {"mmfuse"}}


def _room(module: str) -> str:
    is_folder = (PACKAGE.parent / module.replace(".", "/")).is_dir()
    return module if is_folder or module.count(".") == 1 else module.rpartition(".")[0]


def _circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    reached = {name: _reached(name, arrows) for name in arrows}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in arrows}
    return sorted((set(circle) for circle in found if circle), key=sorted)


def _reached(name: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = arrows[name]
    while left:
        seen = seen | left
        left = set().union(*(arrows[other] for other in left)) - seen
    return seen


def long_functions() -> dict[str, int]:
    """Functions over MOST_LINES, and their lines."""
    lengths = {name: (f.end_lineno or 0) - f.lineno + 1 for name, f in _functions()}
    return {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def wide_functions() -> dict[str, int]:
    """Functions with more than MOST_PARAMETERS, `self` not counted, and how many they have."""
    counts = {
        name: _parameters(f) for name, f in _functions() if f.name not in ("__init__", "fit") and not _is_command(f)
    }
    return {name: count for name, count in counts.items() if count > MOST_PARAMETERS}


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {node.name}", node


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(named) - (named[:1] in (["self"], ["cls"]))


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(".command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def main() -> None:
    """Print all of it."""
    rooms = lines_per_room()
    for room, lines in rooms.items():
        print(f"{lines:6} {room}")
    print(f"{sum(rooms.values()):6} in {len(rooms)} rooms")
    found = {"circles of modules": circles(), "circles of rooms": circles_of_rooms()}
    for what, sets in found.items():
        print(f"{what}: {len(sets)}", *(f"\n  {', '.join(sorted(circle))}" for circle in sets))
    print(f"functions over {MOST_LINES} lines:", long_functions() or "none")
    print(f"functions with more than {MOST_PARAMETERS} parameters:", wide_functions() or "none")


if __name__ == "__main__":
    main()
