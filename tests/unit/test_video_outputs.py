"""What each output of a video says, and that it stays readable whatever stops the writing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import motmetrics
import numpy as np
import pytest
from PIL import Image

from sam_detect.api import SAMDetect
from sam_detect.errors import OutputError
from sam_detect.io import video_sinks as video_module
from sam_detect.io.coco import read_coco
from sam_detect.io.snapshots import MAX_SNAPSHOTS, SnapshotSink
from sam_detect.io.tables import MOTSink
from sam_detect.io.tags import LastPlaces, Layout, Tag, place_tags
from sam_detect.io.video_sinks import (
    AnnotatedVideoSink,
    TrackPainter,
    drop_partial_fragment,
    mp4_boxes,
)
from sam_detect.types import TrackedFrame
from sam_detect.types.masks import rle_to_mask
from tests.browser import browser
from tests.tracked_frames import tracked

ROOT = Path(__file__).resolve().parents[2]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(each.time), 3) for each in container.decode(video=0)]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]


def annotated(path: Path, frames: list[TrackedFrame]) -> Path:
    sink = AnnotatedVideoSink(path)
    for each in frames:
        sink.write(each)
    sink.close()
    return path


# -- the annotated video ---------------------------------------------------------------------------


def box(kind: bytes, size: int) -> bytes:
    """A box of an MP4 file: its size, its type, zeros."""
    return size.to_bytes(4, "big") + kind + bytes(size - 8)


def test_the_video_shows_the_frames_and_what_is_drawn_into_them(tmp_path: Path) -> None:
    frames = [tracked(i, {1: ("nut", (20 + 3 * i, 60))}, size_hw=(120, 160)) for i in range(12)]
    painter = TrackPainter()
    for shown, given in zip(pictures(annotated(tmp_path / "x.mp4", frames)), frames, strict=True):
        drawn = painter.draw(given).astype(int)
        assert np.abs(shown - drawn).mean() < 4
        assert np.abs(drawn - given.frame.image_rgb).mean() > 2 * np.abs(shown - drawn).mean()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.0, 0.1, 0.15, 2.0), [0.0, 0.1, 0.15, 2.0]),
        ((7.0, 7.5, 8.0), [0.0, 0.5, 1.0]),
        ((3.0, 3.1, 0.0, 0.1), [0.0, 0.1, 0.14, 0.24]),  # a camera that began again
    ],
)
def test_the_frames_keep_their_times(
    given: tuple[float, ...], expected: list[float], tmp_path: Path
) -> None:
    frames = [tracked(i, time_s=time) for i, time in enumerate(given)]
    assert times(annotated(tmp_path / "x.mp4", frames)) == pytest.approx(expected, abs=0.002)


def test_frames_of_another_size_are_fitted_in(tmp_path: Path) -> None:
    frames = [tracked(0, {}, size_hw=(60, 80)), tracked(1, {}, size_hw=(120, 40))]
    first, second = pictures(annotated(tmp_path / "x.mp4", frames))
    assert second.shape == first.shape == (60, 80, 3)
    assert abs(int(second[30, 10, 0]) - int(frames[1].frame.image_rgb[0, 0, 0])) < 8
    assert second[30, 60].max() < 20, "black next to it"


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (box(b"moof", 20) + box(b"mdat", 50)[:30], [b"ftyp", b"moov"]),
        (box(b"moof", 20)[:12], [b"ftyp", b"moov"]),
        (box(b"moof", 20) + box(b"mdat", 50), [b"ftyp", b"moov", b"moof", b"mdat"]),
    ],
    ids=["without all of its frames", "without all of its header", "complete"],
)
def test_an_interrupted_video_ends_with_a_complete_fragment(
    last: bytes, kept: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(box(b"ftyp", 8) + box(b"moov", 40) + last)
    drop_partial_fragment(path)
    with path.open("rb") as file:
        found = list(mp4_boxes(file))
    assert [kind for kind, _, _ in found] == kept
    assert path.stat().st_size == found[-1][2]


def test_a_closed_video_is_an_ordinary_one(tmp_path: Path) -> None:
    path = annotated(tmp_path / "x.mp4", [tracked(i, {}) for i in range(60)])
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(2_400_000, abs=50_000)
        assert container.streams.video[0].codec_context.name == "h264"
        container.seek(1_500_000)
        assert float(next(container.decode(video=0)).time) <= 1.5
    with path.open("rb") as file:
        kinds = [kind for kind, _, _ in mp4_boxes(file)]
    assert kinds == [b"ftyp", b"free", b"mdat", b"moov"], "no longer in fragments"


KILLED = """
import os, signal, sys
from sam_detect.io.video_sinks import AnnotatedVideoSink
from sam_detect.io.text_sinks import VideoLinesSink
from sam_detect.io.tables import MOTSink
from tests.tracked_frames import tracked
sinks = [AnnotatedVideoSink(sys.argv[1] + "/x.mp4"), VideoLinesSink(sys.argv[1] + "/x.jsonl"),
         MOTSink(sys.argv[1] + "/x.txt")]
for index in range(90):
    for sink in sinks:
        sink.write(tracked(index, {1: ("nut", (10, 10))}))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_what_was_written_before_kill_9_can_be_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert 60 <= len(pictures(tmp_path / "x.mp4")) <= 90, "at most about a second is lost"
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 90
    assert len((tmp_path / "x.txt").read_text().splitlines()) == 90


PLAYS = """
video => new Promise((resolve, reject) => {
  video.onerror = () => reject(video.error.message);
  // A seek may end before its frame can be drawn; this callback comes with the frame.
  const shown = (now, frame) => {
    if (Math.abs(frame.mediaTime - 1.5) > 0.05) {
      video.requestVideoFrameCallback(shown);
      return;
    }
    const canvas = document.createElement('canvas');
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext('2d').drawImage(video, 0, 0);
    const data = canvas.getContext('2d').getImageData(0, 0, 1, 1).data;
    resolve({width: video.videoWidth, height: video.videoHeight, duration: video.duration,
             red: data[0]});
  };
  video.onloadeddata = () => {
    video.onloadeddata = null;
    video.requestVideoFrameCallback(shown);
    video.currentTime = 1.5;
  };
  // Whole, since the server of this test gives no parts of a file, which winding needs.
  fetch('x.mp4').then(got => got.blob()).then(blob => { video.src = URL.createObjectURL(blob); });
})
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_browser_plays_it(killed: bool, tmp_path: Path) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    frames = [tracked(i, {}, size_hw=(120, 160)) for i in range(75)]
    path = tmp_path / "x.mp4"
    sink = AnnotatedVideoSink(path)
    for each in frames:
        sink.write(each)
    if killed:
        shutil.copy(path, tmp_path / "copy.mp4")  # as it was on the disk then
    sink.close()
    if killed:
        (tmp_path / "copy.mp4").replace(path)
    (tmp_path / "page.html").write_text("<video muted></video>")
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browser() as started:
            page = started.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
            seen = page.locator("video").evaluate(PLAYS)
    finally:
        server.shutdown()
        server.server_close()
    assert (seen["width"], seen["height"]) == (160, 120)
    assert 1.9 < seen["duration"] < 3 if killed else seen["duration"] == pytest.approx(3, abs=0.05)
    # The browser shows the frame at 1.5 s, each of which has its own grey.
    assert abs(seen["red"] - int(frames[37].frame.image_rgb[0, 0, 0])) < 15


# -- drawing ---------------------------------------------------------------------------------------


class Spy:
    """Notes the tags of each frame that is drawn, and which of its places each got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: list[dict[int, int]] = []
        self.tags: list[dict[int, Tag]] = []
        monkeypatch.setattr(video_module, "place_tags", self._place)

    def _place(
        self, canvas: np.ndarray, layout: Layout, tags: list[Tag], px: int, *, last: LastPlaces
    ) -> int:
        placed = place_tags(canvas, layout, tags, px, last=last)
        self.places.append(dict(last.of_track))
        self.tags.append({tag.track_id: tag for tag in tags})
        return placed


def test_a_label_keeps_its_colour_though_others_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy, painter = Spy(monkeypatch), TrackPainter()
    labels = [f"label {number}" for number in range(12)]  # more than there are colours
    for index in range(24):
        there = {1: ("nut", (100, 90)), 2: (labels[index // 2], (30, 90))}
        painter.draw(tracked(index, there, size_hw=(240, 320), side=24))
    assert len({tags[1].color for tags in spy.tags}) == 1
    assert len({tags[2].color for tags in spy.tags}) == 12


def test_a_tag_keeps_its_place_where_another_is_hardly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy, painter = Spy(monkeypatch), TrackPainter()
    for index in range(30):
        # The leaf reaches a row or two into the place above the nut, and out of it again.
        there = {1: ("nut", (100, 120)), 2: ("leaf", (100, 81 + index % 3))}
        painter.draw(tracked(index, there, size_hw=(240, 320), side=24))
    assert len({places[1] for places in spy.places}) == 1


def test_a_tag_trembles_less_than_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    spy, painter = Spy(monkeypatch), TrackPainter()
    for index in range(30):
        there = {1: ("nut", (100 + 2 * (index % 2), 120))}
        painter.draw(tracked(index, there, size_hw=(240, 320), side=24))
    lefts = [tags[1].box_xyxy[0] for tags in spy.tags[5:]]
    assert max(lefts) - min(lefts) <= 1
    painter.draw(tracked(30, {1: ("nut", (200, 40))}, size_hw=(240, 320), side=24))
    assert spy.tags[-1][1].box_xyxy == (200, 40, 224, 64), "it follows a jump at once"


def test_the_tag_says_the_tracks_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from sam_detect.io import tags as _tags

    texts = []
    write = _tags.text_alpha

    def spied(text: str, size_px: int) -> np.ndarray:
        texts.append(text)
        return write(text, size_px)

    monkeypatch.setattr(_tags, "text_alpha", spied)
    objects = {7: ("nut", (100, 90)), 8: (None, (200, 90)), 0: ("fig", (100, 200))}
    TrackPainter().draw(tracked(0, objects, size_hw=(480, 640), side=40))
    assert {"#7 nut 75%", "#8", "fig 75%"} <= set(texts)


def test_the_frame_itself_stays_as_it_is() -> None:
    frame = tracked()
    before = frame.frame.image_rgb.copy()
    drawn = TrackPainter().draw(frame)
    assert (frame.frame.image_rgb == before).all()
    assert (drawn != before).any()


# -- text ------------------------------------------------------------------------------------------


def test_motmetrics_reads_the_boxes(tmp_path: Path) -> None:
    sink = MOTSink(tmp_path / "x.txt")
    sink.write(tracked(0, {1: ("nut", (4, 10)), 2: (None, (30, 20))}))
    sink.write(tracked(4, {2: ("two\nlines", (31, 20))}))
    assert sink.close() == [tmp_path / "x.txt", tmp_path / "x.labels.txt"]
    assert (tmp_path / "x.labels.txt").read_text("utf-8") == "nut\ntwo lines\n"
    table = motmetrics.io.loadtxt(tmp_path / "x.txt", fmt="mot15-2D")
    assert table.index.tolist() == [(1, 1), (1, 2), (5, 2)]
    # The reader takes the 1 off that MOTChallenge counts pixels from.
    assert table[["X", "Y", "Width", "Height"]].to_numpy().tolist() == [
        [4, 10, 12, 12], [30, 20, 12, 12], [31, 20, 12, 12],
    ]  # fmt: skip
    assert table["ClassId"].tolist() == [1, -1, 2]
    assert table["Confidence"].tolist() == [0.75] * 3


# -- snapshots -------------------------------------------------------------------------------------


def test_a_snapshot_is_of_the_first_whole_view_with_its_surroundings(tmp_path: Path) -> None:
    sink = SnapshotSink(tmp_path)
    frames = [tracked(i, {3: ("nut", (3 * i, 40))}, size_hw=(200, 300)) for i in range(6)]
    for each in frames:
        sink.write(each)
    sink.close()
    picture = np.array(Image.open(tmp_path / "nut-3-1.png"))
    data = json.loads((tmp_path / "annotations.json").read_text())
    (annotation,), (image,) = data["annotations"], data["images"]
    assert (image["frame"], image["time_s"], image["video"]) == (1, 0.04, "clip.mp4")
    assert picture.shape[:2] == (image["height"], image["width"])
    h = annotation["bbox"][3]
    assert annotation["bbox"][2:] == [12, 12]
    mask = rle_to_mask(annotation["segmentation"])
    assert (picture[mask] == (200, 120, 30)).all()
    assert (picture[~mask] == frames[1].frame.image_rgb[0, 100]).all()
    assert picture.shape[0] > 2.3 * h, "as much around it as an example's crop needs"
    outlined = np.array(Image.open(tmp_path / "outlined" / "nut-3-1.jpg"))
    assert np.abs(outlined.astype(int) - picture).max() > 100


def test_an_object_that_never_lies_wholly_in_the_picture_is_kept_all_the_same(
    tmp_path: Path,
) -> None:
    sink = SnapshotSink(tmp_path)
    for index in range(40):
        sink.write(tracked(index, {3: ("nut", (0, 10))} if index < 4 else {}))
    assert (tmp_path / "nut-3-0.png").exists(), "before the end, too"


def test_an_object_is_called_as_when_it_was_settled(tmp_path: Path) -> None:
    sink = SnapshotSink(tmp_path)
    for index, label in enumerate((None, None, "nut", "leaf")):
        sink.write(tracked(index, {1: (label, (10, 10)), 2: (label, (40, 20))}))
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["nut-1-0.png", "nut-2-0.png"]


def test_a_second_session_adds_to_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        sink = SnapshotSink(tmp_path)
        sink.write(tracked())
        sink.close()
    data = json.loads((tmp_path / "annotations.json").read_text())
    assert [each["file_name"] for each in data["images"]] == ["nut-1-0.png", "nut-1-0-2.png"]
    assert [each["id"] for each in data["annotations"]] == [1, 2]
    assert data["categories"] == [{"id": 1, "name": "nut"}]


def test_a_name_with_a_slash_makes_no_folder(tmp_path: Path) -> None:
    sink = SnapshotSink(tmp_path)
    sink.write(tracked(0, {1: ("../a/b", (10, 10))}))
    sink.close()
    assert [path.name for path in tmp_path.glob("*.png")] == ["_a_b-1-0.png"]
    assert json.loads((tmp_path / "annotations.json").read_text())["categories"][0]["name"] == (
        "../a/b"
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"images": 1}', '{"images": [{"id": "a"}]}'])
def test_a_file_of_another_kind_is_left_alone(text: str, tmp_path: Path) -> None:

    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(OutputError, match="another folder"):
        SnapshotSink(tmp_path)
    assert (tmp_path / "annotations.json").read_text() == text


def test_there_is_an_end_to_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_detect.io.snapshots.MAX_SNAPSHOTS", 3)
    assert MAX_SNAPSHOTS >= 100
    sink = SnapshotSink(tmp_path)
    for index in range(8):
        sink.write(tracked(index, {index + 1: ("nut", (10, 10))}))
    sink.close()
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_what_is_learnt_from_a_snapshot_is_what_the_frame_would_have_taught(
    tmp_path: Path,
) -> None:
    frame = tracked(0, {1: ("nut", (120, 80))}, size_hw=(240, 320), side=60)
    ground = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    empty = ~frame.detections[0].mask
    frame.frame.image_rgb[empty] = ground[empty]
    sink = SnapshotSink(tmp_path)
    sink.write(frame)
    sink.close()
    detector = SAMDetect(segmenter="naive", embedder="appearance", library="snapshots")
    ((image,), problems) = read_coco(tmp_path / "annotations.json", [str(tmp_path / "nut-1-0.png")])
    assert not problems
    (outline,) = image.outlines
    assert outline.label == "nut"
    cut = detector.read(image.path)
    from sam_detect.types import Masks

    mask = outline.mask(cut.size_hw)
    assert mask is not None
    (from_cut,) = detector.pipeline.features.embed_masks(cut, Masks.from_dense(mask))
    (from_frame,) = detector.pipeline.features.embed_masks(frame.frame, frame.detections.masks)
    assert float(from_cut @ from_frame) > 0.9999
    assert min(cut.size_hw) > (60 * 60 / detector.recipe.occupancy) ** 0.5, "all that a crop shows"


def test_a_pipe_gets_no_labels_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = MOTSink(pipe)
    sink.write(tracked(0))
    sink.close()
    assert os.read(reader, 1000).startswith(b"1,1,")
    os.close(reader)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    sink = AnnotatedVideoSink(tmp_path / "a.mp4")
    assert sink.close() == []
    assert not (tmp_path / "a.mp4").exists()
