"""``./scripts/bench``: its errors and exit codes are those of the commands of ``sam-detect``."""

from __future__ import annotations

import sys

from sam_detect.cli.app import COMMANDS, main

COMMAND = ("scripts.dev.bench.command:bench", "Measure time, memory and ratios, stage by stage.")

if __name__ == "__main__":
    COMMANDS["bench"] = COMMAND
    main(["bench", *sys.argv[1:]])
