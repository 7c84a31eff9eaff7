"""``detect --rank``: in which pictures a user's names help most, and why."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from sam_detect.cli.feedback import say
from sam_detect.cli.text import escape, show, table

if TYPE_CHECKING:
    from sam_detect.types import Detections

UNSURE = 0.5
"""From this on an object is counted as unsure: confidences from 0.25 to 0.75."""


class Ranking:
    """The pictures of a run, those with the least sure labels first."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, found: Detections) -> None:
        """Takes a picture with all its objects."""
        import numpy as np

        from sam_detect.server.survey import unsure

        taught = np.array([each.taught for each in found.classifications], np.bool_)
        doubts = unsure(found.confidence.astype(np.float32), taught)
        count = int(np.count_nonzero(doubts >= UNSURE))
        reason = "all labels are sure" if len(found) else "nothing was found"
        if count:
            worst = found[int(doubts.argmax())]
            place = ",".join(map(str, worst.bbox))
            reason = f"{count} of {len(found)} objects are unsure; most so {worst.best_label}? "
            reason += f"({worst.confidence:.2f}) at {place}"
        mean = round(float(doubts.mean()), 6) if len(found) else 0.0
        row = {"image": found.source_id, "uncertainty": mean, "unsure": count}
        self._rows.append({**row, "objects": len(found), "reason": reason})

    def show(self, *, as_json: bool) -> None:
        """Prints a line for each picture."""
        rows = sorted(self._rows, key=lambda row: (-row["uncertainty"], -row["unsure"]))
        if as_json:
            for row in rows:
                say(json.dumps(row), to=sys.stdout)
            return
        shown = table("picture", "uncertainty>", "why")
        for row in rows:
            shown.add_row(escape(row["image"]), f"{row['uncertainty']:.2f}", escape(row["reason"]))
        show(shown)
