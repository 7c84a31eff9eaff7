"""A library that may only be read: of another user, or on a disk that is read-only."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cli_harness import DISCS, Ran, box_around, drawn, in_this_process, saved

from sam_detect import SAMDetect
from sam_detect.errors import StoreError
from sam_detect.vector_store import QdrantVectorStore

NOBODY = 65534
PR_CAPBSET_DROP = 24
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = range(4)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="permissions and capabilities of Linux"
)


def as_another_user() -> None:
    """Root without the rights by which it passes permissions; any other user as they are.

    Another uid could not read the interpreter of this environment.
    """
    if os.geteuid() == 0:
        for capability in (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


CHILD = """
import contextlib, io, json, sys
from sam_detect.cli.app import run
ran = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(
        io.StringIO()
    ) as err:
        code = run(words)
    ran.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(ran))
"""


def run_each(
    *commands: Sequence[str | Path], before: Callable[[], None], **env: str | Path
) -> list[Ran]:
    """Runs commands one after the other in one new process; exit code 77 skips the test.

    Args:
        before: runs in the new process before them.
        env: variables to set.
    """
    lines = json.dumps([[str(word) for word in words] for words in commands])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, lines], capture_output=True, text=True, check=False,
        env={**os.environ, **{k: str(v) for k, v in env.items()}},
        preexec_fn=before,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this user may not mount anything")
    assert done.returncode == 0, done.stderr
    return [Ran(*each) for each in json.loads(done.stdout)]


def protect(folder: Path, *, folders: bool = True) -> None:
    """Gives all of a folder to another user, to be read by all and written by none."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not folders:
            continue
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Path]:
    """A home whose library ``nuts`` has five examples."""
    home = tmp_path / "home"
    picture = saved(tmp_path / "a.png")
    boxes = [part for x, y in DISCS for part in ("--box", box_around(x, y))]
    monkeypatch.setenv("SAM_DETECT_HOME", str(home))
    learn = ("learn", picture, "--label", "disc", *boxes, "--library", "nuts")
    in_this_process(capfd)(*learn).worked()
    yield home
    for path in (home, *home.rglob("*")):
        path.chmod(0o700)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_library_that_may_only_be_read_is_read(home: Path, tmp_path: Path) -> None:
    protect(home)
    before = contents(home / "libraries")
    spare = tmp_path / "spare"
    spare.mkdir()
    there = ("--library", "nuts")
    stats, examples, libraries, exported, detected = run_each(
        ["library", "stats", "--json", *there],
        ["library", "list", "--json", *there],
        ["library", "list", "--json"],
        ["library", "export", tmp_path / "nuts.zip", *there],
        ["detect", tmp_path / "a.png", "--json", *there],
        before=as_another_user,
        TMPDIR=spare,
    )
    assert stats.worked().json[0]["examples"] == len(examples.worked().json) == 5
    assert [row["examples"] for row in libraries.worked().json[0]["libraries"]] == [5]
    exported.worked()
    found = detected.worked().json[0]["detections"]
    assert [each["label"] for each in found].count("disc") == 5

    an_id, crop = examples.json[0]["id"], tmp_path / "crop.png"
    shown, *changes = run_each(
        ["library", "show", an_id, "--output", crop, *there],
        ["learn", tmp_path / "a.png", "--label", "b", "--box", box_around(140, 140), *there],
        ["library", "rename", "disc", "b", *there],
        ["library", "remove", an_id, *there],
        ["library", "reindex", "--fade", "linear", "--max-distance", "50", *there],
        before=as_another_user,
        TMPDIR=spare,
    )
    shown.worked()
    assert crop.exists()
    for change in changes:
        line = change.failed(code=1)
        assert "permissions" in line
        assert "damaged" not in line
    assert contents(home / "libraries") == before
    assert list(spare.iterdir()) == []


def test_a_library_whose_files_alone_may_only_be_read(home: Path, tmp_path: Path) -> None:
    """Nothing is written into the copy, where it would be lost."""
    protect(home, folders=False)
    before = contents(home / "libraries")
    picture, box = tmp_path / "a.png", box_around(140, 140)
    stats, learnt = run_each(
        ["library", "stats", "--json", "--library", "nuts"],
        ["learn", picture, "--label", "b", "--box", box, "--library", "nuts"],
        before=as_another_user,
    )
    assert stats.worked().json[0]["examples"] == 5
    learnt.failed("permissions", code=1)
    assert contents(home / "libraries") == before


def test_a_library_on_a_disk_that_is_read_only(home: Path, tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def mounted_read_only() -> None:
        place = str(home).encode()
        new_mounts, bind, remount, read_only, private = 0x20000, 0x1000, 0x20, 1, 0x44000
        done = (
            libc.unshare(new_mounts)
            or libc.mount(b"none", b"/", None, private, None)
            or libc.mount(place, place, None, bind, None)
            or libc.mount(b"none", place, None, bind | remount | read_only, None)
        )
        if done:
            os._exit(77)

    picture, there = tmp_path / "a.png", ("--library", "nuts")
    stats, found, learnt = run_each(
        ["library", "stats", "--json", *there],
        ["detect", picture, "--json", *there],
        ["learn", picture, "--label", "b", "--box", box_around(140, 140), *there],
        before=mounted_read_only,
    )
    assert stats.worked().json[0]["examples"] == 5
    assert found.worked().json[0]["detections"][0]["label"] == "disc"
    assert "Read-only file system" in learnt.failed(code=1)


def test_a_reader_sees_what_a_writer_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that may only read, beside one that may write."""
    writer = SAMDetect(embedder="average", vector_store=QdrantVectorStore(path=tmp_path))
    image = drawn()[..., ::-1]

    def learn(number: int) -> None:
        x, y, side = *DISCS[number], 20
        writer.learn_frame(
            frame := writer.read(image),
            writer.outline(frame, [[x - side, y - side, 2 * side, 2 * side]]),
            ["disc"],
        )

    learn(0)
    reader = QdrantVectorStore(path=tmp_path)
    held = reader._store._held  # type: ignore[attr-defined]
    monkeypatch.setattr(held._files, "may_be_written", lambda: False)
    assert reader.count() == 1
    folder = held._copy._folder
    assert reader.count() == 1
    assert held._copy._folder == folder, "the copy is kept while nothing changes"
    learn(1)
    assert reader.count() == 2
    assert not folder.exists(), "the old copy is gone"
    with pytest.raises(StoreError, match="may only be read"):
        reader.write_manifest({})
    with pytest.raises(StoreError, match="may only be read"):
        reader.destroy()
    assert writer.library.store.count() == 2


def test_without_room_for_the_copy_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = QdrantVectorStore(path=tmp_path / "here")
    SAMDetect(embedder="average", vector_store=store).add_example(drawn(), "disc")
    monkeypatch.setattr(
        "sam_detect.vector_store._files.LibraryFiles.may_be_written", lambda _: False
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"may only be read.*TMPDIR"):
        QdrantVectorStore(path=tmp_path / "here").count()
