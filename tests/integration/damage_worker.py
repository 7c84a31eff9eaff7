"""Reads, repairs or undoes in a process of its own: ``damage_worker.py TASK FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sam_detect.errors import SamDetectError
from sam_detect.library.integrity import repair, verify
from sam_detect.library.library import Library
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.vector_store import QdrantVectorStore


def opened(folder: Path) -> Library:
    return Library(QdrantVectorStore(path=folder, collection_name="nuts"), "nuts")


def points_of(library: Library) -> dict[str, Any]:
    SnapshotReader(library).snapshot().examples()
    library.stats()
    return {p.id: [p.vector.tolist(), p.payload] for p in library.points()}  # type: ignore[union-attr]


def read(folder: Path) -> dict[str, Any]:
    """What is read of a library, whether it is found to be sound, and what a repair leaves."""
    said: dict[str, Any] = {"name": folder.name, "repaired": {}, "sound": False}
    try:
        said["points"] = points_of(opened(folder))
    except SamDetectError as error:
        said["error"] = str(error)
    try:
        said["sound"] = verify(opened(folder)).sound
        repair(opened(folder))
        said["repaired"] = points_of(opened(folder))
    except SamDetectError as error:
        said["repair"] = str(error)
        try:
            repair(opened(folder))
            said["repaired"] = points_of(opened(folder))
        except SamDetectError as again:
            said["repair"] = str(again)
    return said


def main() -> None:
    task, folder = sys.argv[1], Path(sys.argv[2])
    if task == "read":
        for each in sorted(folder.iterdir()):
            print(json.dumps(read(each)), flush=True)
        return
    if task == "repair":
        for each in sorted(folder.iterdir()):
            print(json.dumps(repair(opened(each)).to_dict()), flush=True)
        return
    library = opened(folder)
    SnapshotReader(library).snapshot().examples()
    print("ready", flush=True)
    sys.stdin.readline()
    if task == "undo-when-told":
        library.undo()
    else:
        repair(library)


if __name__ == "__main__":
    main()
