"""Runs a target of ``fuzzing.py``: under ``atheris`` (coverage-guided, its options are libFuzzer's)
where that is installed, else with random bytes.

    python tests/fuzz.py TARGET SECONDS [-seed=1 ...]
"""

from __future__ import annotations

import random
import sys
import time


def main() -> None:
    name, seconds, options = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    try:
        import atheris
    except ImportError:
        by_chance(name, seconds)
        return
    with atheris.instrument_imports(include=["sam_detect"]):
        import fuzzing
    target = fuzzing.TARGETS[name]
    target(b"")  # what is imported on first use
    limits = [f"-max_total_time={seconds}", "-max_len=64", "-rss_limit_mb=2048", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, *options], lambda data: fuzzing.timed(target, data))
    atheris.Fuzz()


def by_chance(name: str, seconds: int) -> None:
    import fuzzing

    chance, ends, runs = random.Random(0), time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        fuzzing.timed(fuzzing.TARGETS[name], chance.randbytes(chance.randrange(1, 48)))
        runs += 1
    print(f"{runs} runs")


if __name__ == "__main__":
    main()
