"""Learning batches: what was learnt together, and can be taken back together."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta, timezone

TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
BATCH = r"20[0-9]{6}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}"
"""The id of a batch: its time in UTC, with microseconds, and chance. Ids sort by time."""


def new_batch(after: str = "") -> str:
    """The id of a batch that begins now.

    Args:
        after: the newest batch there is; the new one sorts after it, whatever the clock says.
    """
    time = datetime.now(timezone.utc)
    if after:
        time = max(time, time_of(after) + timedelta(microseconds=1))
    return f"{time.strftime(TIME_FORMAT)}-{secrets.token_hex(4)}"


def time_of(batch: str) -> datetime:
    """When a batch began; raises ``ValueError`` for text that is no batch's id."""
    if not re.fullmatch(BATCH, batch):
        raise ValueError(f"'{batch}' is not the id of a learning batch")
    time = datetime.strptime(batch.partition("-")[0], TIME_FORMAT)
    return time.replace(tzinfo=timezone.utc)
