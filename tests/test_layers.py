"""The package's import directions, read from the sources: data runs from left to right and never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medvlm_probe"
LEAVES = {"types", "errors"}
TOOLS = {"metrics", "shift"} | LEAVES
CHAIN: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"audit", "report"},
    {"saliency"},
    {"tuning"},
    {"zero_shot"},
    {"embeddings"},
    {"models", "cohort"},
    {"runs"},
    LEAVES,
]
MAY_PLOT = {"cli", "audit", "report"}
PARTS = sorted({part for row in CHAIN for part in row} | TOOLS | {"plots"})


def allowed(part: str) -> set[str]:
    """Return the parts that `part` may import, itself included."""
    if part in LEAVES:
        return LEAVES
    if part in {"metrics", "shift"}:
        return {part, "metrics"} | LEAVES
    if part == "plots":
        return {"plots"} | LEAVES
    row = next(index for index, parts in enumerate(CHAIN) if part in parts)
    below = set().union(*CHAIN[row + 1 :])
    return {part} | below | TOOLS | ({"plots"} if part in MAY_PLOT else set())


def imported_parts(path: Path, package: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """Yield (line, part) for each import of our own in a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                folder = path.relative_to(package.parent).with_suffix("").parts[: -node.level]
                module = ".".join([*folder, *([node.module] if node.module else [])])
            else:
                module = node.module or ""
            names = [f"{module}.{alias.name}" if module == package.name else module for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1:
                yield node.lineno, parts[1]


def violations(package: Path = PACKAGE) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        part = relative.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        found += [
            f"{relative}:{line} imports {target}"
            for line, target in imported_parts(path, package)
            if target in PARTS and target not in allowed(part)
        ]
    return found


def test_imports_go_one_way() -> None:
    assert violations() == []


def test_every_part_has_a_place() -> None:
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__", "data_cards", "py.typed"} <= set(PARTS)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("metrics/a.py", "from medvlm_probe.runs import write_json"),
        ("metrics/a.py", "from medvlm_probe import cohort"),
        ("plots/a.py", "import medvlm_probe.metrics.ranking"),
        ("cohort/a.py", "def f():\n    from medvlm_probe.models.zoo import ZOO"),
        ("embeddings/a.py", "from ..zero_shot import prompts"),
        ("types.py", "from medvlm_probe.cohort.labels import display_name"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str) -> None:
    package = tmp_path / "medvlm_probe"
    path = package / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert len(violations(package)) == 1


@pytest.mark.parametrize("module", ["medvlm_probe", "medvlm_probe.cli.main", "medvlm_probe.types", "medvlm_probe.runs"])
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = ["torch", "open_clip", "transformers", "pandas", "matplotlib", "sklearn", "umap", "pyarrow", "scipy"]
    heavy += ["ray", "fsspec"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
