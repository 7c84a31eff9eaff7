"""What the tests do not see of the environment they are run in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SET = {"QDRANT_URL": "http://elsewhere.example", "SAM_DETECT_TOP_K": "7", "HF_TOKEN": "secret",
       "SAM_DETECT_HOME": "/home-of-a-user", "SAM_DETECT_TEST_DATA": "/data"}  # fmt: skip


@pytest.fixture(scope="module")
def seen_by_a_module() -> dict[str, str]:
    return dict(os.environ)


def test_fixtures_of_modules_see_no_settings(seen_by_a_module: dict[str, str]) -> None:
    for seen in (seen_by_a_module, dict(os.environ)):
        ours = {name for name in seen if name.startswith(("QDRANT_", "SAM_DETECT_", "HF_TOKEN"))}
        assert ours - {"SAM_DETECT_TEST_DATA", "HF_TOKEN_PATH"} == {"SAM_DETECT_HOME"}
        assert seen["SAM_DETECT_HOME"] != SET["SAM_DETECT_HOME"]
    kept = os.environ.get("SAM_DETECT_TEST_DATA")
    assert seen_by_a_module.get("SAM_DETECT_TEST_DATA") == kept


def test_that_holds_where_they_are_set(tmp_path: Path) -> None:
    test = f"{__file__}::{test_fixtures_of_modules_see_no_settings.__name__}"
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test], env={**os.environ, **SET},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
