"""The structure of the code, read from its imports: `python tests/rooms.py [FOLDER]`, a checkout; this one by default.

Prints the module graph (arrows, arrows upwards, circles), lines and files of each room, the longest functions, the number of
`type: ignore`. test_rooms.py enforces it. Imports inside functions, under
TYPE_CHECKING and by name (`"module:function"`) count as well.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

PACKAGE = "stylerdalle"
# from the lowest room up: a module imports from its own room and from rooms below it
ROOMS = (
    ("progress", "settings"),
    ("storage",),
    ("distributed",),
    ("device",),
    ("cache",),
    ("images",),
    ("pictures",),
    ("tokenizers",),
    ("translator",),
    ("clip",),
    ("features",),
    ("checkpoint",),
    ("bundle",),
    ("resolve",),
    ("pipeline",),
    ("__init__",),
    ("learn",),
    ("tune",),
    ("training",),
    ("convert", "queue"),
    ("cli",),
    ("__main__",),
)
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
Graph = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name below the package -> file; a package's own name is that of its `__init__`."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def named(node: ast.AST, package: tuple[str, ...], files: Collection[str]) -> Iterator[str]:
    """What a node may import, as dotted names below stylerdalle, in a file of `package`; some are no modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name.removeprefix(f"{PACKAGE}.") for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
    elif isinstance(node, ast.ImportFrom):
        own = package[: len(package) - node.level + 1] if node.level else ()
        parts = (node.module or "").split(".")
        if not node.level and parts.pop(0) != PACKAGE:
            return
        base = ".".join(part for part in (*own, *parts) if part)
        for alias in node.names:  # a module of the package, or a name in it
            part = f"{base}.{alias.name}".lstrip(".")
            yield part if part in files else base or "__init__"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # imported by name: `module`, `module:function`
        module = node.value.partition(":")[0].lstrip(".").removeprefix(f"{PACKAGE}.")
        if ":" in node.value and module:
            yield ".".join((*package, module))


def graph(root: Path) -> Graph:
    """Module -> modules that it imports."""
    files = modules(root)
    found: Graph = {}
    for module, path in files.items():
        package = path.relative_to(root / PACKAGE).parent.parts
        names = {name for node in ast.walk(ast.parse(path.read_text())) for name in named(node, package, files)}
        found[module] = (names & files.keys()) - {module}
    return found


def circles(arrows: Graph) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components of two or more, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in arrows[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in arrows:
        if module not in index:
            visit(module)
    return found


def upwards(arrows: Graph) -> list[tuple[str, str]]:
    """Arrows from a room to one that stands above it, or to another of its own level."""
    return sorted(
        (module, other)
        for module, others in arrows.items()
        for other in others
        if room(module) != room(other) and LEVELS[room(other)] >= LEVELS[room(module)]
    )


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """(lines from `def` to the end, name) of every function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, node.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    root = parser.parse_args().folder
    arrows, files = graph(root), modules(root)
    found = circles(arrows)
    print(f"{len(arrows)} modules, {sum(map(len, arrows.values()))} arrows")
    unknown = sorted({room(module) for module in arrows} - set(LEVELS))
    print(f"arrows upwards: {len(upwards(arrows)) if not unknown else f'not known, no room has {len(unknown)} of the files'}")
    print(f"circles: {len(found)}, of {sum(map(len, found))} modules")
    for group in found:
        print("   ", " ".join(group))
    lines, counts = Counter[str](), Counter[str]()
    for module, path in files.items():
        lines[room(module)] += len(path.read_text().splitlines())
        counts[room(module)] += 1
    print("room: files, lines")
    for name in sorted(counts, key=lambda name: LEVELS.get(name, -1)):
        print(f"    {name}: {counts[name]}, {lines[name]:,}")
    longest = sorted(((length, f"{module}.{name}") for module, path in files.items() for length, name in functions(path)))[-5:]
    print("longest functions:", ", ".join(f"{name} {length}" for length, name in reversed(longest)))
    print("type: ignore:", sum(path.read_text().count("# type: ignore") for path in files.values()))


if __name__ == "__main__":
    main()
