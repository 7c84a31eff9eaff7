"""Where memory ends: one line that says so, never damage, never a wait without end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import Command, box_around, in_this_process, measured, saved

from sam_detect import SAMDetect
from sam_detect.errors import StoreError
from sam_detect.io import decoding
from sam_detect.types import Point
from sam_detect.vector_store import QdrantVectorStore

resource = pytest.importorskip("resource")
LIMITS_MB = (200, 300, 350, 400, 450, 500, 600, 700, 780, 850, 950, 1200, 2000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    saved(tmp_path / "a.png")
    env = {"SAM_DETECT_HOME": str(tmp_path / "home")}
    box = box_around(40, 40)
    measured("learn", tmp_path / "a.png", "--label", "a", "--box", box, env=env).worked()
    return tmp_path / "home"


@pytest.mark.alone
@pytest.mark.parametrize("command", ["stats", "detect", "learn", "export"])
def test_little_memory_is_one_line_and_no_damage(home: Path, tmp_path: Path, command: str) -> None:
    picture = tmp_path / "a.png"
    given = {
        "stats": ["library", "stats"],
        "detect": ["detect", picture, "--segmenter", "naive"],
        "learn": ["learn", picture, "--label", "b", "--box", box_around(120, 50)],
        "export": ["library", "export", tmp_path / "a.zip"],
    }[command]
    env = {"SAM_DETECT_HOME": str(home)}
    few = (500, 780, 950, 2000)
    limits = {"detect": LIMITS_MB, "stats": LIMITS_MB[::2]}.get(command, few)
    worked = []
    for limit_mb in limits:
        limit = limit_mb << 20

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        ran = measured(*given, env=env, before=limited, timeout=30).within(seconds=20)
        assert "damaged" not in ran.err
        assert "bug" not in ran.err
        if ran.code == 0:
            worked.append(limit_mb)
        else:
            assert "memory" in ran.failed(code=1), limit_mb
    assert worked[-1] == LIMITS_MB[-1]
    stats = measured("library", "stats", "--json", env=env).worked().json[0]
    assert stats["examples"] == (2 if command == "learn" else 1)


def test_a_picture_that_does_not_fit_is_not_damaged(
    sam: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    saved(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "_upright", full)
    line = sam("detect", tmp_path / "a.png").failed("does not fit into memory", code=1)
    assert "damaged" not in line


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("libopenblas.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to"),
    ],
    ids=repr,
)
def test_every_lack_of_memory_is_the_same_line(
    sam: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    saved(tmp_path / "a.png")
    monkeypatch.setattr("sam_detect.pipeline.flow.Pipeline.detect", fail)
    assert "bug" not in sam("detect", tmp_path / "a.png").failed("out of memory", code=1)


ENGINE_SAYS = [
    "Service runtime error: Out of memory, free: 22562512896, IO Error: Cannot allocate memory",
    "failed to build edge edge-search thread pool: Resource temporarily unavailable (os error 11)",
]


@pytest.mark.parametrize("text", ENGINE_SAYS)
def test_an_engine_without_memory_is_no_damaged_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    from sam_detect.vector_store import _engine

    store = QdrantVectorStore(path=tmp_path)
    detector = SAMDetect(embedder="average", vector_store=store)
    detector.add_example(np.full((40, 40, 3), 90, np.uint8), "a")

    class EdgeShard:
        @staticmethod
        def load(_: str) -> None:
            raise Exception(text)

    monkeypatch.setattr(_engine.edge, "EdgeShard", EdgeShard)
    with pytest.raises(StoreError, match="not enough memory"):
        store.count()


def test_a_large_library_that_does_not_fit_is_not_damaged(tmp_path: Path) -> None:
    """A sound library of one example, whose files are as long as those of thousands: a hole, which
    takes no disk. Its path is long, too: the engine's sentences begin with it."""
    home = tmp_path / ("a-folder-with-a-long-name-" * 7) / "home"
    saved(tmp_path / "a.png")
    given = "learn", tmp_path / "a.png", "--label", "a", "--box", box_around(40, 40)
    env = {"SAM_DETECT_HOME": str(home)}
    place = "--library", "nuts"
    measured(*given, *place, "--embedder", "average", env=env).worked()
    [page] = home.glob("libraries/nuts/shard-*/segments/*/payload_storage/page_0.dat")
    os.truncate(page, 1 << 30)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1200 << 20, 1200 << 20))

    for command in (["stats"], ["verify"], ["repair"], ["export", tmp_path / "a.zip"]):
        ran = measured("library", *command, *place, env=env, before=limited)
        line = ran.failed("not enough memory", "ulimit -v", code=1)
        assert not any(word in line for word in ("damaged", "remove", "repair"))
    measured("library", "verify", *place, env=env).worked()


@pytest.mark.parametrize(
    "text",
    [
        "failed to open WAL x: Os { code: 24, kind: TooManyOpenFiles, message: ...",
        "failed to load segment x: Operation not permitted (os error 1)",
        "failed to load segment x: Input/output error (os error 5)",
        f"failed to load segment {'x' * 300}: Cannot allocate memory (os error 12)",
        f"failed to load segment {'x' * 300}: Permission denied (os error 13)",
        f"failed to load segment {'x' * 300}: Disk quota exceeded (os error 122)",
    ],
)
@pytest.mark.parametrize("reads", ["count", "verify", "repair"])
def test_what_the_system_refuses_is_no_damage_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reads: str
) -> None:
    from sam_detect.library.integrity import repair, verify
    from sam_detect.vector_store import _engine

    store = QdrantVectorStore(path=tmp_path)
    detector = SAMDetect(embedder="average", vector_store=store)
    detector.add_example(np.full((40, 40, 3), 90, np.uint8), "a")
    library = detector.library
    with monkeypatch.context() as patched:

        class EdgeShard:
            @staticmethod
            def load(_: str) -> None:
                raise Exception(text)

        patched.setattr(_engine.edge, "EdgeShard", EdgeShard)
        read = {"count": store.count, "verify": verify, "repair": repair}[reads]
        with pytest.raises(StoreError) as caught:
            read() if reads == "count" else read(library)  # type: ignore[operator, call-arg]
    assert not any(word in str(caught.value) for word in ("damaged", "remove", "repair"))
    assert verify(library).sound


def test_a_store_that_cannot_be_read_for_now_loses_no_example() -> None:
    """A repair takes nothing for damaged because it could not be asked for."""
    from library_helpers import taught

    from sam_detect.library.integrity import repair
    from sam_detect.vector_store import MemoryVectorStore

    class Failing(MemoryVectorStore):
        fails = False

        def scan(self, ids: Sequence[str] | None = None, **options: Any) -> Iterator[Point]:
            if self.fails and ids:
                raise StoreError("too many open files")
            return super().scan(ids, **options)

    store = Failing()
    library = taught(store).library
    store.fails = True
    with pytest.raises(StoreError, match="open files"):
        repair(library)
    store.fails = False
    assert len(library) == 10
