"""A library that may only be read: of another user, or on a disk that is read-only."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import DISCS, Measured, box_around, drawn, measured, saved

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
    """Root without the rights by which it passes permissions; anybody else as they are.

    Another uid could not read the interpreter of this environment.
    """
    if os.geteuid() == 0:
        for capability in (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def protect(folder: Path, *, folders: bool = True) -> None:
    """Gives all of a folder to somebody else, to be read by everybody and written by nobody."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not folders:
            continue
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose library ``nuts`` has five examples and may only be read."""
    home = tmp_path / "home"
    picture = saved(tmp_path / "a.png")
    boxes = [part for x, y in DISCS for part in ("--box", box_around(x, y))]
    env = {"SAM_DETECT_HOME": str(home)}
    measured("learn", picture, "--label", "disc", *boxes, "--library", "nuts", env=env).worked()
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
    env = {"SAM_DETECT_HOME": str(home), "TMPDIR": str(spare)}
    there = ("--library", "nuts")

    def run(*arguments: str | Path) -> Measured:
        return measured(*arguments, env=env, before=as_another_user)

    assert run("library", "stats", "--json", *there).worked().json[0]["examples"] == 5
    assert len(run("library", "list", "--json", *there).worked().json) == 5
    listed = run("library", "list", "--json").worked().json[0]["libraries"]
    assert [row["examples"] for row in listed] == [5]
    an_id = run("library", "list", "--json", *there).json[0]["id"]
    crop = tmp_path / "crop.png"
    run("library", "show", an_id, "--output", crop, *there).worked()
    assert crop.exists()
    run("library", "export", tmp_path / "nuts.zip", *there).worked()
    found = run("detect", tmp_path / "a.png", "--json", *there).worked().json[0]["detections"]
    assert [each["label"] for each in found].count("disc") == 5

    for change in (
        ["learn", tmp_path / "a.png", "--label", "b", "--box", box_around(140, 140)],
        ["library", "rename", "disc", "b"],
        ["library", "remove", an_id],
        ["library", "reindex", "--fade", "linear", "--max-distance", "50"],
    ):
        line = run(*change, *there).failed(code=1)
        assert "permissions" in line
        assert "damaged" not in line
    assert contents(home / "libraries") == before
    assert list(spare.iterdir()) == []


def test_a_library_whose_files_alone_may_only_be_read(home: Path, tmp_path: Path) -> None:
    """Nothing is written into the copy, where it would be lost."""
    protect(home, folders=False)
    before = contents(home / "libraries")
    given = {"env": {"SAM_DETECT_HOME": str(home)}, "before": as_another_user}
    stats = measured("library", "stats", "--json", "--library", "nuts", **given)
    assert stats.worked().json[0]["examples"] == 5
    picture, box = tmp_path / "a.png", box_around(140, 140)
    ran = measured("learn", picture, "--label", "b", "--box", box, "--library", "nuts", **given)
    ran.failed("permissions", code=1)
    assert contents(home / "libraries") == before


def test_a_library_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    picture = saved(tmp_path / "a.png")
    env = {"SAM_DETECT_HOME": str(home)}
    measured("learn", picture, "--label", "disc", "--box", box_around(40, 40), env=env).worked()
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

    stats = measured("library", "stats", "--json", env=env, before=mounted_read_only)
    if stats.code == 77:
        pytest.skip("this user may not mount anything")
    assert stats.worked().json[0]["examples"] == 1
    found = measured("detect", picture, "--json", env=env, before=mounted_read_only).worked()
    assert found.json[0]["detections"][0]["label"] == "disc"
    learnt = measured("learn", picture, "--label", "b", "--box", box_around(120, 50), env=env,
                      before=mounted_read_only)  # fmt: skip
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
