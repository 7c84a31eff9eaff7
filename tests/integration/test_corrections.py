"""A scripted user corrects the worst find again and again: F1 rises, whatever the habit.

`./scripts/corrections FOLDER` prints the figures of docs/labelling.md; here one seed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.dev import corrections

pytestmark = pytest.mark.slow


def test_f1_rises_with_corrections(test_data_dir: Path) -> None:
    folder = test_data_dir / "nuts_dates"
    asked = ["--seeds", "0", "--policies", "negative,kind", "--corrections", "4"]
    given = corrections.parser().parse_args([str(folder), *asked])
    records = list(corrections.trials(folder, given))
    found = {
        policy: corrections.summary([r for r in records if r["policy"] == policy])
        for policy in given.policies
    }
    for said in found.values():
        assert said["f1"][-1] > said["f1"][0] + 0.01
        assert said["deepest_fall"] > -0.02
        assert said["ended_lower"] == 0
    # A negative is a local exception: it takes nothing from pictures without corrections.
    others = found["negative"]["f1_others"]
    assert others[-1] > others[0] - 0.01
    # A name of its own teaches more than a negative.
    assert found["kind"]["f1"][-1] > found["negative"]["f1"][-1]
