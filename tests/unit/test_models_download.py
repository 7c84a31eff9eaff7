"""Downloads from a real server on this machine that breaks, hangs, lies and refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_server
import pytest
from model_server import COMMIT, HUB_PATH, META_PATH, ModelServer, Served, content, running

from sam_detect.config import load_settings
from sam_detect.errors import ConfigError, DownloadError, OutputError, UnavailableError
from sam_detect.models import download
from sam_detect.models.catalogue import clip_model, sam2_model
from sam_detect.models.download import Remote, part_path, transfer
from sam_detect.models.obtain import Obtained, known, obtain, state, wanted
from sam_detect.models.records import read_record, record_path
from sam_detect.models.weights import (
    available_sam2,
    clip_path,
    require_clip,
    require_sam2,
    sam2_path,
)

DATA = content()
TINY = META_PATH.format("tiny")


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[tuple[int, int | None]] = []
        self.checks: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def progressed(self, done: int, total: int | None) -> None:
        self.progress.append((done, total))

    def checked(self, done: int, total: int) -> None:
        self.checks.append((done, total))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def _local(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address leads to the server on this machine, and nobody waits."""
    monkeypatch.setattr(download, "PAUSE_S", 0)
    monkeypatch.setenv("SAM_DETECT_MIRROR_URL", server.url)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def get(sam: str = "", clip: str = "", seen: Seen | None = None, **settings: Any) -> Obtained:
    """Obtains one model, as the command does."""
    loaded = load_settings(settings)
    (each,) = wanted([sam] if sam else [], [clip] if clip else [], loaded)
    return obtain(each, loaded, seen or Seen())


def failing(sam: str = "tiny", clip: str = "", **settings: Any) -> str:
    """The one line of the download's failure."""
    with pytest.raises(DownloadError) as caught:
        get("" if clip else sam, clip, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiny_path() -> Path:
    return sam2_path(sam2_model("tiny"))


def nothing_left() -> bool:
    """Whether neither a file nor a part is there."""
    return not tiny_path().exists() and not part_path(tiny_path()).exists()


class TestWhole:
    def test_a_checkpoint_comes_with_its_record(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        seen = Seen()
        done = get("tiny", seen=seen)
        assert done.path == tiny_path() == require_sam2("tiny").path
        assert done.path.read_bytes() == DATA
        assert done.downloaded
        record = read_record(done.path)
        assert record == done.record
        assert record is not None
        assert record.sha256 == hashlib.sha256(DATA).hexdigest()
        assert (record.published, record.bytes) == (False, len(DATA))
        assert record.url == server.url + TINY
        assert seen.progress[-1] == (len(DATA), len(DATA))
        assert [done for done, _ in seen.progress] == sorted({done for done, _ in seen.progress})
        assert seen.checks[-1] == (len(DATA), len(DATA))
        assert sorted(path.name for path in done.path.parent.glob("[!.]*")) == [
            "sam2.1_hiera_tiny.pt",
            "sam2.1_hiera_tiny.pt.json",
        ]

    def test_what_is_here_is_checked_and_not_fetched_again(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        seen = Seen()
        done = get("tiny", seen=seen)
        assert not done.downloaded
        assert len(server.asked) == 1
        assert seen.lines == []

    def test_a_file_that_somebody_put_here_is_recorded(self, server: ModelServer) -> None:
        tiny_path().parent.mkdir(parents=True)
        tiny_path().write_bytes(DATA)
        done = get("tiny")
        assert not done.downloaded
        assert done.record.sha256 == hashlib.sha256(DATA).hexdigest()
        assert done.record.url == ""
        assert server.asked == []
        tiny_path().write_bytes(DATA[:-1] + b"x")
        assert not available_sam2("tiny")

    def test_a_server_that_tells_no_length(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, length=False, etag="")
        seen = Seen()
        assert get("tiny", seen=seen).path.read_bytes() == DATA
        assert seen.progress[-1] == (len(DATA), None)

    def test_a_redirect_is_followed(self, server: ModelServer) -> None:
        served = server.sam2("tiny", b"", status=302)
        served.headers = {"Location": server.url + "/elsewhere"}
        server.files["/elsewhere"] = Served(DATA)
        assert get("tiny").path.read_bytes() == DATA

    def test_a_mirror_may_lie_below_a_path(self, server: ModelServer) -> None:
        server.files["/a/mirror" + TINY] = Served(DATA)
        assert get("tiny", mirror_url=server.url + "/a/mirror/").path.read_bytes() == DATA

    @pytest.mark.parametrize("url", ["mirror.example", "ftp://mirror.example", "http://"])
    def test_a_mirror_is_a_url(self, url: str) -> None:
        with pytest.raises(ConfigError, match="mirror_url is a URL such as"):
            get("tiny", mirror_url=url)

    def test_each_file_once_and_both_defaults(self, server: ModelServer) -> None:
        settings = load_settings()
        names = [each.name for each in wanted(["base", "sam2.1_hiera_base_plus.pt"], [], settings)]
        assert names == ["sam2.1_hiera_base_plus"]
        names = [each.name for each in wanted([], [], settings)]
        assert names == ["sam2.1_hiera_base_plus", "ViT-B-32/openai"]


class TestBroken:
    def test_a_broken_transfer_is_taken_up_where_it_broke(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, break_after=[100_000, 250_000])
        seen = Seen()
        assert get("tiny", seen=seen).path.read_bytes() == DATA
        assert [(each.range, each.status) for each in server.asked] == [
            (None, 200),
            ("bytes=100000-", 206),
            ("bytes=350000-", 206),
        ]
        assert {each.if_range for each in server.asked[1:]} == {'"one"'}
        assert "broke after 0.1 of 0.6 MB: taking it up again" in seen.lines[1]

    def test_one_that_breaks_for_good_says_so_and_is_continued_by_the_next_command(
        self, server: ModelServer
    ) -> None:
        server.sam2("tiny", DATA, break_after=[100_000, 0])
        message = failing()
        assert "transfer of sam2.1_hiera_tiny.pt from 127.0.0.1" in message
        assert "broke off after 0.1 of 0.6 MB: run the same command again" in message
        assert not tiny_path().exists()
        assert part_path(tiny_path()).read_bytes() == DATA[:100_000]
        assert get("tiny").path.read_bytes() == DATA
        assert server.asked[-1].range == "bytes=100000-"

    def test_endless_breaking_ends(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, break_after=[1000] * 99)
        assert "broke off" in failing()
        assert len(server.asked) == download.ATTEMPTS

    def test_a_server_without_ranges_is_read_from_the_start(self, server: ModelServer) -> None:
        served = server.sam2("tiny", DATA, break_after=[100_000, 0], ranges=False)
        failing()
        assert served.break_after == []
        assert get("tiny").path.read_bytes() == DATA
        assert server.asked[-1].status == 200

    def test_a_file_that_changed_meanwhile_is_read_from_the_start(
        self, server: ModelServer
    ) -> None:
        server.sam2("tiny", DATA, break_after=[100_000, 0])
        failing()
        other = content(seed=5)
        server.sam2("tiny", other, etag='"two"')
        assert get("tiny").path.read_bytes() == other
        assert (server.asked[-1].if_range, server.asked[-1].status) == ('"one"', 200)

    @pytest.mark.parametrize("etag", ["", 'W/"weak"'])
    def test_without_a_strong_tag_nothing_is_continued(
        self, server: ModelServer, etag: str
    ) -> None:
        server.sam2("tiny", DATA, break_after=[100_000, 0], etag=etag)
        failing()
        assert get("tiny").path.read_bytes() == DATA
        assert [each.range for each in server.asked] == [None] * 3

    def test_the_date_of_the_last_change_serves_as_well(self, server: ModelServer) -> None:
        date = "Sun, 29 Sep 2024 12:00:00 GMT"
        served = server.sam2("tiny", DATA, break_after=[100_000], etag="")
        served.headers = {"Last-Modified": date}
        assert get("tiny").path.read_bytes() == DATA
        assert (server.asked[-1].if_range, server.asked[-1].status) == (date, 206)

    def test_a_part_that_nothing_is_known_of_is_not_continued(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        part_path(tiny_path()).parent.mkdir(parents=True)
        part_path(tiny_path()).write_bytes(b"x" * 1000)
        assert get("tiny").path.read_bytes() == DATA
        assert server.asked[0].range is None

    def test_a_part_of_another_address_is_not_continued(
        self, server: ModelServer, tmp_path: Path
    ) -> None:
        server.files["/one"] = Served(DATA, break_after=[1000, 0])
        server.files["/two"] = Served(content(seed=2))
        path = tmp_path / "x"
        with pytest.raises(DownloadError):
            transfer(Remote(server.url + "/one"), path, timeout_s=5, watcher=Seen())
        part = transfer(Remote(server.url + "/two"), path, timeout_s=5, watcher=Seen())
        assert part.read_bytes() == content(seed=2)
        assert server.asked[-1].range is None

    def test_a_part_longer_than_the_file_is_thrown_away(self, server: ModelServer) -> None:
        served = server.sam2("tiny", DATA, break_after=[100_000, 0])
        failing()
        with part_path(tiny_path()).open("ab") as part:
            part.write(bytes(len(DATA)))
        assert get("tiny").path.read_bytes() == DATA
        assert [each.status for each in server.asked[2:]] == [416, 200]
        assert served.break_after == []

    @pytest.mark.parametrize("given", ["bytes 5-599999/600000", "bytes 100000-599999/600001", ""])
    def test_an_answer_with_another_part_is_not_appended(
        self, server: ModelServer, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA, break_after=[100_000, 0])
        failing()
        described = model_server._described
        monkeypatch.setattr(
            model_server,
            "_described",
            lambda served, first: (
                described(served, first) | ({"Content-Range": given} if first else {})
            ),
        )
        assert get("tiny").path.read_bytes() == DATA
        assert [each.status for each in server.asked[2:]] == [206, 200]

    def test_a_complete_part_is_put_in_place_without_asking(self, server: ModelServer) -> None:
        """What a process leaves that is killed between the last byte and the renaming."""
        server.sam2("tiny", DATA)
        path = tiny_path()
        path.parent.mkdir(parents=True)
        transfer(Remote(server.url + TINY), path, timeout_s=5, watcher=Seen())
        assert get("tiny").path.read_bytes() == DATA
        assert len(server.asked) == 1


class TestChecked:
    def test_a_damaged_file_is_fetched_again(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        tiny_path().write_bytes(DATA[:-1] + b"x")
        seen = Seen()
        assert get("tiny", seen=seen).downloaded
        assert "is damaged" in seen.lines[0]
        assert tiny_path().read_bytes() == DATA

    def test_damage_behind_an_old_time_is_found(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        before = get("tiny").record.mtime_ns
        tiny_path().write_bytes(DATA[:-1] + b"x")
        os.utime(tiny_path(), ns=(before, before))
        assert get("tiny").downloaded

    def test_other_bytes_than_recorded_are_refused_and_the_old_ones_kept(
        self, server: ModelServer
    ) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        damaged = DATA[:-1] + b"x"
        tiny_path().write_bytes(damaged)
        other = content(seed=7)
        server.sam2("tiny", other)
        message = failing()
        assert "is another file than on 20" in message
        assert hashlib.sha256(DATA).hexdigest() in message
        assert hashlib.sha256(other).hexdigest() in message
        assert "Delete sam2.1_hiera_tiny.pt.json" in message
        assert tiny_path().read_bytes() == damaged
        assert not part_path(tiny_path()).exists()
        record_path(tiny_path()).unlink()
        tiny_path().unlink()
        assert get("tiny").path.read_bytes() == other

    def test_a_record_outlives_its_file(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        tiny_path().unlink()
        server.sam2("tiny", content(seed=7))
        assert "is another file" in failing()
        assert nothing_left()

    def test_a_damaged_file_cannot_be_mended_offline(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        tiny_path().write_bytes(DATA[:-1] + b"x")
        assert "is damaged" in failing(offline=True)
        assert len(server.asked) == 1

    def test_a_web_page_is_no_checkpoint(self, server: ModelServer) -> None:
        server.sam2("tiny", b"<html>Log in!</html>").headers = {"Content-Type": "text/html"}
        assert "web page instead of a file" in failing()
        assert nothing_left()

    def test_a_compressed_answer_is_no_checkpoint(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA).headers = {"Content-Encoding": "gzip"}
        assert "instead of a file" in failing()
        assert nothing_left()


class TestRefused:
    def test_no_such_file(self, server: ModelServer) -> None:
        message = failing()
        assert message.startswith(server.url + TINY)
        assert "no such file (HTTP 404)" in message
        assert nothing_left()

    @pytest.mark.parametrize("status", [403, 429, 500, 503])
    def test_a_server_that_refuses(self, server: ModelServer, status: int) -> None:
        server.sam2("tiny", DATA, status=status)
        message = failing()
        assert f"the server refuses (HTTP {status})" in message
        assert ("try again later" in message) == (status != 403)

    def test_no_network(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            message = failing(mirror_url=url)
        assert f"cannot reach {url.removeprefix('http://')}" in message
        assert "docs/models.md" in message

    def test_no_such_host(self) -> None:
        message = failing(mirror_url="http://nowhere.invalid")
        assert "cannot reach nowhere.invalid" in message

    def test_a_server_that_never_answers(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, hang_after=-1)
        message = failing(download_timeout_s=0.2)
        assert "did not answer within 0.2 s" in message
        assert "SAM_DETECT_DOWNLOAD_TIMEOUT_S" in message

    def test_a_server_that_falls_silent_is_asked_once_more(self, server: ModelServer) -> None:
        served = server.sam2("tiny", DATA, hang_after=98_304)
        message = failing(download_timeout_s=0.2)
        assert "did not answer within 0.2 s after 0" in message
        have = part_path(tiny_path()).stat().st_size
        assert have >= 98_304
        served.hang_after = None
        assert get("tiny").path.read_bytes() == DATA
        assert server.asked[-1].range == f"bytes={have}-"

    def test_redirects_without_end(self, server: ModelServer) -> None:
        server.sam2("tiny", b"", status=302).headers = {"Location": server.url + TINY}
        assert "redirects" in failing()


class TestSpace:
    Usage = namedtuple("Usage", "total used free")

    def test_space_is_looked_for_before(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA)
        usage = self.Usage(10**9, 0, download.SPARE_BYTES + len(DATA) - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        message = failing()
        assert "no space for sam2.1_hiera_tiny.pt" in message
        assert "SAM_DETECT_HOME" in message
        assert nothing_left()
        usage = usage._replace(free=usage.free + 1)
        assert get("tiny").path.read_bytes() == DATA

    def test_only_what_is_missing_needs_space(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA, break_after=[500_000, 0])
        failing()
        usage = self.Usage(10**9, 0, download.SPARE_BYTES + 100_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        assert get("tiny").path.read_bytes() == DATA

    def test_a_disk_that_fills_up_keeps_what_came(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA)

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        assert "the disk is full; what came is kept" in failing()
        assert part_path(tiny_path()).stat().st_size == len(DATA)
        assert not tiny_path().exists()

    def test_a_folder_that_cannot_be_made(self, server: ModelServer, tmp_path: Path) -> None:
        tiny_path().parent.parent.parent.mkdir(exist_ok=True)
        tiny_path().parent.parent.write_bytes(b"a file")
        with pytest.raises(OutputError, match=r"cannot write into .*SAM_DETECT_HOME"):
            get("tiny")


class TestOffline:
    @pytest.mark.parametrize("how", ["call", "environment"])
    def test_nothing_is_asked(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        server.sam2("tiny", DATA)
        if how == "environment":
            monkeypatch.setenv("SAM_DETECT_OFFLINE", "1")
        message = failing(**({"offline": True} if how == "call" else {}))
        assert server.asked == []
        for words in (
            "sam2.1_hiera_tiny is not on this machine",
            "SAM_DETECT_OFFLINE",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_tiny.pt",
            str(tiny_path().parent),
            "'naive' needs no model",
        ):
            assert words in message

    def test_what_is_here_is_still_checked(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get("tiny")
        assert not get("tiny", offline=True).downloaded

    def test_a_clip_model_says_where_it_is_on_the_hub(self) -> None:
        message = failing(clip="base", offline=True)
        assert "open_clip_model.safetensors from https://huggingface.co/timm/vit_base" in message
        assert "'appearance' needs no model" in message


class TestHub:
    """CLIP weights, through huggingface_hub."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("huggingface_hub")

    def test_weights_come_with_the_published_checksum(self, server: ModelServer) -> None:
        data = server.hub().content
        done = get(clip="base")
        assert done.path == clip_path(clip_model("base")) == require_clip("base").path
        assert done.path.read_bytes() == data
        assert done.record.published
        assert done.record.sha256 == hashlib.sha256(data).hexdigest()
        assert f"/resolve/{COMMIT}/" in done.record.url

    def test_other_bytes_than_published_are_refused(self, server: ModelServer) -> None:
        server.hub().content = content(seed=9)
        message = failing(clip="base")
        assert "is not the file: its SHA-256 is" in message
        folder = clip_path(clip_model("base")).parent
        assert list(folder.glob("[!.]*")) == []

    def test_a_broken_transfer_is_taken_up(self, server: ModelServer) -> None:
        data = server.hub(break_after=[100_000, 0]).content
        assert "broke off after 0.1 of 0.6 MB" in failing(clip="base")
        assert get(clip="base").path.read_bytes() == data
        assert server.gets[-1].range == "bytes=100000-"

    def test_the_old_format_where_there_is_no_safe_one(self, server: ModelServer) -> None:
        server.hub()
        for path in list(server.files):
            served = server.files.pop(path)
            server.files[path.replace("model.safetensors", "pytorch_model.bin")] = served
        assert get(clip="base").path.name == "open_clip_pytorch_model.bin"
        assert require_clip("base").path.name == "open_clip_pytorch_model.bin"
        assert not get(clip="base").downloaded

    def test_what_came_in_the_old_format_meanwhile_is_not_fetched_again(
        self, server: ModelServer
    ) -> None:
        server.hub()
        for path in list(server.files):
            served = server.files.pop(path)
            server.files[path.replace("model.safetensors", "pytorch_model.bin")] = served
        settings = load_settings()
        (each,) = wanted([], ["base"], settings)
        assert obtain(each, settings, Seen()).downloaded
        assert not obtain(each, settings, Seen()).downloaded
        assert len([asked for asked in server.gets if COMMIT in asked.path]) == 1

    def test_nothing_there(self) -> None:
        message = failing(clip="base")
        assert "open_clip_model.safetensors or open_clip_pytorch_model.bin (HTTP 404)" in message

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_closed_repository(self, server: ModelServer, status: int) -> None:
        server.hub(status=status)
        assert f"is not open to you (HTTP {status})" in failing(clip="base")
        assert "HF_TOKEN" in failing(clip="base")

    def test_a_server_that_refuses(self, server: ModelServer) -> None:
        server.hub(status=500)
        assert "refuses (HTTP 500): try again later" in failing(clip="base")

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            monkeypatch.setenv("HF_ENDPOINT", url)
            assert "cannot reach 127.0.0.1" in failing(clip="base")

    def test_a_hub_that_never_answers(self, server: ModelServer) -> None:
        server.hub(hang_after=-1)
        assert "did not answer in time" in failing(clip="base", download_timeout_s=0.2)

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UnavailableError, match=r"pip install 'sam-detect\[models\]'"):
            get(clip="base")

    def test_a_token_goes_to_the_hub_and_not_where_it_redirects_to(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        served = server.hub()
        with running() as store:
            store.files["/blob"] = Served(served.content)
            server.files[HUB_PATH.format(COMMIT)] = Served(
                b"", status=302, headers={"Location": store.url + "/blob"}
            )
            assert get(clip="base").path.read_bytes() == served.content
            assert [each.authorization for each in store.asked] == [None]
        assert {each.authorization for each in server.gets if COMMIT in each.path} == {
            "Bearer hf_secret"
        }


class TestState:
    def of(self, name: str = "sam2.1_hiera_tiny") -> str:
        return next(state(each) for each in known(load_settings()) if each.name == name)

    def test_missing_unfinished_here_damaged(self, server: ModelServer) -> None:
        assert self.of() == "missing"
        server.sam2("tiny", DATA, break_after=[100_000, 0])
        failing()
        assert self.of() == "unfinished"
        get("tiny")
        assert self.of() == "here"
        tiny_path().write_bytes(b"short")
        assert self.of() == "damaged"
        record_path(tiny_path()).write_text("{")
        assert self.of() == "damaged"

    def test_other_clip_weights_that_are_here_are_known(self) -> None:
        path = clip_path(clip_model("base")).parents[2] / "RN50" / "cc12m" / "open_clip_model.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        (path.parent / "notes.json").write_text("{}")
        assert self.of("RN50/cc12m") == "here"


def test_two_threads_that_want_one_file_fetch_it_once(server: ModelServer) -> None:
    served = server.sam2("tiny", DATA, drip_s=0.1)
    done: list[Obtained] = []
    seen = [Seen(), Seen()]
    threads = [threading.Thread(target=lambda s=s: done.append(get("tiny", seen=s))) for s in seen]
    threads[0].start()
    while not server.asked:
        time.sleep(0.005)
    threads[1].start()
    while not seen[1].lines:
        time.sleep(0.005)
    served.drip_s = 0
    for thread in threads:
        thread.join(30)
    assert [each.downloaded for each in done] == [True, False]
    assert len(server.gets) == 1
    assert "another process is getting sam2.1_hiera_tiny: waiting" in seen[1].lines[0]


def test_the_version_of_a_part_is_kept_beside_it(server: ModelServer) -> None:
    server.sam2("tiny", DATA, break_after=[100_000, 0])
    failing()
    version = json.loads(Path(f"{part_path(tiny_path())}.json").read_text())
    assert version == {"url": server.url + TINY, "validator": '"one"', "total": len(DATA)}
