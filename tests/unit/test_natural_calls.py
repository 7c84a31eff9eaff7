"""What users of other libraries try first: any picture, any rows of numbers, ``with``, ``pickle``,
``fork``; and what a record prints."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import natural_calls
import numpy as np
import pytest
from library_helpers import SIDE, disc_masks, discs
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError, ImageError
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.vector_store import MemoryVectorStore


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "nuts.png"
    cv2.imwrite(str(path), discs())
    return path


def boxes() -> list[tuple[int, int, int, int]]:
    rows = [np.argwhere(mask) for mask in disc_masks()[:2]]
    return [(int(r[:, 1].min()) - 1, int(r[:, 0].min()) - 1, int(np.ptp(r[:, 1])) + 3,
             int(np.ptp(r[:, 0])) + 3) for r in rows]  # fmt: skip


def taught(**settings: object) -> SAMDetect:
    usual = {"segmenter": "naive", "embedder": "average", "vector_store": "memory"}
    detector = SAMDetect(**{**usual, **settings})  # type: ignore[arg-type]
    detector.learn(discs(), "nut", boxes_xywh=boxes())
    return detector


# The program that mypy checks


def test_the_calls_work_as_they_are_typed(picture: Path) -> None:
    detector, *_ = natural_calls.makes_of_detectors()
    assert natural_calls.learnt_from(detector, picture, boxes()) >= 2
    alike = natural_calls.pictures_of_any_type(detector, picture)
    assert len({str(each.boxes_xyxy.tolist()) for each in alike}) == 1
    assert len(natural_calls.several_at_once(detector, picture)) == 13
    assert natural_calls.results_of(detector, picture)


def test_pyright_agrees(tmp_path: Path) -> None:
    """... and it sees what is wrong."""
    program = Path(natural_calls.__file__)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(program.read_text() + "\nSAMDetect().detect(7)\n")
    for given, code in ((program, 0), (wrong, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "basedpyright", "--level", "error",
             "--pythonpath", sys.executable, given],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
        assert done.returncode == code, done.stdout


# Bytes and files


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_the_content_of_a_file_is_the_picture(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    Image.fromarray(discs()[..., ::-1]).save(path)
    detector, data = SAMDetect("naive", "average", vector_store="memory"), path.read_bytes()
    wanted = detector.read(path).image_rgb
    for given in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert (detector.read(given).image_rgb == wanted).all()  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert detector.read(file).source_id == str(path)
        assert (detector.read(file).image_rgb == wanted).all(), "read from its beginning again"


def test_what_is_no_picture_says_so() -> None:
    detector = SAMDetect("naive", "average", vector_store="memory")
    for given, said in ((b"no picture", "bytes"), (b"", "bytes"), (io.StringIO("x"), "'rb'"),
                        (7, "bytes, an open file"), (object(), "object")):  # fmt: skip
        with pytest.raises(ImageError, match=said):
            detector.detect(given)  # type: ignore[call-overload]


def test_the_outline_of_a_cut_out_object_is_taken_from_bytes_too(tmp_path: Path) -> None:
    detector = taught()
    crop = detector.get_crop(discs(), disc_masks()[0])
    crop.save(tmp_path / "crop.png")
    data = (tmp_path / "crop.png").read_bytes()
    by_path, by_bytes, by_file = (
        SAMDetect("naive", "average", vector_store="memory") for _ in "abc"
    )
    by_path.add_example(tmp_path / "crop.png", "nut")
    by_bytes.add_example(data, "nut")
    by_file.add_example(io.BytesIO(data), "nut")
    areas = {d.snapshot().examples().areas[0] for d in (by_path, by_bytes, by_file)}
    assert len(areas) == 1


# Other processes


def test_a_detector_is_pickled_with_its_library_in_memory() -> None:
    detector = taught(threshold=0.7)
    again = pickle.loads(pickle.dumps(detector))
    assert (len(again.library), again.recipe) == (len(detector.library), detector.recipe)
    assert again.settings.option("threshold") == 0.7
    found, before = again.detect(discs()), detector.detect(discs())
    assert found.label.tolist() == before.label.tolist()
    again.learn(discs("leaf"), "leaf", boxes_xywh=boxes())
    assert len(again.library) > len(detector.library), "it is another one"


def test_a_pickled_detector_opens_the_same_library_on_disk() -> None:
    detector = taught(vector_store=None, library="Nüsse 1")
    again = pickle.loads(pickle.dumps(detector))
    again.learn(discs("leaf"), "leaf", boxes_xywh=boxes())
    assert len(again.library) == len(detector.library) > 2
    assert pickle.loads(pickle.dumps(taught(segmenter=NaiveSegmenter()))).detect(discs())


def test_a_copy_in_memory_is_not_made_by_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = taught()
    monkeypatch.setattr(SAMDetect, "__getstate__", None)
    assert len(detector.in_memory().library) == len(detector.library)


def test_a_store_of_ones_own_cannot_be_sent() -> None:
    assert pickle.loads(pickle.dumps(taught(vector_store=MemoryVectorStore()))).detect(discs())
    server = taught()
    server._given = {"store": object()}
    server.pipeline.library.store = object()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="a vector store given as an object"):
        pickle.dumps(server)


FORKED = """
import os, sys
import cv2
from sam_detect import SAMDetect

picture, used, reading = sys.argv[1], sys.argv[2] == "used", sys.argv[3:]
detector = SAMDetect("naive", "average")
x = (40, 40, 30, 30)
detector.learn(picture, "nut", masks="auto")
if used:
    detector.detect(picture)
children = []
for number in range(2):
    child = os.fork()
    if not child:
        found = detector.detect(picture)
        assert len(found.known), found
        added = detector.learn(cv2.flip(cv2.imread(picture), number), f"n{number}", masks="auto")
        os._exit(0 if added.added else 3)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children] == [0, 0]
labels = {*detector.snapshot().examples().labels}
assert labels == {"nut", "n0", "n1"}, labels
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("used", ["used", "fresh"])
def test_a_detector_works_in_forked_processes(tmp_path: Path, used: str) -> None:
    picture = tmp_path / "x.png"
    noise = np.random.default_rng(1).integers(225, 245, (SIDE, SIDE, 3), dtype=np.uint8)
    for x, y, colour in (
        (40, 50, (60, 120, 200)),
        (110, 60, (60, 125, 190)),
        (70, 120, (60, 120, 205)),
    ):
        cv2.circle(noise, (x, y), 13, colour, -1)
    cv2.imwrite(str(picture), noise)
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(picture), used], capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# What is printed


def test_records_print_a_line() -> None:
    detector = taught()
    frame = detector.read(discs())
    candidates = detector.propose(frame)
    learnt = detector.learn(discs("leaf"), "leaf", boxes_xywh=boxes())
    found = detector.detect(discs())
    records = [detector, frame, candidates, candidates.masks, learnt, found, found[0]]
    for record in records:
        assert "\n" not in repr(record), type(record)
        assert len(repr(record)) < 500, type(record)
    assert f"uint8 {frame.image_rgb.shape}" in repr(frame)
    assert repr(detector) == "SAMDetect('naive', 'average', 'gaussian', library='default')"


def test_a_detector_may_stand_in_a_with_block() -> None:
    with SAMDetect("naive", "average", vector_store="memory") as detector:
        assert len(detector.detect(discs()))
    with pytest.raises(ZeroDivisionError), SAMDetect("naive", "average", vector_store="memory"):
        _ = 1 / 0
