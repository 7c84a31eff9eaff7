"""What users get when things go wrong: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_harness import (
    DISCS,
    Command,
    as_a_process,
    box_around,
    drawn,
    in_this_process,
    saved,
)
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.errors import ImageError

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def good(folder: Path) -> Path:
    return saved(folder / "good.png").relative_to(folder)


@pytest.fixture
def home() -> Path:
    return Path(os.environ["SAM_DETECT_HOME"])


# Pictures that are none


def bomb(path: Path, side: int = 50_000) -> Path:
    """A few hundred bytes that say they are a picture of 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def truncated(path: Path) -> Path:
    saved(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def text_file(path: Path) -> Path:
    path.write_text("this is no picture\n")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


def nothing(path: Path) -> Path:
    return path


def dangling(path: Path) -> Path:
    path.symlink_to("nowhere.png")
    return path


BAD = [bomb, truncated, text_file, empty, a_folder, nothing, dangling]


@pytest.mark.parametrize("make", BAD)
@pytest.mark.parametrize("command", ["detect", "learn"])
def test_a_bad_picture(
    sam: Command, folder: Path, make: Callable[[Path], Path], command: str
) -> None:
    make(folder / "bad.png")
    more = ["--label", "x", "--masks", "auto"] if command == "learn" else ["--json"]
    ran = sam(command, "bad.png", *more)
    ran.failed("bad.png", code=1)
    assert ran.out == ""


def test_a_bomb_is_refused_at_once_by_a_real_process(folder: Path) -> None:
    bomb(folder / "bomb.png")
    ran = as_a_process("bomb.png", timeout=20)
    ran.failed("bomb.png", "50000x50000", code=1)


def test_a_traceback_is_for_who_asks(sam: Command, folder: Path) -> None:
    empty(folder / "bad.png")
    assert "Traceback" not in sam("bad.png").err
    assert "Traceback" in as_a_process("bad.png", "--debug").err
    assert "Traceback" in sam("--debug", "good.png", "--top-k", "0").err


# Pictures that are unusual


def unusual(name: str, folder: Path) -> Path:
    image = Image.fromarray(drawn())
    path = folder / f"{name}.png"
    if name == "wrong-ending":
        image.save(path, "JPEG")
    elif name == "16-bit":
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path)
    elif name == "cmyk":
        path = folder / "cmyk.jpg"
        image.convert("CMYK").save(path)
    elif name == "palette":
        image.quantize(256).save(path)
    elif name == "alpha":
        image.putalpha(200)
        image.save(path)
    elif name == "grey":
        image.convert("L").save(path)
    return path


@pytest.mark.parametrize("name", ["wrong-ending", "16-bit", "cmyk", "palette", "alpha", "grey"])
def test_an_unusual_picture_is_read_like_any_other(sam: Command, folder: Path, name: str) -> None:
    ran = sam(unusual(name, folder), "--json").worked()
    [found] = ran.json
    assert (found["width"], found["height"]) == (280, 200)
    areas = [each["area"] for each in found["detections"]]
    assert sum(1150 < area < 1400 for area in areas) >= 5, "the discs have some 1257 pixels"
    assert len(ran.err.splitlines()) == 1


def test_an_exif_rotated_picture_is_upright(sam: Command, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(folder / "turned.jpg", exif=exif, quality=95)
    [found] = sam("turned.jpg", "--json").worked().json
    assert (found["width"], found["height"]) == (200, 280)
    assert found["detections"][0]["segmentation"]["size"] == [280, 200]
    sam("learn", "turned.jpg", "--label", "x", "--box", "190,270,20,20", "--accept-guess").worked()
    sam("learn", "turned.jpg", "--label", "x", "--box", "210,100,20,20").failed("200x280", code=1)


def test_one_pixel(sam: Command, folder: Path) -> None:
    saved(folder / "one.png", np.zeros((1, 1, 3), np.uint8))
    assert sam("one.png", "--json").worked().json[0]["detections"] == []
    sam("learn", "one.png", "--label", "dot", "--box", "0,0,1,1", "--accept-guess").worked()
    sam("one.png", "--output", "one-out.png").worked()


def test_arrays(folder: Path) -> None:
    rgb = drawn()
    detector = SAMDetect(store="memory")
    expected = [each.bbox for each in detector.detect(np.ascontiguousarray(rgb[..., ::-1]))]
    in_rgb = SAMDetect(store="memory", color_order="rgb")
    assert [each.bbox for each in in_rgb.detect(rgb)] == expected
    assert [each.bbox for each in in_rgb.detect(rgb.astype(np.float32) / 255)] == expected
    assert len(detector.detect(rgb.astype(np.uint16) * 257)) > 0
    for bad in (
        np.zeros((0, 3, 3)),
        np.full((9, 9), np.nan),
        np.zeros((2, 3, 4, 5)),
        "gone.png",
        7,
    ):
        with pytest.raises(ImageError) as caught:
            detector.detect(bad)  # type: ignore[call-overload]
        assert "\n" not in str(caught.value)


# Files and folders


def test_a_folder_without_pictures(sam: Command, folder: Path) -> None:
    (folder / "texts").mkdir()
    text_file(folder / "texts" / "a.txt")
    sam("texts").failed("texts", "no picture", code=1)
    sam("*.tiff").failed("*.tiff", code=1)


def test_good_ones_are_done_and_bad_ones_named(sam: Command, good: Path, folder: Path) -> None:
    for number, make in enumerate([empty, truncated, text_file]):
        make(folder / f"bad{number}.png")
    ran = sam(".", "gone.png", "--json", "--output", "out.csv")
    assert ran.code == 1
    assert [each["image"] for each in ran.json] == ["./good.png"]
    for name, line in zip(["gone", "bad0", "bad1", "bad2"], ran.errors, strict=True):
        assert f"{name}.png" in line
    assert "4 of 5 failed" in ran.err
    assert "good.png" in Path("out.csv").read_text()
    ran = sam("learn", ".", "--label", "x", "--masks", "auto", "--json")
    assert ran.code == 1
    assert len(ran.json) == 1
    assert "3 of 4 failed" in ran.err


def test_an_output_that_cannot_be_written(sam: Command, good: Path, folder: Path) -> None:
    text_file(folder / "file")
    for output in ("file/a.json", "/proc/nowhere/a.json"):
        sam(good, "--output", output).failed(output, "--output", code=1)
    (folder / "dir.json").mkdir()
    sam(good, "--output", "dir.json", "--format", "json").failed("dir.json", "folder", code=1)
    if not AS_ROOT:
        (folder / "closed").mkdir(mode=0o500)
        sam(good, "--output", "closed/a.json").failed("closed", code=1)


def test_an_output_never_replaces_an_input(sam: Command, good: Path, folder: Path) -> None:
    before = good.read_bytes()
    (folder / "link.png").symlink_to("good.png")
    for output in ("good.png", "./good.png", "link.png"):
        sam(good, "--output", output).failed("being read", code=1)
    saved(folder / "two" / "good.png")
    sam(good, "two/good.png", "--output", "two").failed("being read", code=1)
    assert good.read_bytes() == before


def test_a_full_disk(sam: Command, good: Path) -> None:
    ran = as_a_process(shell=f"$SAM {good} --json > /dev/full")
    ran.failed("No space left", code=1)
    ran = as_a_process(shell=f"$SAM {good} > /dev/full")
    ran.failed("No space left", code=1)
    ran = sam(good, "--output", "/dev/full", "--format", "csv")
    ran.failed("No space left", code=1)
    # No file may grow beyond 20 kB: what a disk that fills up while we write looks like.
    Path("out.png").write_bytes(b"the old one")
    ran = as_a_process(shell=f"ulimit -f 20; $SAM {good} --store memory --output out.png")
    ran.failed("out.png", code=1)
    assert Path("out.png").read_bytes() == b"the old one"
    assert sorted(path.name for path in Path().iterdir()) == ["good.png", "out.png"]


def test_a_reader_who_leaves(good: Path, folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        saved(folder / name)
    for options in ("--json", ""):
        ran = as_a_process(shell=f"$SAM *.png {options} | head -n 1; exit ${{PIPESTATUS[0]}}")
        assert len(ran.out.splitlines()) == 1
        assert ran.code in (0, 1)
        assert "Traceback" not in ran.err
        assert "Exception ignored" not in ran.err
        assert not ran.errors
    ran = as_a_process(shell=f"$SAM {good} --json >&-")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "name", ["a b.png", "pïcture-日本.png", "-dash.png", "two\nlines.png", "-"]
)
def test_file_names_of_all_kinds(sam: Command, folder: Path, name: str) -> None:
    saved(folder / name, format="PNG")
    given = f"./{name}" if name == "-" else name
    ran = sam("--json", "--", given).worked()
    assert [each["image"] for each in ran.json] == [given]
    ran = sam("--", given).worked()
    assert ran.err == ""
    assert len(ran.out.splitlines()) == 3  # the summary and the hint
    assert "\x1b" not in ran.out + ran.err
    empty(folder / name)
    ran = sam("--", given)
    assert ran.code == 1
    assert len(ran.errors) == len(ran.err.splitlines()) == 1


# Standard input


def test_a_picture_on_standard_input(good: Path) -> None:
    ran = as_a_process("-", "--json", stdin=good.read_bytes()).worked()
    assert ran.json[0]["image"] == "-"
    assert len(ran.json[0]["detections"]) >= 5


def test_garbage_on_standard_input(
    sam: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_a_process("-", "--json", stdin=b"garbage").failed("-", code=1)
    as_a_process(shell="$SAM - --json <&-").failed("standard input", code=1)
    for content, word in ((b"", "empty"), (good.read_bytes()[:2000], "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        sam("-", "--json").failed(word, code=1)


# Options

ANY = ["good.png"]
LEARN = ["learn", "good.png", "--label", "x"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--segmenter", "nave"], ["nave", "did you mean 'naive'"]),
        (["--fade", "gausian"], ["gausian", "did you mean 'gaussian'"]),
        (["--embedder", "apperance"], ["apperance", "did you mean 'appearance'"]),
        (["--labeller", "kn"], ["'kn'", "did you mean 'knn'"]),
        (["--store", "qdrnt"], ["qdrnt", "did you mean 'qdrant'"]),
        (["--format", "overly"], ["overly", "did you mean 'overlay'"]),
        (["--segmentr", "naive"], ["--segmentr", "--segmenter"]),
        (["--device", "gpu"], ["gpu", "cuda"]),
        (["--fade", "no.such:Fade"], ["no.such:Fade"]),
        (["--fade", "pathlib:Path"], ["apply"]),
        (["--fade", "linear", "--sigma", "3"], ["linear", "sigma"]),
        (["--sigma", "nan"], ["sigma", "nan"]),
        (["--sigma", "0"], ["sigma", "0.01"]),
        (["--sigma", "inf"], ["sigma"]),
        (["--sigma", "wide"], ["--sigma", "wide"]),
        (["--min-fade", "1.5"], ["min_fade", "1.5"]),
        (["--min-fade", "nan"], ["min_fade"]),
        (["--max-distance", "-1"], ["max_distance"]),
        (["--max-distance", "nan"], ["max_distance"]),
        (["--decay", "nan"], ["decay"]),
        (["--decay", "-0.1"], ["decay"]),
        (["--occupancy", "0.9"], ["occupancy", "0.8"]),
        (["--occupancy", "nan"], ["occupancy"]),
        (["--crop-side", "3"], ["crop_side"]),
        (["--min-area", "-1"], ["min_area"]),
        (["--max-area", "-1"], ["max_area"]),
        (["--max-area", "1.5"], ["--max-area", "1.5"]),
        (["--max-proposals", "0"], ["max_proposals"]),
        (["--top-k", "0"], ["top_k"]),
        (["--top-k", "many"], ["--top-k", "many"]),
        (["--threshold", "nan"], ["threshold", "nan"]),
        (["--threshold", "1.1"], ["threshold", "1.1"]),
        (["--threshold", "some"], ["threshold", "some"]),
        (["--lock-timeout-s", "-1"], ["lock_timeout_s"]),
        (["--lock-timeout-s", "nan"], ["lock_timeout_s"]),
        (["--max-image-pixels", "0"], ["max_image_pixels"]),
        (["--library", ""], ["library"]),
        (["--library", "../../escape"], ["escape"]),
        (["--qdrant-url", "ftp://x"], ["ftp://x", "http://"]),
        (["--label", "  "], ["--label"]),
        (["--top-k"], ["--top-k"]),
    ],
)
def test_a_wrong_option(sam: Command, good: Path, options: list[str], words: list[str]) -> None:
    ran = sam(*ANY, *options)
    ran.failed(*words, code=2)
    assert ran.out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--box", "--point", "--masks"]),
        (["--box", "1,2,3"], ["--box", "x,y,w,h", "1,2,3"]),
        (["--box", "a,b,c,d"], ["--box", "a,b,c,d"]),
        (["--box", "1,2,nan,4"], ["--box", "nan"]),
        (["--box", "1,2,0,4"], ["--box", "above 0"]),
        (["--point", "5"], ["--point", "x,y"]),
        (["--point", "inf,3"], ["--point", "inf"]),
        (["--box", "1,2,3,4", "--annotations", "a.json"], ["--annotations"]),
        (["--masks", "auto", "--tag", "x"], ["--tag", "--annotations"]),
        (["--masks", "auto", "--label", ""], ["--label"]),
        (["--masks", "auto", "--qdrant-batch-size", "0"], ["qdrant_batch_size"]),
    ],
)
def test_a_wrong_option_of_learn(
    sam: Command, good: Path, options: list[str], words: list[str]
) -> None:
    sam(*LEARN, *options).failed(*words, code=2)
    sam("library", "stats").failed("no library", code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--box", "500,500,10,10"], ["outside", "280x200"]),
        (["--point", "500,2"], ["outside"]),
        (["--masks", "gone.png"], ["gone.png"]),
        (["--masks", "small.png"], ["small.png", "10x10", "280x200"]),
        (["--masks", "blank.png"], ["blank.png"]),
    ],
)
def test_objects_that_are_not_there(
    sam: Command, good: Path, folder: Path, options: list[str], words: list[str]
) -> None:
    saved(folder / "small.png", np.ones((10, 10), np.uint8))
    saved(folder / "blank.png", np.zeros((200, 280), np.uint8))
    words = [
        "no pixel inside" if "--box" in options and each == "outside" else each for each in words
    ]
    ran = sam(*LEARN, *options, "--json")
    ran.failed(*words, code=1)
    assert ran.out == ""
    sam("library", "stats").failed("no library", code=2)


def test_a_point_on_nothing(sam: Command, folder: Path) -> None:
    saved(folder / "plain.png", np.full((60, 60, 3), 128, np.uint8))
    ran = sam("learn", "plain.png", "--label", "x", "--point", "30,30")
    ran.failed("no object", "30,30", "--box", code=1)
    ran = sam("learn", "plain.png", "--label", "x", "--masks", "auto", "--json").worked()
    assert "nothing was found in plain.png" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["a.json"]),
        ("", ["a.json"]),
        ("{", ["a.json"]),
        ("[]", ["COCO"]),
        ('{"images": [], "annotations": [], "categories": []}', ["no annotation that can be used"]),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            ["no annotation that can be used", "file_name"],
        ),
    ],
)
def test_a_bad_annotation_file(
    sam: Command, good: Path, text: str | None, words: list[str]
) -> None:
    if text is not None:
        Path("a.json").write_text(text)
    sam("learn", good, "--annotations", "a.json").failed(*words, code=1)


def test_bad_outlines_are_named_and_the_others_learnt(sam: Command, good: Path) -> None:
    def row(number: int, **more: object) -> dict[str, object]:
        return {"id": number, "image_id": 1, "category_id": 1, **more}

    data = {
        "images": [{"id": 1, "file_name": "good.png"}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            row(1, bbox=[20, 20, 40, 40]),
            row(2, bbox=[900, 20, 40, 40]),
            row(3, bbox=[1, 2, 3]),
            row(4, segmentation={"size": [200, 280], "counts": "zz"}),
            row(5, category_id=9, bbox=[20, 20, 40, 40]),
        ],
    }
    Path("a.json").write_text(json.dumps(data))
    ran = sam("learn", good, "--annotations", "a.json", "--json", "--accept-guess")
    assert ran.code == 1
    assert ran.json == [{"added": 1, "total": 1}]
    assert len(ran.errors) == 4
    sam("learn", good, "--annotations", "a.json", "--tag", "fig").failed("fig", "disc", code=1)


# Settings and places


def test_a_wrong_variable(sam: Command, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_TOP_K", "many")
    sam(good).failed("top_k", "many", "environment", code=2)
    sam(good, "--top-k", "3").worked()


@pytest.mark.parametrize("text", ["top_k = ", "top_k = 'x'", "no_such = 1", "\x00\xff"])
def test_a_broken_settings_file(sam: Command, good: Path, home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="latin-1")
    sam(good).failed("config.toml", code=2)


def test_a_server_that_does_not_answer(
    sam: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = as_a_process(good, "--store", "qdrant", "--qdrant-url", "http://localhost:9", "--json")
    ran.failed("localhost:9", "start it", code=1)
    assert ran.out == ""
    monkeypatch.setenv("QDRANT_URL", "http://localhost:9")
    sam(good).failed("localhost:9", code=1)
    sam(good, "--store", "memory").worked()


def test_a_home_that_cannot_be_written(
    sam: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside_a_file = str(text_file(Path("file")).resolve() / "home")
    monkeypatch.setenv("SAM_DETECT_HOME", inside_a_file)
    sam(*LEARN, "--box", box_around(*DISCS[0])).failed(
        str(Path(inside_a_file).parent), "must be a directory", "SAM_DETECT_HOME", code=1
    )
    if not Path("/sys/kernel").is_dir():
        pytest.skip("no folder here that not even root may write")
    monkeypatch.setenv("SAM_DETECT_HOME", "/sys/sam-detect")
    ran = sam(*LEARN, "--box", box_around(*DISCS[0]))
    ran.failed("/sys/sam-detect", "cannot be written", code=1)
    assert "learnt" not in ran.err
    sam(good, "--store", "memory", "--json").worked()
    sam(good, "--json").worked()  # an empty library needs no place


def test_a_library_is_read_where_nothing_may_be_written(
    sam: Command, good: Path, home: Path
) -> None:
    if AS_ROOT:
        pytest.skip("root may write everywhere")
    sam(*LEARN, "--box", box_around(*DISCS[0])).worked()
    for path in [home, *home.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        sam(good, "--json").worked()
    finally:
        for path in [home, *home.rglob("*")]:
            path.chmod(0o700)


def test_without_home(good: Path, folder: Path) -> None:
    away: dict[str, str | None] = {"HOME": None, "SAM_DETECT_HOME": None}
    ran = as_a_process(good, "--json", env={**away, "XDG_DATA_HOME": str(folder / "data")})
    ran.worked()
    assert str(folder / "data") in ran.err


# Ctrl-C


def interrupted(*arguments: str, after: int) -> tuple[int, float, list[str], str]:
    """Sends SIGINT once so many lines came on stdout; exit code, seconds to the end, outputs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sam_detect", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - started, [*lines, *out.splitlines()], err


@pytest.mark.alone
def test_control_c_keeps_what_was_done(folder: Path, sam: Command) -> None:
    for number in range(40):
        image = drawn(seed=number, size_hw=(400, 560))
        saved(folder / "many" / f"{number}.png", image, compress_level=1)
    code, seconds, lines, err = interrupted(
        "many", "--json", "--output", "found.csv", "--store", "memory", after=2
    )
    assert (code, "Traceback" in err) == (130, False), err
    assert err.splitlines()[-1] == "error: stopped"
    assert "" not in err.splitlines()
    assert seconds < 2
    assert 2 <= len(lines) < 40
    found = {json.loads(line)["image"] for line in lines}
    assert found == {row.split(",")[0] for row in Path("found.csv").read_text().splitlines()[1:]}
    assert not list(folder.glob(".sam-detect*"))


@pytest.mark.alone
def test_control_c_while_learning(folder: Path, sam: Command) -> None:
    for number in range(40):
        saved(folder / "many" / f"{number}.png", drawn(seed=number))
    code, seconds, lines, err = interrupted(
        "learn", "many", "--label", "x", "--masks", "auto", "--json", after=2
    )
    assert (code, "Traceback" in err) == (130, False), err
    assert seconds < 2
    acknowledged = json.loads(lines[-1])["total"]
    [stats] = sam("library", "stats", "--json").worked().json
    assert stats["examples"] >= acknowledged
