"""Measures commits with asv (airspeed velocity), publishes the page, and names what got worse.

    ./scripts/metrics [COMMIT...] [--bench REGEX] [--no-run] [--output DIR]

Each commit (by default HEAD) is checked out aside and measured with this environment's Python;
results stay in ``.asv/``, and a commit is added to those measured before. Ends with 1 where asv
finds a figure that rose and did not come back, one line each; with 2 where it cannot be run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam_detect.evaluation.machine import describe_machine, machine_name

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "scripts" / "asv" / "asv.conf.json"
DATA = ROOT.parent / "shared" / "data"


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        machine = register_machine(given.config)
        for commit in [] if given.no_run else given.commits:
            measure(given.config, given.repository, commit, machine, given.bench)
        asv("publish", "--no-pull", "--html-dir", str(given.output), config=given.config)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.output}; show it with: python -m http.server -d '{given.output}'")
    worse = regressions(given.output)
    for line in worse:
        print(f"regression: {line}", file=sys.stderr)
    return 1 if worse else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scripts/metrics", description=__doc__.splitlines()[0])
    made.add_argument("commits", nargs="*", default=["HEAD"], metavar="COMMIT")
    made.add_argument("--bench", default="Stages|Video|Quality", metavar="REGEX",
                      help="of scripts/asv/benchmarks  [default: %(default)s]")  # fmt: skip
    made.add_argument("--no-run", action="store_true", help="only publish what was measured")
    made.add_argument("--output", type=Path, default=ROOT / "metrics-page", metavar="DIR")
    made.add_argument("--config", type=Path, default=CONFIG, help=argparse.SUPPRESS)
    made.add_argument("--repository", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return made


def register_machine(config: Path) -> str:
    """Tells asv of this machine, and gives its name there: what it is, not what its owner calls it.

    Results are compared on one machine, so the name holds what matters to times.
    """
    found = describe_machine()
    name = re.sub(r"[^A-Za-z0-9]+", "-", machine_name(found)).strip("-")
    fields = {
        "machine": name,
        "os": found["system"],
        "arch": os.uname().machine if hasattr(os, "uname") else "",
        "cpu": found["cpu"],
        "num_cpu": str(found["cores"]),
        "ram": str(found["memory_gb"]),
    }
    asv("machine", "--yes", *(part for key, text in fields.items() for part in (f"--{key}", text)),
        config=config)  # fmt: skip
    return name


def measure(config: Path, repository: Path, commit: str, machine: str, bench: str) -> None:
    """Runs the benchmarks on one commit."""
    said = subprocess.run(["git", "-C", str(repository), "rev-parse", f"{commit}^{{commit}}"],
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    full = said.stdout.strip()
    with checked_out(repository, full) as checkout:
        env = {"SAM_DETECT_CHECKOUT": str(checkout)}
        env["SAM_DETECT_TEST_DATA"] = os.environ.get("SAM_DETECT_TEST_DATA", str(DATA))
        asv("run", "--python", "same", "--set-commit-hash", full, "--machine", machine,
            "--bench", bench, "--show-stderr", "--quick", config=config, env=env)  # fmt: skip


@contextmanager
def checked_out(repository: Path, commit: str) -> Iterator[Path]:
    """A commit in a folder of its own, whatever the checkout has of changes."""
    git = ["git", "-C", str(repository), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "checkout")
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def asv(*arguments: str, config: Path, env: dict[str, str] | None = None) -> None:
    """Runs asv; its reports go to stderr.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "asv", "--config", str(config), *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **(env or {})})


def regressions(page: Path) -> list[str]:
    """What asv found in the published results: a line for each figure that got worse."""
    found: list[list[Any]] = json.loads((page / "regressions.json").read_text())["regressions"]
    hashes = json.loads((page / "index.json").read_text())["revision_to_hash"]
    lines = []
    for name, _, _, _, last, best, jumps in found:
        commits = ", ".join(str(hashes[str(jump[1])])[:8] for jump in jumps)
        lines.append(f"{name} was {best:.4g}, is {last:.4g} (since {commits})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
