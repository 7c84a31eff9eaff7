"""Downloads by ``huggingface_hub`` from a real server on this machine that breaks, hangs, lies and
refuses."""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants, file_download
from huggingface_hub import try_to_load_from_cache as cached
from model_server import (
    CLIP,
    COMMIT,
    SAFE,
    ModelServer,
    Served,
    content,
    running,
    use_hub,
)

from sam_detect.errors import DownloadError, OutputError, UnavailableError
from sam_detect.models import download
from sam_detect.models.catalogue import sam2_model
from sam_detect.models.download import (
    Obtained,
    Progress,
    is_unfinished,
    models_of,
    obtain,
)
from sam_detect.models.weights import (
    find_weights,
    models_dir,
    require_clip,
    require_sam2,
)

DATA = content()
SHA256 = hashlib.sha256(DATA).hexdigest()
REPOSITORY = "facebook/sam2.1-hiera-tiny"
FILE = "sam2.1_hiera_tiny.pt"
URL = f"/{REPOSITORY}/resolve/{COMMIT}/{FILE}"


class Seen(Progress):
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.downloading: list[tuple[int, int | None]] = []
        self.checking: list[tuple[int, int | None]] = []
        super().__init__(self.lines.append)

    def update(self, what: str, done: int, total: int | None) -> None:
        getattr(self, what).append((done, total))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def _local(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is the server on this machine; blocks are small, and pauses take no time."""
    use_hub(monkeypatch, server.url)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def get(
    sam: str = "tiny", clip: str = "", seen: Seen | None = None, *, offline: bool = False
) -> Obtained:
    """Obtains one model, as the command does."""
    (model,) = models_of([] if clip else [sam], [clip] if clip else [])
    return obtain(model, offline=offline, progress=seen or Seen())


def failing(sam: str = "tiny", clip: str = "", *, offline: bool = False) -> str:
    """The one line of the download's failure."""
    with pytest.raises(DownloadError) as caught:
        get(sam, clip, offline=offline)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def blobs(repository: str = REPOSITORY) -> Path:
    folder = f"models--{repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "blobs"


def partial() -> Path:
    return blobs() / f"{SHA256}{download.PARTIAL}"


def nothing_left() -> bool:
    return find_weights(sam2_model("tiny")) is None and not list(blobs().glob("[!.]*"))


class TestWhole:
    def test_a_checkpoint_comes_into_the_shared_cache(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        seen = Seen()
        done = get(seen=seen)
        assert done.path == require_sam2("tiny").path
        assert str(done.path) == cached(REPOSITORY, FILE), "other programs find it"
        assert done.path.read_bytes() == DATA
        assert (done.downloaded, done.published, done.sha256) == (True, True, SHA256)
        assert [path.name for path in blobs().glob("[!.]*")] == [SHA256]
        assert seen.downloading[-1] == (len(DATA), len(DATA))
        assert seen.downloading == sorted(set(seen.downloading))
        assert seen.checking[-1] == (len(DATA), len(DATA))
        assert "downloading sam2.1_hiera_tiny (1 MB) from 127.0.0.1" in seen.lines[0]

    def test_what_is_here_is_checked_and_not_downloaded_again(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get()
        before, seen = len(server.asked), Seen()
        done = get(seen=seen)
        assert (done.downloaded, done.published) == (False, True)
        assert len(server.asked) == before
        assert seen.lines == []

    def test_what_other_programs_downloaded_is_found(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        theirs = file_download.hf_hub_download(REPOSITORY, FILE)
        before = len(server.asked)
        assert get().path == require_sam2("tiny").path == Path(theirs)
        assert len(server.asked) == before

    def test_a_blob_of_another_program_is_used(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        blobs().mkdir(parents=True)
        (blobs() / SHA256).write_bytes(DATA)
        assert not get().downloaded
        assert server.gets == []

    def test_a_system_without_symbolic_links_keeps_one_copy(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
        server.sam2("tiny", DATA)
        path = get().path
        assert path.read_bytes() == DATA
        assert not path.is_symlink()
        assert not list(blobs().glob("[!.]*"))
        assert not get().downloaded

    def test_a_file_that_the_user_put_here_is_taken(self, server: ModelServer) -> None:
        path = models_dir() / "sam2" / FILE
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        done = get()
        assert (done.path, done.downloaded, done.published) == (path, False, False)
        assert done.sha256 == SHA256
        assert server.asked == []

    def test_a_redirect_is_followed(self, server: ModelServer) -> None:
        served = server.sam2("tiny", DATA)
        redirected = {**served.headers, "Location": server.url + "/elsewhere"}
        server.files[URL] = Served(b"", status=302, headers=redirected)
        server.files["/elsewhere"] = Served(DATA)
        assert get().path.read_bytes() == DATA

    def test_each_file_once_and_both_defaults(self) -> None:
        names = [each.name for each in models_of(["base", "sam2.1_hiera_base_plus.pt"], [])]
        assert names == ["sam2.1_hiera_base_plus"]
        names = [each.name for each in models_of([], [])]
        assert names == ["sam2.1_hiera_base_plus", "ViT-B-32/openai"]

    def test_nothing_is_asked_but_for_the_file(self, server: ModelServer) -> None:
        """No telemetry: no other address, and no list of what is installed."""
        server.sam2("tiny", DATA)
        get()
        assert {each.path.replace("main", COMMIT) for each in server.asked} == {URL}
        assert {"torch" in (each.agent or "") for each in server.asked} == {False}
        assert not constants.HF_HUB_DISABLE_TELEMETRY, "as it was"


class TestBroken:
    def test_a_broken_transfer_is_resumed_where_it_broke(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, break_after=[98_304, 245_760])
        assert get().path.read_bytes() == DATA
        assert [(each.range, each.status) for each in server.gets] == [
            (None, 200),
            ("bytes=98304-", 206),
            ("bytes=344064-", 206),
        ]

    def test_one_that_breaks_for_good_says_so_and_is_continued_by_the_next_command(
        self, server: ModelServer
    ) -> None:
        served = server.sam2("tiny", DATA, break_after=[98_304, *[0] * 40])
        message = failing()
        served.break_after.clear()
        assert "transfer of sam2.1_hiera_tiny.pt from 127.0.0.1" in message
        assert "broke off after 0.1 MB: run the same command again" in message
        assert find_weights(sam2_model("tiny")) is None
        assert is_unfinished(sam2_model("tiny"))
        assert partial().read_bytes() == DATA[:98_304]
        assert get().path.read_bytes() == DATA
        assert server.gets[-1].range == "bytes=98304-"
        assert not is_unfinished(sam2_model("tiny"))

    def test_a_server_without_ranges_is_read_from_the_start(self, server: ModelServer) -> None:
        served = server.sam2("tiny", DATA, break_after=[98_304, *[0] * 40], ranges=False)
        failing()
        served.break_after.clear()
        assert get().path.read_bytes() == DATA
        assert server.gets[-1].status == 200

    def test_another_version_is_not_continued(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA, break_after=[98_304, *[0] * 40])
        failing()
        other = content(seed=5)
        server.sam2("tiny", other)
        assert get().path.read_bytes() == other
        assert server.gets[-1].range is None

    def test_a_part_longer_than_the_file_is_discarded(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        blobs().mkdir(parents=True)
        partial().write_bytes(DATA + b"x")
        assert get().path.read_bytes() == DATA

    def test_a_complete_part_is_put_in_place(self, server: ModelServer) -> None:
        """What a process leaves that is killed between the last byte and the renaming."""
        server.sam2("tiny", DATA)
        blobs().mkdir(parents=True)
        partial().write_bytes(DATA)
        assert get().path.read_bytes() == DATA
        assert server.gets == []

    def test_a_part_with_other_bytes_is_noticed(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        blobs().mkdir(parents=True)
        partial().write_bytes(b"x" * 16_384)
        assert "is not the file: its SHA-256 is" in failing()
        assert nothing_left()
        assert get().path.read_bytes() == DATA


class TestChecked:
    def test_a_damaged_file_is_downloaded_again(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        path = get().path
        path.write_bytes(DATA[:-1] + b"x")
        seen = Seen()
        assert get(seen=seen).downloaded
        assert "is damaged" in seen.lines[0]
        assert path.read_bytes() == DATA

    def test_a_damaged_file_cannot_be_replaced_offline(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get().path.write_bytes(DATA[:-1] + b"x")
        before = len(server.asked)
        message = failing(offline=True)
        assert "is damaged" in message
        assert "SAM_DETECT_OFFLINE" in message
        assert len(server.asked) == before

    def test_other_bytes_than_published_are_refused(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA).content = content(seed=9)
        message = failing()
        assert "is not the file: its SHA-256 is" in message
        assert SHA256 in message
        assert nothing_left()

    @pytest.mark.parametrize("etag", ['"0123"', '"../../evil"', ""])
    def test_a_server_that_publishes_no_sha256_is_no_hub(
        self, server: ModelServer, etag: str
    ) -> None:
        server.sam2("tiny", DATA, etag="").headers["X-Linked-Etag"] = etag
        assert "does not answer as a Hugging Face hub" in failing()
        assert server.gets == []

    def test_a_login_page_is_no_hub(self, server: ModelServer) -> None:
        server.sam2("tiny", b"<html>Log in!</html>").headers = {"Content-Type": "text/html"}
        assert "does the network want a login" in failing()
        assert nothing_left()


class TestRefused:
    def test_no_such_file(self, server: ModelServer) -> None:
        message = failing()
        assert f"{server.url}/{REPOSITORY} has no {FILE} (HTTP 404)" in message
        assert nothing_left()

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_closed_repository(self, server: ModelServer, status: int) -> None:
        server.clip(status=status)
        message = failing(clip="base")
        assert f"is not open to you (HTTP {status})" in message
        assert "HF_TOKEN" in message

    def test_a_server_that_refuses(self, server: ModelServer) -> None:
        server.sam2("tiny", status=500)
        assert "refuses (HTTP 500): try again later" in failing()

    @pytest.mark.parametrize("address", ["nowhere.invalid", ""])
    def test_no_network(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            address = address or f"127.0.0.1:{closed.getsockname()[1]}"
            use_hub(monkeypatch, f"http://{address}")
            message = failing()
        assert f"cannot reach {address}" in message
        assert "docs/models.md" in message

    def test_a_server_that_never_answers(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
        server.sam2("tiny", hang_after=-1)
        message = failing()
        assert "did not answer in time" in message
        assert "HF_HUB_ETAG_TIMEOUT" in message

    def test_a_server_that_falls_silent(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        served = server.sam2("tiny", DATA, hang_after=0)
        assert "did not answer in time" in failing()
        served.hang_after = None
        assert get().path.read_bytes() == DATA

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UnavailableError, match=r"pip install 'sam-detect\[models\]'"):
            get()


class TestSpace:
    Usage = namedtuple("Usage", "total used free")

    def test_space_is_looked_for_before(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA)
        usage = self.Usage(10**9, 0, download.SPARE_BYTES + len(DATA) - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        message = failing()
        assert "no space in" in message
        assert "HF_HOME" in message
        assert nothing_left()
        usage = usage._replace(free=usage.free + 1)
        assert get().path.read_bytes() == DATA

    def test_only_what_is_missing_needs_space(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA)
        blobs().mkdir(parents=True)
        partial().write_bytes(DATA[:500_000])
        usage = self.Usage(10**9, 0, download.SPARE_BYTES + 100_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        assert get().path.read_bytes() == DATA

    def test_a_disk_that_fills_up_keeps_what_came(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.sam2("tiny", DATA)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(download, "sha256_of", full)
        assert "the disk is full; what came is kept" in failing()
        assert partial().stat().st_size == len(DATA)
        assert find_weights(sam2_model("tiny")) is None

    def test_a_folder_that_cannot_be_made(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        blobs().parent.write_bytes(b"a file")
        with pytest.raises(OutputError, match=r"cannot write into .*HF_HOME"):
            get()


class TestOffline:
    @pytest.mark.parametrize("how", ["SAM_DETECT_OFFLINE", "HF_HUB_OFFLINE"])
    def test_nothing_is_asked(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        server.sam2("tiny", DATA)
        if how == "HF_HUB_OFFLINE":
            monkeypatch.setattr(constants, how, True)
        message = failing(offline=how == "SAM_DETECT_OFFLINE")
        assert server.asked == []
        for words in (
            "sam2.1_hiera_tiny is not on this machine",
            how,
            f"put {FILE} from https://huggingface.co/{REPOSITORY}/resolve/main/{FILE}",
            str(models_dir() / "sam2"),
            "'naive' needs no model",
        ):
            assert words in message

    def test_what_is_here_is_still_checked(self, server: ModelServer) -> None:
        server.sam2("tiny", DATA)
        get()
        assert not get(offline=True).downloaded

    def test_a_clip_model_says_where_it_is_on_the_hub(self) -> None:
        message = failing(clip="base", offline=True)
        assert f"{SAFE} from https://huggingface.co/{CLIP}/" in message
        assert "'appearance' needs no model" in message


class TestClip:
    def test_weights_are_found_by_name(self, server: ModelServer) -> None:
        data = server.clip().content
        done = get(clip="base")
        assert done.path == require_clip("base").path
        assert done.path.read_bytes() == data

    def test_the_old_format_if_there_is_no_safe_one(self, server: ModelServer) -> None:
        server.clip("open_clip_pytorch_model.bin")
        assert get(clip="base").path.name == "open_clip_pytorch_model.bin"
        assert require_clip("base").path.name == "open_clip_pytorch_model.bin"
        assert not get(clip="base").downloaded

    def test_nothing_there(self) -> None:
        message = failing(clip="base")
        assert "open_clip_model.safetensors or open_clip_pytorch_model.bin (HTTP 404)" in message

    def test_a_token_goes_to_the_hub_and_not_where_it_redirects_to(
        self, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        served = server.clip()
        with running() as store:
            store.files["/blob"] = Served(served.content)
            for revision in ("main", COMMIT):
                server.files[f"/{CLIP}/resolve/{revision}/{SAFE}"] = Served(
                    b"", status=302, headers={**served.headers, "Location": f"{store.url}/blob"}
                )
            assert get(clip="base").path.read_bytes() == served.content
            assert [each.authorization for each in store.asked] == [None]
        assert {each.authorization for each in server.asked} == {"Bearer hf_secret"}


def test_two_threads_that_want_one_file_download_it_once(server: ModelServer) -> None:
    served = server.sam2("tiny", DATA, drip_s=0.1)
    done: list[Obtained] = []
    seen = [Seen(), Seen()]
    threads = [threading.Thread(target=lambda s=s: done.append(get(seen=s))) for s in seen]
    threads[0].start()
    while not server.gets:
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
