"""Where videos come from: files of every kind, folders, cameras, servers; and what is wrong there.

Files are made by PyAV, servers and sockets are real; only the camera's device is a stand-in.
"""

from __future__ import annotations

import errno
import io
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import cv2
import httpx
import numpy as np
import pytest
from live_server import Camera, deaf, jpeg_part, live, numbered_parts
from model_server import Served, running
from PIL import Image
from rtsp_server import rtsp
from video_files import (
    SIZE_HW,
    ImageRGB,
    number_of,
    numbers,
    picture,
    pictures,
    read_pictures,
    turn,
    write_sound,
    write_video,
)

from sam_detect.errors import ConfigError, ImageError
from sam_detect.interfaces import Source
from sam_detect.io import _reconnect
from sam_detect.io._http import HttpReader, is_url, without_secrets
from sam_detect.io._reconnect import Clock
from sam_detect.io._video_decoding import decode_file
from sam_detect.io.streams import files_of_own_host
from sam_detect.io.video import PacedSource, open_source
from sam_detect.types import Frame


def read(source: Source) -> list[Frame]:
    return list(source.frames())


def opened_and_read(argument: str) -> tuple[Source, list[Frame]]:
    source = open_source(argument)
    return source, read(source)


def read_until_wrong(source: Source) -> tuple[list[Frame], str]:
    """The frames up to an error, and the error."""
    frames = []
    with pytest.raises(ImageError) as caught:
        frames += _kept(source.frames(), frames)
    return frames, str(caught.value)


def _kept(given: Iterator[Frame], frames: list[Frame]) -> list[Frame]:
    for frame in given:
        frames.append(frame)
    return []


def shown_numbers(frames: list[Frame]) -> list[int]:
    return numbers(frame.image_rgb for frame in frames)


@pytest.fixture(autouse=True)
def _quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reconnect, "FIRST_PAUSE_S", 0.02)


# ---- files


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("h264.mp4", {}),
        ("sound.mp4", {"sound": True}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("ten_bits.mkv", {"pix_fmt": "yuv420p10le"}),
        ("grey.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("grey_16.mkv", {"codec": "ffv1", "pix_fmt": "gray16le"}),
        ("colour.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
    ],
)
def test_a_file_gives_each_picture_once_in_time(
    tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    source = open_source(write_video(tmp_path / name, 12, **how))
    frames = read(source)
    assert not source.live
    assert shown_numbers(frames) == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert {frame.source_id for frame in frames} == {str(tmp_path / name)}
    steps = np.diff([frame.time_s for frame in frames])
    np.testing.assert_allclose(steps, 0.04, atol=1e-3)
    assert frames[0].time_s == pytest.approx(0, abs=0.1)


def test_colours_are_rgb(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 1, codec="ffv1", pix_fmt="bgr0")
    np.testing.assert_array_equal(read(open_source(path))[0].image_rgb, picture(0))


def test_a_file_can_be_read_twice(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "a.mp4", 3))
    assert len(read(source)) == len(read(source)) == 3


def test_odd_sizes_keep_their_last_row_and_column(tmp_path: Path) -> None:
    size_hw = (91, 163)
    path = write_video(tmp_path / "odd.mkv", pictures(3, size_hw), pix_fmt="yuv444p")
    assert [frame.size_hw for frame in read(open_source(path))] == [size_hw] * 3


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_phone_gives_upright_pictures(tmp_path: Path, degrees: int) -> None:
    # The phone stored what it saw turned the other way round, and says how to turn it back.
    stored = [np.rot90(image, degrees // 90) for image in pictures(3, (160, 160))]
    path = turn(write_video(tmp_path / "phone.mp4", stored), degrees)
    assert shown_numbers(read(open_source(path))) == [0, 1, 2]


def test_sides_are_exchanged_by_a_quarter_turn(tmp_path: Path) -> None:
    path = turn(write_video(tmp_path / "phone.mp4", 2), 90)
    assert read(open_source(path))[0].size_hw == SIZE_HW[::-1]


def woven(number: int) -> ImageRGB:
    """An interlaced picture: its odd rows are of the moment after its even rows."""
    image = picture(2 * number).copy()
    image[1::2] = picture(2 * number + 1)[1::2]
    return image


def combs(image: ImageRGB) -> float:
    """How much a row differs from those above and below, where the disc is, in levels."""
    rows = image[60:76].astype(int)
    return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())


INTERLACED = {"flags": "+ildct+ilme", "b": "4000000"}


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", {**INTERLACED, "crf": "5", "x264-params": "interlaced=1:tff=1"}),
        ("ts", "mpeg2video", INTERLACED),
        ("mpg", "mpeg2video", INTERLACED),
    ],
)
def test_an_interlaced_video_gives_whole_pictures(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str]
) -> None:
    path = tmp_path / f"woven.{ending}"
    write_video(path, [woven(number) for number in range(12)], codec=codec, options=options)
    frames = read(open_source(path))
    assert [number_of(each.image_rgb) // 2 for each in frames] == list(range(12))
    assert np.allclose([each.time_s for each in frames], np.arange(12) / 25, atol=0.001)
    assert combs(woven(5)) > 10
    assert max(combs(each.image_rgb) for each in frames) < 3


def test_an_interlaced_video_may_be_turned_and_change_its_size(tmp_path: Path) -> None:
    options = {**INTERLACED, "x264-params": "interlaced=1:tff=1"}
    path = write_video(tmp_path / "woven.mp4", [woven(0)] * 3, options=options)
    assert {each.size_hw for each in read(open_source(turn(path, 90)))} == {SIZE_HW[::-1]}
    parts = [
        write_video(
            tmp_path / f"{side}.ts", [np.ascontiguousarray(woven(1)[:side])] * 4,
            codec="mpeg2video", options=INTERLACED,
        )
        for side in (120, 96)
    ]  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(each.read_bytes() for each in parts))
    sizes = [each.size_hw[0] for each in read(open_source(both))]
    assert sizes == [len(image) for image in read_pictures(both)]
    assert set(sizes) == {120, 96}


def test_transparency_shows_white(tmp_path: Path) -> None:
    image = np.dstack([picture(0), np.full(SIZE_HW, 255, np.uint8)])
    image[60:, :80] = (200, 0, 0, 0)
    image[60:, 80:] = (200, 0, 0, 128)
    path = write_video(tmp_path / "alpha.mov", [image], codec="qtrle", pix_fmt="argb")
    given = read(open_source(path))[0].image_rgb
    assert given[100, 20].tolist() == [255, 255, 255]
    assert given[100, 120].tolist() == [227, 127, 127]
    np.testing.assert_array_equal(given[:60], picture(0)[:60])


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.5, 0.51, 2.0]
    path = write_video(tmp_path / "a.mkv", 5, times_s=times_s)
    given = [frame.time_s for frame in read(open_source(path))]
    np.testing.assert_allclose(given, times_s, atol=0.001)


def test_a_size_that_changes_goes_on(tmp_path: Path) -> None:
    one = write_video(tmp_path / "1.ts", 10).read_bytes()
    other = write_video(tmp_path / "2.ts", pictures(10, (180, 240), first=10)).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + other)
    source = open_source(tmp_path / "both.ts")
    frames = read(source)
    assert source.damaged == 1  # the seam, which is no reason to complain
    assert shown_numbers(frames) == list(range(20))
    assert [frame.size_hw for frame in frames] == [SIZE_HW] * 10 + [(180, 240)] * 10
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(set(times_s))


def test_pictures_that_are_too_large_are_refused_before_decoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    with pytest.raises(ImageError, match=r"160x120 pixels, more than the limit of 1,000;"):
        open_source(path, max_pixels=1000)


def test_pictures_that_become_too_large_are_refused(tmp_path: Path) -> None:
    one = write_video(tmp_path / "1.ts", 250).read_bytes()
    other = write_video(tmp_path / "2.ts", pictures(6, (480, 640))).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + other)
    frames, error = read_until_wrong(open_source(tmp_path / "both.ts", max_pixels=100_000))
    assert shown_numbers(frames) == list(range(250))
    assert "640x480" in error


@pytest.mark.parametrize("threads", [1, 4])
def test_last_pictures_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """A decoder holds a frame back for each thread, and refuses these at the end only."""
    monkeypatch.setattr("sam_detect.io._video_decoding.os.cpu_count", lambda: threads)
    one = write_video(tmp_path / "1.ts", 20).read_bytes()
    for count in (1, 3):
        other = write_video(tmp_path / "2.ts", pictures(count, (480, 640))).read_bytes()
        (tmp_path / "both.ts").write_bytes(one + other)
        frames, error = read_until_wrong(open_source(tmp_path / "both.ts", max_pixels=100_000))
        assert shown_numbers(frames) == list(range(20))
        assert "640x480" in error


# ---- what is wrong with a file


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "fast.mp4"])
def test_a_truncated_file_gives_what_comes_before(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    container = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(tmp_path / name, 60, codec=codec, container=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, error = read_until_wrong(open_source(path))
    assert shown_numbers(frames) == list(range(len(frames)))
    assert 15 < len(frames) < 50
    assert f"the video '{path}' ends early, after " in error
    assert f"the {len(frames)} frames" in error


def test_sound_that_is_longer_is_no_early_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 10, sound=True, sound_s=2.0)
    assert len(read(open_source(path))) == 10


def test_what_decodes_behind_damage_is_given(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    source = open_source(path)
    frames, error = read_until_wrong(source)
    found = shown_numbers(frames)
    assert found[:20] == list(range(20))
    assert found[-15:] == list(range(45, 60))
    assert len(found) < 60
    assert f"the video '{path}' is damaged in {source.damaged} place" in error


def test_a_disk_that_fails_gives_what_was_read(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", 300).read_bytes()
    file = io.BytesIO(data)

    def failing(size: int) -> bytes:
        if file.tell() > len(data) // 2:
            raise OSError(errno.EIO, "Input/output error")
        return file.read(min(size, 10_000))

    disk = SimpleNamespace(read=failing, seek=file.seek, tell=file.tell)
    opened = decode_file(disk, name="a.mkv", max_pixels=10**6, live=False)
    found: list[int] = []

    def read_on() -> None:
        for image, _ in opened:
            found.append(number_of(image))

    with pytest.raises(ImageError, match=r"cannot be read beyond .* Input/output error"):
        read_on()
    opened.close()
    cut = io.BytesIO(data[: file.tell()])
    with closing(decode_file(cut, name="cut", max_pixels=10**6, live=False)) as same:
        assert found == [number_of(image) for image, _ in same]
    assert len(found) > 120


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def text(path: Path) -> None:
    path.write_text("no pictures here\n" * 100)


def playlist(path: Path) -> None:
    other = write_video(path.with_name("secret.ts"), 30)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n")


def list_of_files(path: Path) -> None:
    write_video(path.with_name("secret.ts"), 3)
    path.write_text("ffconcat version 1.0\nfile secret.ts\n")


def only_sound(path: Path) -> None:
    write_sound(path)


def no_end(path: Path) -> None:
    write_video(path, 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.mp4", nothing, "is empty"),
        ("a.mp4", noise, "cannot be read as a video"),
        ("a.txt", text, "cannot be read as a video"),
        ("a.m3u8", playlist, "cannot be read as a video"),
        ("a.ffconcat", list_of_files, "cannot be read as a video"),
        ("a.mp4", only_sound, "has no pictures, only sound"),
        ("a.mp4", no_end, "its beginning or end is missing"),
    ],
)
def test_what_is_no_video_is_said_at_once(
    tmp_path: Path, name: str, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_video_that_may_not_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 2)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(ImageError, match=r"the video '.*a\.mp4' cannot be read: Permission"):
        open_source(path)


def test_a_video_without_frames_is_said(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    whole = write_video(tmp_path / "a.mp4", 5, container=fragments).read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: whole.index(b"moof") - 4])
    _, error = read_until_wrong(open_source(tmp_path / "b.mp4"))
    assert "has no frames" in error


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("none.mp4", "'none.mp4' does not exist"),
        ("none/*.png", "matches nothing"),
        ("ftp://joe:geheim@host/a", "not by ftp"),
        ("file:///etc/passwd", "not by file"),
        ("concat://a|b", "not by concat"),
        ("http:///path", "names no host"),
        ("http://host:99999/path", "no valid address"),
        ("-1", "0 or more"),
        (True, "got bool"),
        (1.5, "got float"),
    ],
)
def test_what_names_no_source_is_said(argument: Any, words: str) -> None:
    with pytest.raises((ConfigError, ImageError), match=words) as caught:
        open_source(argument)
    assert "geheim" not in str(caught.value)


# ---- folders


def test_a_folder_is_in_the_order_of_its_numbers_and_in_time(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.fromarray(picture(number)).save(tmp_path / f"frame{number}.png")
    for argument in (tmp_path, str(tmp_path / "frame*.png")):
        source = open_source(argument, frame_rate=10)
        frames = read(source)
        assert shown_numbers(frames) == [1, 2, 10]
        assert [frame.time_s for frame in frames] == [0, 0.1, 0.2]
        assert not source.live


@pytest.mark.parametrize("where", [Path, str])
def test_a_folder_may_be_called_like_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: type
) -> None:
    (tmp_path / "2024").mkdir()
    Image.fromarray(picture(7)).save(tmp_path / "2024" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert shown_numbers(read(open_source(where("2024")))) == [7]
    with pytest.raises(ImageError, match="'2025' does not exist"):
        open_source(Path("2025"))


def test_deep_pictures_keep_their_greys_whatever_comes_into_the_picture(tmp_path: Path) -> None:
    cell = np.random.default_rng(0).integers(500, 600, (40, 60)).astype(np.uint16)
    cell[10:20, 10:20] = 900
    lamp = cell.copy()
    lamp[25:40, 30:60] = 40_000
    black = np.full_like(cell, 500)
    for number, values in enumerate([black, cell, lamp, cell]):
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
    source = open_source(tmp_path)
    for _ in range(2):  # also when it is read again
        dark, first, second, third = (frame.image_rgb for frame in read(source))
        assert not dark.any()
        assert (first[10:20, 10:20] == 255).all()
        np.testing.assert_array_equal(second[:25], first[:25])
        np.testing.assert_array_equal(third, first)
        assert (second[25:, 30:] == 255).all()


def test_a_bad_frame_of_a_folder_is_left_out(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    frames = open_source(tmp_path, frame_rate=10).frames()
    assert number_of(next(frames).image_rgb) == 0
    with pytest.raises(ImageError, match=r"1\.png"):
        next(frames)
    last = next(frames)
    assert (number_of(last.image_rgb), last.time_s) == (2, 0.2)


# ---- times


def test_times_go_on_where_they_begin_anew() -> None:
    clock = Clock(from_zero=False)
    said = [0.0, 0.1, 0.2, 0.0, 0.1, None, 0.3, 0.3, 5.0]
    given = [clock.next_s(each, 0.1) for each in said]
    np.testing.assert_allclose(given, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.601, 5.3])


@pytest.mark.alone
def test_times_of_a_live_source_begin_at_zero_and_tell_a_gap() -> None:
    clock = Clock(from_zero=True)
    assert [clock.next_s(each, 0.1) for each in (700.0, 700.1)] == pytest.approx([0, 0.1])
    time.sleep(0.5)
    clock.begin_anew()
    assert 0.5 <= clock.next_s(3.0, 0.1) < 2
    assert clock.next_s(3.5, 0.1) - clock.next_s(3.4, 0.1) < 0.11


# ---- addresses


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("http://host/a.mp4", "http://host/a.mp4"),
        ("http://joe:geheim@host:8080/live", "http://host:8080/live"),
        ("rtsp://joe:ge@heim@host/live", "rtsp://host/live"),
        ("http://joe@host", "http://host"),
        ("http://host/v?user=joe&pwd=geheim#x", "http://host/v?user=***&pwd=***"),
        ("http://joe:ge/heim@host/a", "http://host/a"),
        ("rtsp://joe:ge?he#im@host:554/a?user=joe", "rtsp://host:554/a?user=***"),
        ("http://host/live?geheim", "http://host/live?***"),
        ("http://[::1]:8080/a@b", "http://[::1]:8080/a@b"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("rtsp://host/user=joe_password=geheim_channel=1", None),
        ("folder/a.mp4", "folder/a.mp4"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, safe: str | None) -> None:
    if safe is None:
        assert "geheim" not in without_secrets(address)
        assert "channel=1" in without_secrets(address)
    else:
        assert without_secrets(address) == safe
    assert is_url(address) == ("://" in address)


# ---- files over HTTP


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("name", ["end.mp4", "fast.mp4", "a.mkv", "a.ts"])
def test_a_file_is_continued_where_its_server_broke(
    tmp_path: Path, name: str, ranges: bool
) -> None:
    container = {"movflags": "faststart"} if name == "fast.mp4" else {}
    data = write_video(tmp_path / name, 40, container=container).read_bytes()
    with running() as server:
        breaks: list[int | None] = [len(data) // 2, len(data) // 4]
        server.files["/v"] = Served(data, break_after=breaks, ranges=ranges)
        with pytest.warns(UserWarning, match="reconnected to 'http://127") as said:
            source, frames = opened_and_read(f"{server.url}/v")
        assert (206 in {each.status for each in server.gets}) == ranges
    assert not source.live
    assert shown_numbers(frames) == list(range(40))
    assert source.reconnects == len(said) >= 1


def test_a_file_that_is_another_one_meanwhile_is_not_continued(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", 90).read_bytes()
    other = write_video(tmp_path / "b.mkv", 91).read_bytes()
    with running() as server:
        served = Served(data, break_after=[len(data) * 2 // 3])
        server.files["/v"] = served
        source = open_source(f"{server.url}/v")
        served.content, served.etag = other, '"two"'
        _, error = read_until_wrong(source)
    assert "was changed while it was read" in error


def test_a_file_whose_server_is_gone_is_given_up(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", 90).read_bytes()
    with running() as server:
        server.files["/v"] = served = Served(data, break_after=[len(data) * 2 // 3])
        source = open_source(f"{server.url}/v", retries=2)
        served.status = 503
        frames, error = read_until_wrong(source)
    assert shown_numbers(frames) == list(range(len(frames)))
    assert 40 < len(frames) < 70
    assert "broke off (answers with an error (HTTP 503)) and did not come back in 2 tries" in error


def test_a_file_that_ends_is_not_asked_for_again(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", 10, container={"movflags": "faststart"}).read_bytes()
    with running() as server:
        server.files["/v"] = Served(data)
        source = open_source(f"{server.url}/v")
        assert shown_numbers(read(source)) == list(range(10))
        assert len(server.gets) == 1
        assert shown_numbers(read(source)) == list(range(10))
    assert source.reconnects == 0


@pytest.mark.parametrize(
    ("status", "user", "words"),
    [
        (401, "", "wants a name and a password .* http://NAME:PASSWORD@host"),
        (401, "joe:geheim@", "refuses this name and password"),
        (403, "", "may not be read"),
        (404, "", "is not there"),
        (500, "", "HTTP 500"),
    ],
)
def test_what_a_server_refuses_is_said(status: int, user: str, words: str) -> None:
    with running() as server:
        server.files["/v"] = Served(b"", status=status)
        address = f"{server.url}/v"
        with pytest.raises(ImageError, match=words) as caught:
            open_source(address.replace("//", f"//{user}"))
    assert address in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_page_is_no_video() -> None:
    with running() as server:
        server.files["/v"] = Served(b"<html>hello</html>" * 100)
        with pytest.raises(ImageError, match="cannot be read as a video"):
            open_source(f"{server.url}/v")


def test_a_playlist_from_a_server_leads_to_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.ts", 30)
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    with running() as server:
        server.files["/secret.ts"] = Served(secret.read_bytes())
        for name, entry in {
            "bad.m3u8": f"file://{secret}",
            "bad2.m3u8": str(secret),
            "good.m3u8": "secret.ts",
        }.items():
            server.files[f"/{name}"] = Served(lines.format(entry).encode())
        assert len(read(open_source(f"{server.url}/good.m3u8", timeout_s=2))) == 30
        for name in ("bad.m3u8", "bad2.m3u8"):
            with pytest.raises(ImageError, match="bad"):
                read(open_source(f"{server.url}/{name}", timeout_s=2))


LEADING: dict[str, str] = {
    "a segment": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}/a.ts\n#EXT-X-ENDLIST\n",
    "a later segment": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXTINF:2,\n"
    "{other}/b.ts\n#EXT-X-ENDLIST\n",
    "another playlist": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{other}/inner.m3u8\n",
    "a key": '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI="{other}/key"\n'
    "#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n",
    "a map": '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI="{other}/init.mp4"\n'
    "#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n",
    "a redirection": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/away.ts\n#EXT-X-ENDLIST\n",
    "another name of this machine": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{named}/a.ts\n"
    "#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("what", LEADING)
def test_a_playlist_sends_no_request_to_another_host(tmp_path: Path, what: str) -> None:
    video = write_video(tmp_path / "a.ts", 30).read_bytes()
    with running() as server, running() as other:
        for each in (server, other):
            each.files |= {f"/{file}": Served(video) for file in ("a.ts", "b.ts", "key")}
        named = other.url.replace("127.0.0.1", "localhost")
        text = LEADING[what].format(other=other.url, named=named)
        server.files["/list.m3u8"] = Served(text.encode())
        elsewhere = {"Location": f"{other.url}/a.ts"}
        server.files["/away.ts"] = Served(b"", status=302, headers=elsewhere)
        with suppress(ImageError):
            source = open_source(f"{server.url}/list.m3u8", timeout_s=2, retries=0)
            assert len(read(source)) <= 30
        assert other.asked == []
        assert server.asked


MANIFEST = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1.2S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
)


@pytest.mark.parametrize("hosts", ["own", "any"])
def test_a_dash_manifest_is_read_from_its_own_host_or_refused(tmp_path: Path, hosts: str) -> None:
    """The wheels of PyAV have no demuxer for DASH; an FFmpeg with libxml2 has."""
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    video = write_video(tmp_path / "a.mp4", 30, container=fragments).read_bytes()
    with running() as server, running() as other:
        for each in (server, other):
            each.files["/a.mp4"] = Served(video)
        how = {"timeout_s": 2, "retries": 0, "playlist_hosts": hosts}
        for name, base in (("own", server.url), ("other", other.url)):
            server.files[f"/{name}"] = Served(
                MANIFEST.format(base).encode(), headers={"Content-Type": "application/dash+xml"}
            )
        if not has_dash():
            for name in ("own", "other"):
                with pytest.raises(ImageError, match=r"is a DASH manifest, .* an HLS playlist"):
                    open_source(f"{server.url}/{name}", **how)
        else:
            assert len(read(open_source(f"{server.url}/own", **how))) == 30
            with nullcontext() if hosts == "any" else pytest.raises(ImageError, match="another"):
                assert len(read(open_source(f"{server.url}/other", **how))) == 30
        assert bool(other.asked) == (has_dash() and hosts == "any")


def has_dash() -> bool:
    with suppress(ValueError):
        return bool(av.format.ContainerFormat("dash", "r"))
    return False


def test_what_a_manifest_names_is_opened_from_its_own_host_alone() -> None:
    """As FFmpeg asks for it, whatever format the playlist has."""
    with running() as server, running() as other:
        for each in (server, other):
            each.files |= {"/a.mp4": Served(b"0123456789"), "/list.mpd": Served(b"<MPD/>")}
        reader = HttpReader(f"{server.url}/list.mpd", timeout_s=2, retry=_reconnect.Retry("it", 0))
        open_file = files_of_own_host(reader, timeout_s=2, retries=0)
        with closing(reader), closing(open_file(f"{server.url}/a.mp4", 0, {"offset": "4"})) as file:
            assert file.read(3) == b"456"
        for address in (f"{other.url}/a.mp4", server.url.replace("127.0.0.1", "localhost")):
            with pytest.raises(ImageError, match=r"leads to another host.*--playlist-hosts any"):
                open_file(address, 0, {})
        with pytest.raises(ImageError, match="which is no address of http"):
            open_file("file:///etc/passwd", 0, {})
        assert other.asked == []


def test_a_playlist_may_lead_elsewhere_where_that_is_allowed(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.ts", 30).read_bytes()
    with running() as server, running() as other:
        other.files["/a.ts"] = Served(video)
        text = LEADING["a segment"].format(other=other.url, named="")
        server.files["/list.m3u8"] = Served(text.encode())
        address = f"{server.url}/list.m3u8"
        with pytest.raises(ImageError, match=r"leads to another host.*--playlist-hosts any"):
            read(open_source(address, timeout_s=2, retries=0))
        assert len(read(open_source(address, timeout_s=2, playlist_hosts="any"))) == 30


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(ImageError, match="cannot be reached"):
        open_source("http://127.0.0.1:1/live")
    with pytest.raises(ImageError, match="cannot be reached"):
        open_source("rtsp://joe:geheim@127.0.0.1:1/live")


@pytest.mark.alone
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_is_not_waited_for_long(scheme: str) -> None:
    with deaf() as address:
        began = time.monotonic()
        with pytest.raises(ImageError, match=r"gave no answer .*--stream-timeout-s"):
            open_source(address.replace("http", scheme), timeout_s=0.3)
        assert time.monotonic() - began < 2


# ---- live


@pytest.mark.alone
def test_a_camera_over_http_is_live() -> None:
    with live(Camera(numbered_parts(8), pace_s=0.1)) as server:
        source = open_source(server.url)
        assert source.live
        frames = read(source)
    assert shown_numbers(frames) == list(range(8))
    times_s = [frame.time_s or 0 for frame in frames]
    assert times_s == sorted(set(times_s))
    assert times_s[0] == 0
    assert times_s[-1] > 0.5  # when they came: such a stream says nothing of its times


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["mjpeg", "ts"])
def test_a_live_stream_that_breaks_comes_back(tmp_path: Path, kind: str) -> None:
    if kind == "mjpeg":
        camera = Camera(numbered_parts(24), break_before={12}, refuse=1)
    else:
        parts = [
            write_video(tmp_path / f"{first}.ts", pictures(12, first=first)).read_bytes()
            for first in (0, 12)
        ]
        camera = Camera(parts, pace_s=0.6, break_before={1}, refuse=1, content_type="video/mp2t")
    with live(camera) as server:
        source = open_source(server.url)
        with pytest.warns(UserWarning, match="reconnected to 'http://127") as given:
            frames = read(source)
    said = [each for each in given if issubclass(each.category, UserWarning)]
    assert shown_numbers(frames) == list(range(24))
    assert [frame.index for frame in frames] == list(range(24))
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(set(times_s))
    if kind == "ts":
        assert times_s[12] >= 0.6  # the time without pictures is time, too
    assert source.reconnects == len(said) == 1


@pytest.mark.parametrize(("password", "opens"), [("geheim", True), ("falsch", False)])
def test_a_camera_may_want_a_digest(password: str, opens: bool) -> None:
    with live(Camera(numbered_parts(5), user="joe:geheim")) as server:
        address = f"http://joe:{password}@{server.host}/live"
        if opens:
            assert shown_numbers(read(open_source(address))) == list(range(5))
        else:
            with pytest.raises(ImageError, match="refuses this name and password"):
                open_source(address)


def test_what_is_logged_has_no_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = write_video(tmp_path / "a.ts", pictures(6)).read_bytes()
    camera = Camera([part], user="joe:geheim", content_type="video/mp2t")
    with caplog.at_level("DEBUG"), live(camera) as server:
        read(open_source(f"http://joe:geheim@{server.host}/live?token=auch"))
        with httpx.Client() as ours:
            ours.get(server.url + "?token=notours")
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "HTTP Request" in text
    assert "geheim" not in text
    assert "auch" not in text
    assert "token=***" in text
    assert "token=notours" in text, "of other requests nothing is hidden"
    assert logging.getLogger("httpx").filters == [], "nothing is left"


def test_rtsp_is_live_and_comes_back(tmp_path: Path) -> None:
    recordings = [
        write_video(tmp_path / f"{first}.ts", pictures(30, first=first)).read_bytes()
        for first in (0, 30)
    ]
    with rtsp(recordings, user="joe:geheim") as server:
        source = open_source(f"rtsp://joe:geheim@{server.host}/live", retries=1, timeout_s=10)
        assert source.live
        with pytest.warns(UserWarning, match=f"reconnected to 'rtsp://{server.host}/live'"):
            frames, error = read_until_wrong(source)
    # The last picture before each break was not complete: nothing said that it was.
    assert shown_numbers(frames) == [*range(29), *range(30, 59)]
    assert [frame.index for frame in frames] == list(range(58))
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(set(times_s))
    assert "broke off (ended the connection) and did not come back" in error
    assert "geheim" not in error


@pytest.mark.parametrize("user", ["", "joe:falsch@"])
def test_an_rtsp_camera_that_refuses_is_said(user: str) -> None:
    with (
        rtsp([], user="joe:geheim") as server,
        pytest.raises(ImageError, match="wants a name and a password") as caught,
    ):
        open_source(f"rtsp://{user}{server.host}/live", timeout_s=10)
    assert "falsch" not in str(caught.value)


@pytest.mark.alone
def test_a_live_stream_that_falls_silent_is_opened_anew() -> None:
    with live(Camera(numbered_parts(20), silent_after=10)) as server:
        source = open_source(server.url, timeout_s=0.3, retries=1)
        frames, error = read_until_wrong(source)
    assert shown_numbers(frames) == list(range(10))
    assert "gave no answer within 0.3 s" in error


def test_a_size_that_changes_in_a_live_stream() -> None:
    large = [jpeg_part(image) for image in pictures(6, (180, 240), first=6)]
    with live(Camera(numbered_parts(6) + large)) as server:
        frames = read(open_source(server.url))
    assert shown_numbers(frames) == list(range(12))
    assert frames[-1].size_hw == (180, 240)


@pytest.mark.alone
def test_a_stop_ends_a_wait_for_a_silent_stream() -> None:
    with live(Camera(numbered_parts(20), silent_after=5)) as server:
        source = open_source(server.url, timeout_s=30)
        frames = source.frames()
        for _ in range(5):
            next(frames)
        threading.Timer(0.2, source.stop).start()
        began = time.monotonic()
        assert list(frames) == []
        assert time.monotonic() - began < 1.5


@pytest.mark.alone
def test_a_stop_ends_a_wait_for_a_server_that_was_there() -> None:
    with live(Camera(numbered_parts(9), break_before={5}, deaf=True)) as server:
        source = open_source(server.url, timeout_s=30)
        threading.Timer(0.5, source.stop).start()
        began = time.monotonic()
        assert shown_numbers(read(source)) == list(range(5))
        assert server.camera.connections == 2
        assert time.monotonic() - began < 2


def test_a_live_stream_without_pictures_is_said() -> None:
    with (
        live(Camera([], content_type="video/mp2t")) as server,
        pytest.raises(ImageError, match="cannot be read as a video"),
    ):
        open_source(server.url)


@pytest.mark.alone
def test_a_stop_ends_the_pauses_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reconnect, "FIRST_PAUSE_S", 30)
    with live(Camera(numbered_parts(9), break_before={5})) as server:
        source = open_source(server.url)
        threading.Timer(0.5, source.stop).start()
        began = time.monotonic()
        assert shown_numbers(read(source)) == list(range(5))
        assert time.monotonic() - began < 2


def test_pauses_grow_and_end() -> None:
    pauses: list[float] = []

    class Waited(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return False

    retry = _reconnect.Retry("it", 7)
    retry.stopped = Waited()
    for _ in range(7):
        retry.lost("gone")
    with pytest.raises(ImageError, match="did not come back in 7 tries"):
        retry.lost("gone")
    assert pauses == [0.02 * 2**power for power in range(7)]
    retry = _reconnect.Retry("it", 0)
    with pytest.raises(ImageError, match=r"'it' broke off \(gone\)$"):
        retry.lost("gone")


# ---- cameras


class Device:
    """Stands in for a camera's device: pictures in turn; None is a failed read."""

    there: ClassVar[list[list[ImageRGB | None]]] = []
    opened: ClassVar[list[Device]] = []

    def __init__(self, number: int) -> None:
        self.pictures = Device.there.pop(0) if Device.there else None
        self.released = False
        Device.opened.append(self)

    def isOpened(self) -> bool:
        return self.pictures is not None

    def set(self, *_: float) -> bool:
        return True

    def read(self) -> tuple[bool, ImageRGB | None]:
        image = self.pictures.pop(0) if self.pictures else None
        return image is not None, None if image is None else image[..., ::-1]

    def release(self) -> None:
        self.released = True


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    monkeypatch.setattr(cv2, "VideoCapture", Device)
    monkeypatch.setattr(Device, "there", [])
    monkeypatch.setattr(Device, "opened", [])
    return Device


@pytest.mark.parametrize("argument", [0, "0"])
def test_a_camera_is_live_and_rgb(device: type[Device], argument: int | str) -> None:
    device.there = [list(pictures(3))]
    source = open_source(argument, retries=0)
    assert source.live
    frames, error = read_until_wrong(source)
    assert shown_numbers(frames) == [0, 1, 2]
    np.testing.assert_array_equal(frames[0].image_rgb, picture(0))
    assert {frame.source_id for frame in frames} == {"camera 0"}
    assert "'camera 0' broke off (gives no pictures any more; is it unplugged?)" in error
    assert all(each.released for each in device.opened)


def test_a_camera_that_is_plugged_in_again_goes_on(device: type[Device]) -> None:
    device.there = [list(pictures(3)), list(pictures(3, first=3))]
    source = open_source(0, retries=2)
    with pytest.warns(UserWarning, match="reconnected to 'camera 0'"):
        frames, error = read_until_wrong(source)
    assert shown_numbers(frames) == list(range(6))
    assert [frame.index for frame in frames] == list(range(6))
    assert source.reconnects == 1
    assert "did not come back in 2 tries" in error
    assert "there is no camera 0" in error


def test_a_camera_that_is_not_there_is_said() -> None:
    with pytest.raises(ImageError, match="there is no camera 97, or another program has it"):
        open_source(97)


def test_a_camera_whose_pictures_are_too_large(device: type[Device]) -> None:
    device.there = [list(pictures(1))]
    _, error = read_until_wrong(open_source(0, retries=0, max_pixels=1000))
    assert "160x120" in error


def test_warnings_are_one_a_reconnect_by_default(device: type[Device]) -> None:
    device.there = [list(pictures(1)) for _ in range(3)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        read_until_wrong(open_source(0, retries=1))
    assert len(said) == 2


# ---- a recording, played at its own rate


class Recorded(Source):
    """Frames with the given times; a text is an error instead."""

    name = "recorded"

    def __init__(self, *times_s: float | str | None) -> None:
        self.times_s, self.stopped = times_s, False

    def frames(self) -> Iterator[Frame]:
        def give(numbered: tuple[int, float | str | None]) -> Frame:
            index, time_s = numbered
            if isinstance(time_s, str):
                raise ImageError(time_s)
            return Frame(np.zeros((*SIZE_HW, 3), np.uint8), self.name, index, time_s=time_s)

        return map(give, enumerate(self.times_s))

    def stop(self) -> None:
        self.stopped = True


def test_a_recording_is_played_at_its_own_rate() -> None:
    began_s = time.monotonic()
    came_s = []
    for _ in PacedSource(Recorded(5.0, 5.05, 5.06, 5.3)).frames():
        came_s.append(time.monotonic() - began_s)
    assert len(came_s) == 4
    for came, due in zip(came_s, (0, 0.05, 0.06, 0.3), strict=True):
        assert came >= due - 0.01
    assert came_s[0] < 0.05, "whenever its first frame was taken, that is at once"


def test_a_frame_that_is_late_is_given_at_once_and_delays_no_other() -> None:
    frames = PacedSource(Recorded(0.0, 0.02, 0.04, 0.4)).frames()
    began_s = time.monotonic()
    next(frames)
    time.sleep(0.2)
    next(frames), next(frames)
    assert time.monotonic() - began_s < 0.39
    next(frames)
    assert time.monotonic() - began_s >= 0.39


def test_a_played_recording_goes_on_after_a_damaged_frame_and_stops_at_once() -> None:
    recording = Recorded(0.0, "damaged", 0.01, 3600.0)
    played = PacedSource(recording)
    frames = played.frames()
    assert next(frames).index == 0
    with pytest.raises(ImageError, match="damaged"):
        next(frames)
    assert next(frames).index == 2
    threading.Timer(0.05, played.stop).start()
    assert next(frames, None) is None
    assert recording.stopped


def test_frames_without_times_are_not_held_back() -> None:
    assert len(list(PacedSource(Recorded(None, None, None)).frames())) == 3


@pytest.mark.parametrize("ending", ["webp", "avif", "gif", "png"])
def test_an_animated_picture_is_a_video(ending: str, tmp_path: Path) -> None:
    """FFmpeg shows nothing of a WebP, and one picture of an AVIF."""
    shades = [Image.new("RGB", (32, 24), (40 * i, 0, 90)) for i in range(5)]
    path = tmp_path / f"a.{ending}"
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=200, **options)
    frames = read(open_source(path))
    assert len(frames) == 5
    for number, frame in enumerate(frames):
        assert abs(int(frame.image_rgb[..., 0].mean()) - 40 * number) < 6
        assert frame.time_s == pytest.approx(0.2 * number, abs=0.01)
    with pytest.raises(ImageError, match="more than the limit of 100"):
        read(open_source(path, max_pixels=100))


@pytest.mark.parametrize("ending", ["webp", "avif"])
def test_one_that_is_cut_off_is_no_video(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    noise = [Image.effect_noise((64, 48), 90) for _ in range(3)]
    noise[0].save(path, save_all=True, append_images=noise[1:])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"a\.\w+' (is damaged|cannot be read as a video)"):
        read(open_source(path))
