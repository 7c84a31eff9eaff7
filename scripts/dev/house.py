"""How large the house is: lines, modules, names, rooms; the files of a detection; tests and docs.

``./scripts/house`` prints a table, ``./scripts/house --json`` the same as data. Lines are all lines
of a file. A constant is a name in capitals that a module sets. A detection passes a file if it
calls one of its functions: ``sam-detect detect`` of a picture, with a library of some examples.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS, DOCS = ROOT / "sam_detect", ROOT / "tests", ROOT / "docs"

PASSED = """
import sys, threading
found = set()
def note(frame, event, _):
    # a module or a class that is read has no CO_OPTIMIZED
    if event == "call" and frame.f_code.co_flags & 1:
        found.add(frame.f_code.co_filename)
threading.setprofile(note)
sys.setprofile(note)
from sam_detect.cli.app import run
run(["detect", *sys.argv[2:], "--json"])
sys.setprofile(None)
inside = sorted(each[len(sys.argv[1]) + 1 :] for each in found if each.startswith(sys.argv[1]))
print("\\n".join(["passed:", *inside]))
"""


def house() -> dict[str, Any]:
    """All figures, by name."""
    modules = sorted(PACKAGE.rglob("*.py"))
    trees = [ast.parse(path.read_text("utf-8")) for path in modules]
    folders = [each for each in PACKAGE.iterdir() if (each / "__init__.py").exists()]
    return {
        "lines": sum(map(lines, modules)),
        "modules": len(modules),
        "classes": sum(isinstance(n, ast.ClassDef) for tree in trees for n in ast.walk(tree)),
        "constants": sum(1 for tree in trees for _ in constants(tree)),
        "folders": len(folders),
        "loose_files": len(list(PACKAGE.glob("*.py"))),
        "files_of_a_detection": files_of_a_detection(),
        "tests": collected(),
        "test_lines": sum(map(lines, TESTS.rglob("*.py"))),
        "docs_kb": round(sum(each.stat().st_size for each in DOCS.rglob("*.md")) / 1000),
        "rooms": rooms(modules),
    }


def lines(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def constants(tree: ast.Module) -> Iterator[str]:
    """The names in capitals that a module sets."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (n.id for n in names if isinstance(n, ast.Name) and n.id.isupper())


def rooms(modules: list[Path]) -> dict[str, int]:
    """Lines of each folder of the package, and of the loose files together."""
    found: Counter[str] = Counter()
    for path in modules:
        parts = path.relative_to(PACKAGE).parts
        found[parts[0] if len(parts) > 1 else "loose files"] += lines(path)
    return dict(sorted(found.items()))


def files_of_a_detection() -> int:
    """How many files of the package one detection passes."""
    with tempfile.TemporaryDirectory() as home:
        picture = Path(home, "coins.png")
        environment = os.environ | {"SAM_DETECT_HOME": home}

        def python(*arguments: str) -> str:
            line = [sys.executable, *arguments]
            return subprocess.run(
                line, env=environment, check=True, capture_output=True, text=True, cwd=ROOT
            ).stdout

        python("-c", "import sys, skimage.data as d, skimage.io as io; "
               "io.imsave(sys.argv[1], d.coins())", str(picture))  # fmt: skip
        python("-m", "sam_detect", "learn", str(picture), "--label", "coin", "--masks", "auto")
        said = python("-c", PASSED, str(PACKAGE), str(picture))
    return len(said.partition("passed:\n")[2].split())


def collected() -> int:
    """How many tests there are."""
    line = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(TESTS)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, cwd=ROOT)
    return sum("::" in each for each in done.stdout.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(prog="./scripts/house", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as data")
    found = house()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if name != "rooms":
            print(f"{name.replace('_', ' '):24}{value:>8,}")
    print("\nlines by room")
    for name, value in found["rooms"].items():
        print(f"  {name:22}{value:>8,}")


if __name__ == "__main__":
    main()
