"""Builds the metrics page, and says what got worse.

.venv/bin/python scripts/metrics.py [HISTORY] [--output DIR]

Ends with 1 where a ratio or a quality figure of the newest commit fell past its spread, naming
each in one line; with 2 where it cannot be run as asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
sys.path[:0] = [str(ROOT), str(SCRIPTS)]

from metrics_views import Page  # noqa: E402

from sam_detect.bench.history import read_history  # noqa: E402
from sam_detect.bench.regressions import regressions  # noqa: E402
from sam_detect.errors import SamDetectError  # noqa: E402

HISTORY = ROOT / "docs" / "metrics" / "history.jsonl"
OUTPUT = ROOT / "metrics-page"
TEMPLATE = "metrics.html.j2"


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        records, problems = read_history(given.history)
        if not records:
            raise SamDetectError(
                f"the history '{given.history}' holds no measurement; "
                f"make one with: sam-detect bench stages --history '{given.history}'"
            )
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr)
        worse = [str(each) for each in regressions(records)]
        page = given.output / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(Page(records, problems, worse)), encoding="utf-8")
    except (SamDetectError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {page} ({len(records)} measurements)")
    for line in worse:
        print(f"regression: {line}", file=sys.stderr)
    return 1 if worse else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scripts/metrics", description=__doc__.splitlines()[0])
    made.add_argument("history", nargs="?", type=Path, default=HISTORY, metavar="HISTORY")
    made.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR")
    return made


def render(page: Page) -> str:
    """The whole page: one file that needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SCRIPTS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)


if __name__ == "__main__":
    sys.exit(main())
