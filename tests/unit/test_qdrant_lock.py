"""The lock of an embedded library: fair, patient for as long as asked, and tidy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from sam_detect.errors import LibraryBusyError
from sam_detect.vector_store._access import LibraryLock
from sam_detect.vector_store._files import LibraryFiles, State


@pytest.fixture
def files(tmp_path: Path) -> LibraryFiles:
    made = LibraryFiles(tmp_path / "libraries" / "nuts")
    made.directory.mkdir(parents=True)
    made.write_state(State())
    return made


@pytest.mark.alone
def test_who_takes_the_lock_again_and_again_cannot_overtake(files: LibraryFiles) -> None:
    greedy, waiting = LibraryLock(files, 10), LibraryLock(files, 10)
    stop, rounds = threading.Event(), [0]

    def take_again_and_again() -> None:
        while not stop.is_set():
            greedy.acquire()
            rounds[0] += 1
            time.sleep(0.03)
            greedy.release()

    thread = threading.Thread(target=take_again_and_again)
    thread.start()
    try:
        for _ in range(10):
            time.sleep(0.01)
            before = rounds[0]
            waiting.acquire()
            # The round under way when it began to wait, and one that had passed the turnstile.
            assert rounds[0] - before <= 2
            waiting.release()
    finally:
        stop.set()
        thread.join()


@pytest.mark.alone
def test_it_waits_as_long_as_asked_and_not_longer(files: LibraryFiles) -> None:
    holder, patient = LibraryLock(files, 1), LibraryLock(files, 0.2)
    holder.acquire()
    began = time.monotonic()
    with pytest.raises(LibraryBusyError, match=r"0\.2 s"):
        patient.acquire()
    assert 0.15 < time.monotonic() - began < 2
    holder.release()
    patient.acquire()
    patient.release()


def test_without_a_library_nothing_stays(tmp_path: Path) -> None:
    files = LibraryFiles(tmp_path / "home" / "libraries" / "nuts")
    lock = LibraryLock(files, 1)
    lock.acquire()
    assert files.directory.is_dir()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_also_while_the_directory_comes_and_goes(tmp_path: Path) -> None:
    files = LibraryFiles(tmp_path / "home" / "nuts")
    inside, most, finished = [0], [0], [0]

    def come_and_go() -> None:
        lock = LibraryLock(files, 30)
        for _ in range(40):
            lock.acquire()
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1
            lock.release()
        finished[0] += 1

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, finished) == ([1], [4])
    assert not files.directory.exists()


def test_a_directory_that_comes_and_goes_is_never_taken_for_a_file(tmp_path: Path) -> None:
    files = LibraryFiles(tmp_path / "home" / "nuts")
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            files.directory.mkdir(parents=True)
            files.directory.rmdir()
            files.directory.parent.rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert not any(files.exists() for _ in range(5_000))
    finally:
        done.set()
        thread.join()
