"""The structure of the package, read from its source: tiers, rooms, and what an import costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sam_detect"

ROOMS = {"io", "segmentation", "fading", "embedding", "vector_store", "labelling"}
APPS = {"video", "microscopy", "evaluation"}
TIERS = [
    {"errors", "types"},
    {"contracts", "interfaces", "registry", "options", "config", "parts", "plain_yaml"},
    {"models"},
    ROOMS,
    {"features"},
    {"library"},
    {"pipeline"},
    APPS,
    {"api"},
    {"server", "cli", "verification", "__main__", "download_models"},
]
HEAVY = ("torch", "torchvision", "sam2", "open_clip", "cv2", "skimage", "scipy", "qdrant_client",
         "qdrant_edge", "PIL", "grpc")  # fmt: skip


def _modules() -> dict[str, Path]:
    return {
        ".".join(("sam_detect", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
    }


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    modules = _modules()
    return {name for name in found if name in modules or f"{name}.__init__" in modules} - {
        "sam_detect"
    }


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _tier(part: str) -> int:
    for number, parts in enumerate(TIERS):
        if part in parts:
            return number
    raise AssertionError(
        f"sam_detect/{part} is in no tier: add it to docs/architecture.md and here"
    )


def test_every_import_goes_up_the_tiers() -> None:
    wrong = []
    for module, path in _modules().items():
        part = _part(module)
        if part in ("", "__init__"):
            continue
        for imported in _imports(path):
            other = _part(imported)
            if other == part:
                continue
            sideways = {part, other} <= ROOMS or {part, other} <= APPS
            if _tier(other) > _tier(part) or sideways:
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count, too."""
    modules = _modules()
    graph = {
        module: {f"{name}.__init__" if f"{name}.__init__" in modules else name for name in found}
        for module, found in ((module, _imports(path)) for module, path in modules.items())
    }
    # A package's __init__ that names its modules for lazy loading is no dependency.
    lazy = {module for module in modules if module.endswith(".__init__")}
    try:
        nodes = {module: found - lazy for module, found in graph.items() if module not in lazy}
        TopologicalSorter(nodes).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_below_the_command_line_imports_it() -> None:
    for module, path in _modules().items():
        if _part(module) not in ("cli", "__main__", "download_models"):
            assert not any(_part(name) == "cli" for name in _imports(path)), module


@pytest.mark.parametrize(
    "code",
    [
        "import sam_detect",
        "from sam_detect.cli.app import run; assert run(['--help']) == 0",
        "import sam_detect.fading, sam_detect.embedding, sam_detect.segmentation",
        "import sam_detect.vector_store, sam_detect.labelling, sam_detect.registry",
        "from sam_detect.cli.app import run; assert run(['download-models', '--list']) == 0",
    ],
)
def test_an_import_loads_nothing_heavy(code: str) -> None:
    script = f"import sys; {code}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "used"),
    [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3"), ({"OMP_NUM_THREADS": "2"}, "None")],
)
def test_the_command_multiplies_on_one_thread_unless_it_is_told(
    given: dict[str, str], used: str
) -> None:
    script = (
        "import os, sys\n"
        "from sam_detect.cli import main\n"
        "loaded = 'numpy' in sys.modules\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(loaded, os.environ.get('OPENBLAS_NUM_THREADS'))"
    )
    known = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | given
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=known,
        check=True,
    )  # fmt: skip
    assert done.stdout.split()[-2:] == ["False", used], "before NumPy is loaded"


def test_detecting_without_models_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np; from sam_detect import SAMDetect;"
        "from sam_detect.vector_store import MemoryVectorStore;"
        "SAMDetect(vector_store=MemoryVectorStore()).detect(np.zeros((20, 20, 3), np.uint8));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
