"""Many pictures, one after the other or by several processes; the results come in their order.

Processes and no threads: most of the time goes to short calls from Python, which threads make one
at a time. Each worker is a process with a pipeline of its own. It is no fork, since the libraries
underneath have threads, and no child of ``multiprocessing``, which would import the user's script
again. A worker ends when its pipe does, so none outlives a process that was killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from sam_detect.config import Settings
from sam_detect.errors import (
    ConfigError,
    ImageError,
    RecipeMismatchError,
    SamDetectError,
    UnavailableError,
    one_line,
)
from sam_detect.models.catalogue import made_with_weights
from sam_detect.pipeline import Pipeline
from sam_detect.registry import BUILT_IN
from sam_detect.sources import to_frame
from sam_detect.tiling import usable_cores
from sam_detect.types import Detections, Frame, Point, Recipe
from sam_detect.vector_store.memory import MemoryVectorStore

START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]; "
    "from sam_detect.batch import work; work()"
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""By which the libraries of a worker are told how many threads to take."""
AHEAD = 2
"""Pictures for each worker that are worked on or wait for their turn: a bound for memory."""
FEWEST_EACH = 4
"""Pictures from which on a worker is worth its start of about two seconds."""
MOST_DEATHS = 3
"""Workers that may die one after the other, with no picture done in between."""
END_S = 2.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one picture: ``frame`` and ``detections``, or ``error``."""

    frame: Frame | None = None
    detections: Detections | None = None
    error: Exception | None = None

    def get(self) -> tuple[Frame, Detections]:
        """The picture and its detections; raises what went wrong instead."""
        if self.frame is None or self.detections is None:
            raise self.error or ImageError("nothing is known of this picture")
        return self.frame, self.detections


Outcomes = Generator[Outcome, None, None]


@runtime_checkable
class FrameEncoding(Protocol):
    """A segmenter whose model encodes several frames in less time than one by one."""

    @property
    def frames_at_once(self) -> int: ...

    def encode_together(self, frames: Sequence[Frame]) -> None:
        """Encodes frames that :meth:`segment` is given next."""


def default_workers(pipeline: Pipeline, pictures: int) -> int:
    """As many workers as there are cores, fewer for few pictures. One for a model that takes the
    cores or a GPU by itself, and for parts of others, of which this is not known."""
    light = (
        pipeline.segmenter_name == "naive"
        and pipeline.recipe.embedder in BUILT_IN["embedder"]
        and not made_with_weights(pipeline.recipe)
    )
    return max(1, min(usable_cores(), pictures // FEWEST_EACH)) if light else 1


def detect_many(
    pipeline: Pipeline,
    settings: Settings,
    given: Mapping[str, Any],
    pictures: Iterable[Any],
    *,
    workers: int = 1,
) -> Outcomes:
    """Detects in pictures; what fails of one of them does not stop the others.

    Args:
        pipeline: detects, and is what each worker makes again for itself.
        settings, given: of :meth:`~sam_detect.pipeline.Pipeline.from_settings`.
        pictures: as :func:`~sam_detect.sources.to_frame` takes them.
        workers: processes; 1 works in this one.

    Returns:
        One :class:`Outcome` for each picture, in their order. Close it to stop early. At most
        :data:`AHEAD` pictures for each worker are held.

    Raises:
        ConfigError: fewer than one worker, or a part that cannot be sent to another process.
        UnavailableError: workers end before they do anything.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    reader = _Reader(settings)
    if workers == 1:
        return _one_by_one(pipeline, reader, pictures)
    return _in_processes(_Setup.of(pipeline, settings, given), reader, pictures, workers)


@dataclass(frozen=True)
class _Reader:
    """Reads pictures as settings say."""

    settings: Settings

    def __call__(self, picture: Any) -> Frame:
        order, most = self.settings.color_order, self.settings.max_image_pixels
        return to_frame(picture, color_order=order, max_pixels=most)


def _one_by_one(pipeline: Pipeline, read: _Reader, pictures: Iterable[Any]) -> Outcomes:
    segmenter = pipeline.segmenter
    encoding = segmenter if isinstance(segmenter, FrameEncoding) else None
    waiting = iter(pictures)
    while group := list(islice(waiting, encoding.frames_at_once if encoding else 1)):
        outcomes = [_attempt(lambda p: Outcome(read(p)), picture) for picture in group]
        frames = [each.frame for each in outcomes if each.frame is not None]
        if encoding and len(frames) > 1:
            encoding.encode_together(frames)
        for each in outcomes:
            yield _detected(pipeline, each)


def _detected(pipeline: Pipeline, read: Outcome) -> Outcome:
    """A picture that was read, with its detections."""
    if read.frame is None:
        return read
    return _attempt(lambda frame: Outcome(frame, pipeline.detect(frame)), read.frame)


def _attempt(work: Callable[[Any], Outcome], picture: Any) -> Outcome:
    try:
        return work(picture)
    except Exception as error:  # raised where the outcome is taken
        return Outcome(error=error)


# -- workers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Setup:
    """From what a worker makes the same pipeline.

    Attributes:
        settings, given: of ``Pipeline.from_settings``; without the store.
        contents: the manifest and the points of a library in memory; None for one that the settings
            name, which a worker opens itself.
        recipe: that the worker's pipeline must have.
    """

    settings: Settings
    given: dict[str, Any]
    contents: tuple[dict[str, Any] | None, list[Point]] | None
    recipe: Recipe

    @classmethod
    def of(cls, pipeline: Pipeline, settings: Settings, given: Mapping[str, Any]) -> _Setup:
        store = pipeline.library.store
        contents = None
        if isinstance(store, MemoryVectorStore):
            with store.session():
                contents = store.read_manifest(), list(store.scan(with_vectors=True))
        elif "store" in given:
            raise ConfigError("a vector store given as an object cannot be used with several "
                              "workers: name it, or take one worker")  # fmt: skip
        given = {room: part for room, part in given.items() if room != "store"}
        if "segmenter" not in given and settings.segmenter == "auto":
            settings = settings.model_copy(update={"segmenter": pipeline.segmenter_name})
        return cls(settings, given, contents, pipeline.recipe)

    def make(self) -> Pipeline:
        """The pipeline.

        Raises:
            RecipeMismatchError: the library was given another recipe meanwhile.
        """
        given = dict(self.given)
        if self.contents is not None:
            manifest, points = self.contents
            given["store"] = store = MemoryVectorStore()
            if manifest is not None:
                store.replace_all(points, manifest)
        pipeline = Pipeline.from_settings(self.settings, given)
        if pipeline.recipe != self.recipe:
            raise RecipeMismatchError(
                "another process gave the library another recipe meanwhile; try again"
            )
        return pipeline


def _in_processes(setup: _Setup, read: _Reader, pictures: Iterable[Any], workers: int) -> Outcomes:
    with _Pool(setup, workers) as pool, ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[Outcome]] = deque()
        try:
            for picture in pictures:
                waiting.append(threads.submit(pool.detect, picture, read))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
            pool.stop(at_once=bool(waiting))


class _Pool:
    """The workers of a run, of which each is asked by one thread at a time."""

    def __init__(self, setup: _Setup, workers: int) -> None:
        try:
            self._setup = pickle.dumps(setup, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # of the user's own classes: anything
            raise ConfigError(
                f"a part of this detector cannot be sent to another process ({one_line(error)}): "
                "take one worker"
            ) from error
        self._threads = str(max(1, usable_cores() // workers))
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._deaths = 0
        self._count = workers

    def __enter__(self) -> _Pool:
        for _ in range(self._count):
            self._idle.put(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(at_once=True)

    def _start(self) -> _Worker:
        worker = _Worker(self._setup, self._threads)
        with self._lock:
            self._workers.append(worker)
        return worker

    def detect(self, picture: Any, read: _Reader) -> Outcome:
        """What a worker makes of a picture. Files are read by the worker."""
        if not isinstance(picture, (str, os.PathLike)):
            outcome = _attempt(lambda p: Outcome(read(p)), picture)
            if outcome.frame is None:
                return outcome
            picture = outcome.frame
        worker = self._idle.get()
        try:
            answer, warned = worker.ask(picture)
            self._deaths = 0
        except (EOFError, OSError, pickle.UnpicklingError):
            worker = self._replaced(worker)
            name = picture.source_id if isinstance(picture, Frame) else os.fspath(picture)
            ended = "the process that worked on it ended (out of memory?)"
            return Outcome(error=ImageError(f"'{name}': {ended}; try it with one worker"))
        finally:
            self._idle.put(worker)
        for message, category in warned:
            warnings.warn(message, category, stacklevel=2)
        return answer

    def _replaced(self, dead: _Worker) -> _Worker:
        dead.stop(at_once=True)
        with self._lock:
            if self._stopped:
                raise UnavailableError("the run was stopped")
            self._workers.remove(dead)
            self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise UnavailableError(
                f"{self._deaths} workers ended one after the other: take fewer (is there enough "
                "memory?), or one"
            )
        return self._start()

    def stop(self, *, at_once: bool) -> None:
        """Ends the workers; those that work are killed, or awaited for a short time."""
        with self._lock:
            self._stopped = True
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop(at_once=at_once)


class _Worker:
    """One process that detects; raises ``EOFError`` or ``OSError`` once it ended."""

    def __init__(self, setup: bytes, threads: str) -> None:
        environment = {**dict.fromkeys(THREAD_VARIABLES, threads), **os.environ}
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            # Isolated: a file in the folder of the pictures must not be imported.
            [sys.executable, "-I", "-c", START, *(path or os.getcwd() for path in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the process that asked
        )
        self._jobs = cast("BinaryIO", self._process.stdin)
        self._answers = cast("BinaryIO", self._process.stdout)
        with contextlib.suppress(OSError):  # it ended: noticed by the first picture
            self._send(setup)

    def ask(self, picture: Any) -> tuple[Outcome, list[tuple[str, type[Warning]]]]:
        self._send(picture)
        answer: tuple[Outcome, list[tuple[str, type[Warning]]]] = _received(self._answers)
        return answer

    def _send(self, job: Any) -> None:
        pickle.dump(job, self._jobs, pickle.HIGHEST_PROTOCOL)
        self._jobs.flush()

    def stop(self, *, at_once: bool) -> None:
        if at_once:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._jobs.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def work() -> None:
    """The life of a worker: a setup and then pictures on its standard input, answers on its
    standard output. What a part prints goes to the standard error."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, received), daemon=True).start()
    made = _attempt_setup(received.get())
    while True:
        picture = received.get()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            outcome = made if isinstance(made, Outcome) else _work_on(picture, *made)
        warned = [(str(w.message), w.category) for w in caught
                  if issubclass(w.category, UserWarning)]  # fmt: skip
        answers.write(_sent(outcome, warned))
        answers.flush()


def _receive(jobs: BinaryIO, received: queue.SimpleQueue[Any]) -> None:
    """Reads what is sent, and ends this process once the one that sends is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            received.put(_received(jobs))
    os._exit(0)


def _attempt_setup(sent: bytes) -> tuple[Pipeline, _Reader] | Outcome:
    """The pipeline and the reader of a setup; or the error that each picture then has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said where the setup was made
        try:
            setup: _Setup = _received(io.BytesIO(sent))
            return setup.make(), _Reader(setup.settings)
        except SamDetectError as error:
            return Outcome(error=error)
        except Exception as error:  # of the user's own classes: anything
            said = f"a part of this detector cannot be made in another process ({one_line(error)})"
            return Outcome(error=ConfigError(f"{said}: take one worker"))


def _work_on(picture: Any, pipeline: Pipeline, read: _Reader) -> Outcome:
    return _detected(pipeline, _attempt(lambda p: Outcome(read(p)), picture))


def _received(pipe: BinaryIO) -> Any:
    """The next object of a pipe between this program's own processes."""
    return pickle.load(pipe)  # noqa: S301 - nobody else writes to it


def _sent(outcome: Outcome, warned: Sequence[tuple[str, type[Warning]]]) -> bytes:
    """An answer as bytes; an error that cannot be sent is told by its message."""
    try:
        data = pickle.dumps((outcome, warned), pickle.HIGHEST_PROTOCOL)
        if outcome.error is not None:
            _received(io.BytesIO(data))
    except Exception:
        told = SamDetectError(one_line(outcome.error or ValueError("no answer can be sent")))
        data = pickle.dumps((Outcome(error=told), []), pickle.HIGHEST_PROTOCOL)
    return data
