"""The same few hundred random changes in every run; minutes of others with ``-m slow``."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import TARGETS, archive, timed
from hypothesis import given, settings
from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parents[1]
RUNS = {"archive": 40, "recipe": 200, "config": 100, "coco": 80, "yolo": 60}
MINUTES = 2


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuzzing import folder

    monkeypatch.setenv("SAM_DETECT_HOME", str(folder() / "home"))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_changed_is_refused_or_can_be_used(name: str) -> None:
    @settings(max_examples=RUNS[name])
    @given(st.binary(min_size=1, max_size=24))
    def check(data: bytes) -> None:
        timed(TARGETS[name], data)

    check()


def test_some_changed_archives_are_let_in_and_some_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the fuzzer would test nothing but the refusal."""
    import fuzzing

    used = []
    monkeypatch.setattr(fuzzing, "use", used.append)
    chance = random.Random(1)
    for _ in range(100):
        archive(chance.randbytes(12))
    assert 3 < len(used) < 97


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_minutes_of_changes(name: str, tmp_path: Path) -> None:
    """Coverage-guided where atheris is installed (pip install atheris), else by chance."""
    line = [sys.executable, str(TESTS / "fuzz.py"), name, str(60 * MINUTES)]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
