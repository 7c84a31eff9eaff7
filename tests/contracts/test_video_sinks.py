"""What every output of a video promises, checked for all that are registered."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from sam_detect.errors import OutputError, one_line
from sam_detect.interfaces import VideoSink
from sam_detect.registry import load_class, names
from sam_detect.types import TrackedFrame
from tests.tracked_frames import tracked

ENDINGS = {"annotated": ".mp4", "jsonl": ".jsonl", "mot": ".txt", "snapshots": "",
           "csv": ".csv"}  # fmt: skip
"""An empty one: a folder."""
IN_FOLDERS = {"snapshots"}
ON_STDOUT = {"jsonl", "csv", "mot"}

formats = pytest.mark.parametrize("name", names("video format"))


@dataclass(frozen=True)
class Contents:
    """What an output says.

    Attributes:
        frames: how many there are, where it says that.
        tracks: of the objects in it, where it says that.
    """

    frames: int | None
    tracks: set[int] | None


def make(name: str, output: Path | None, inputs: Sequence[Path] = ()) -> VideoSink:
    sink = load_class("video format", name)(output, inputs=inputs)
    assert isinstance(sink, VideoSink)
    return sink


def target(name: str, folder: Path) -> Path:
    return folder / ("out" + ENDINGS[name])


def write_to(name: str, path: Path, *, frames: int) -> None:
    sink = make(name, path)
    for index in range(frames):
        sink.write(tracked(index))
    sink.close()


def written(name: str, folder: Path, frames: Sequence[TrackedFrame]) -> Path:
    sink = make(name, target(name, folder))
    for each in frames:
        sink.write(each)
    for path in sink.close():
        assert path.exists()
    return target(name, folder)


def read(name: str, path: Path) -> Contents:
    """Reads an output as those who get it would; fails where it is not whole."""
    if name == "annotated":
        return Contents(len(decoded(path)), None)
    if name == "jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return Contents(len(lines), {d["track_id"] for line in lines for d in line["detections"]})
    if name == "mot":
        rows = list(csv.reader(path.read_text("utf-8").splitlines()))
        assert all(len(row) == 9 for row in rows)
        return Contents(None, {int(row[1]) for row in rows})
    if name == "csv":
        with path.open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        assert all(None not in row and None not in row.values() for row in rows)
        return Contents(None, {int(row["track"]) for row in rows})
    file = path / "annotations.json" if name == "snapshots" else path
    if name == "snapshots" and not file.exists():
        return Contents(None, set())
    data = json.loads(file.read_text("utf-8"))
    found = {each["track_id"] for each in data["annotations"]}
    return Contents(sum(v["length"] for v in data["videos"]) if "videos" in data else None, found)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]


def agree(found: Contents, frames: int, tracks: set[int]) -> None:
    assert found.frames in (None, frames)
    assert found.tracks is None or found.tracks == tracks


@formats
def test_every_name_says_where_it_is_written(name: str) -> None:
    assert name in ENDINGS, "say in this test how the output's name ends"


@formats
def test_one_frame(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path / "made" / "for it", [tracked()])
    agree(read(name, path), 1, {1})


@formats
def test_no_frame_at_all_is_no_error(name: str, tmp_path: Path) -> None:
    sink = make(name, target(name, tmp_path))
    assert all(path.exists() for path in sink.close())


@formats
def test_objects_that_come_and_go(name: str, tmp_path: Path) -> None:
    frames = [
        tracked(0, {}),
        tracked(1, {2: ("nut", (20, 10))}),
        tracked(2, {2: ("nut", (22, 10)), 5: (None, (40, 20))}),
        tracked(3, {5: ("leaf", (40, 20))}),
        tracked(4, {}),
        tracked(5, {2: ("nut", (30, 10))}),
    ]
    agree(read(name, written(name, tmp_path, frames)), 6, {2, 5})


@formats
def test_the_size_changes_in_the_middle(name: str, tmp_path: Path) -> None:
    frames = [
        *(tracked(i) for i in range(3)),
        *(tracked(i, {1: ("nut", (30, 30))}, size_hw=(90, 70)) for i in range(3, 6)),
    ]
    agree(read(name, written(name, tmp_path, frames)), 6, {1})


@formats
@pytest.mark.parametrize(
    "times", [(0.0, 0.5, 0.51, 3.0), (7.0, 7.04, 0.0, 0.04), (1.0, 1.0, 1.0, 1.0)]
)
def test_any_time_stamps(name: str, times: tuple[float, ...], tmp_path: Path) -> None:
    frames = [tracked(i, time_s=time) for i, time in enumerate(times)]
    agree(read(name, written(name, tmp_path, frames)), len(times), {1})


@formats
@pytest.mark.parametrize("size_hw", [(1, 1), (33, 17), (480, 3)])
def test_odd_sizes(name: str, size_hw: tuple[int, int], tmp_path: Path) -> None:
    frames = [tracked(i, {1: ("nut", (0, 0))}, size_hw=size_hw, side=1) for i in range(4)]
    agree(read(name, written(name, tmp_path, frames)), 4, {1})


@formats
def test_many_objects(name: str, tmp_path: Path) -> None:
    objects = {
        1 + i: ("nut" if i % 3 else None, (4 + 13 * (i % 20), 4 + 13 * (i // 20)))
        for i in range(200)
    }
    frames = [tracked(i, objects, size_hw=(160, 280), side=10) for i in range(4)]
    agree(read(name, written(name, tmp_path, frames)), 4, set(objects))


@formats
@pytest.mark.parametrize(
    "label", ["=1+1", 'Nüsse, "große"\n細胞', "\ud800", "x" * 500, "../../up", "v1.5", "a,b"]
)
def test_any_label(name: str, label: str, tmp_path: Path) -> None:
    frames = [tracked(i, {1: (label, (8, 10)), 2: (None, (30, 10))}) for i in range(4)]
    agree(read(name, written(name, tmp_path / "in", frames)), 4, {1, 2})
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


@formats
def test_objects_that_are_on_no_track(name: str, tmp_path: Path) -> None:
    frames = [tracked(i, {0: ("nut", (8, 10))}) for i in range(3)]
    path = written(name, tmp_path, frames)
    expected = {"jsonl": {None}, "mot": {-1}, "csv": {0}, "snapshots": set()}
    found = read(name, path)
    assert found.tracks == expected.get(name)


@formats
def test_it_may_be_closed_twice_and_takes_nothing_more(name: str, tmp_path: Path) -> None:
    sink = make(name, target(name, tmp_path))
    sink.write(tracked())
    sink.close()
    assert sink.close() == []
    with pytest.raises(OutputError, match="closed"):
        sink.write(tracked(1))


@formats
def test_what_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    places = [tmp_path / "file" / "out", tmp_path / ("x" * 300)]
    places += [tmp_path / "file"] if name in IN_FOLDERS else [tmp_path / "folder"]
    for path in places:
        with pytest.raises(OutputError) as caught:
            write_to(name, path, frames=1)
        assert one_line(caught.value) == str(caught.value)
        assert str(path) in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"x"


@formats
def test_what_is_being_read_is_never_overwritten(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path)
    if name in IN_FOLDERS:
        path.mkdir()
        for taken in (path / "nut-1-0.png", path / "nut-1-0-2.png"):
            taken.write_bytes(b"mine")
        written(name, tmp_path, [tracked()])
        assert (path / "nut-1-0-2.png").read_bytes() == b"mine"
        assert (path / "nut-1-0-3.png").exists()
        return
    path.write_bytes(b"the video")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OutputError, match="being read"):
        make(name, path, inputs=[tmp_path / "link"])
    assert path.read_bytes() == b"the video"


@pytest.mark.parametrize("name", sorted(ON_STDOUT))
def test_stdout_gets_what_a_file_gets(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [tracked(i) for i in range(3)]
    sink = make(name, None)
    for each in frames:
        sink.write(each)
    assert sink.close() == []
    assert capsys.readouterr().out == written(name, tmp_path, frames).read_text("utf-8")


@pytest.mark.parametrize("name", sorted(set(names("video format")) - IN_FOLDERS))
def test_a_full_device_is_one_line(name: str) -> None:
    with pytest.raises(OutputError, match="No space left") as caught:
        write_to(name, Path("/dev/full"), frames=60)
    assert "/dev/full" in one_line(caught.value)


FILLING = """
import resource, signal, sys
from pathlib import Path
from tests.contracts.test_video_sinks import make, target
from tests.tracked_frames import tracked
from sam_detect.errors import OutputError
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
name, folder = sys.argv[1], Path(sys.argv[2])
sink = make(name, target(name, folder))
objects = {i: ("nut", (4 + 13 * (i % 20), 4 + 13 * (i // 20))) for i in range(1, 61)}
frames = [tracked(i, objects, size_hw=(160, 280), time_s=i / 5) for i in range(60)]
for each in frames:
    grain = np.random.default_rng(each.frame.index).integers(0, 20, each.frame.image_rgb.shape)
    each.frame.image_rgb[...] += grain.astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit := 64_000, limit))
try:
    for each in frames:
        sink.write(each)
    sink.close()
except OutputError as error:
    print(error)
sink.close()
"""


@formats
def test_a_disk_that_fills_is_one_line_and_leaves_what_is_whole(name: str, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FILLING, name, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if name == "snapshots":  # small files: none is too large
        assert lines == []
        return
    assert len(lines) == 1
    assert "File too large" in lines[0]
    path = target(name, tmp_path)
    assert path.stat().st_size <= 64_000
    found = read(name, path)
    assert found.frames is None or 5 <= found.frames < 60
    assert found.tracks is None or found.tracks == set(range(1, 61))
