"""Work for several processes, in order.

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
from typing import Any, BinaryIO, Generic, Protocol, TypeVar, cast

from sam_detect.config import Settings
from sam_detect.errors import (
    ConfigError,
    ImageError,
    RecipeMismatchError,
    SamDetectError,
    UnavailableError,
    one_line,
)
from sam_detect.io import to_frame
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.tiling import usable_cores
from sam_detect.types import Frame, Point, Recipe
from sam_detect.vector_store.memory import MemoryVectorStore

START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]; "
    "from sam_detect.pipeline.workers import work; work()"
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""By which the libraries of a worker are told how many threads to take."""
AHEAD = 2
"""Pictures for each worker that are worked on or wait for their turn: a bound for memory."""
MOST_DEATHS = 3
"""Workers that may die one after the other, with no picture done in between."""
END_S = 2.0

Item = TypeVar("Item")
Value = TypeVar("Value")
Made_co = TypeVar("Made_co", covariant=True)


@dataclass(frozen=True)
class Reader:
    """Reads pictures as settings say."""

    settings: Settings

    def __call__(self, picture: Any) -> Frame:
        order, most = self.settings.color_order, self.settings.max_image_pixels
        return to_frame(picture, color_order=order, max_pixels=most)


class Job(Protocol[Made_co]):
    """What is done with one picture. A worker gets it as it is, and sends back what it returns."""

    @property
    def name(self) -> str:
        """Of the picture."""

    def __call__(self, pipeline: Pipeline, read: Reader) -> Made_co: ...


@dataclass(frozen=True, eq=False)
class Answer(Generic[Value]):
    """What became of a job: a value, or ``error``."""

    value: Value | None = None
    error: Exception | None = None

    def get(self) -> Value:
        """The value; raises what went wrong instead."""
        if self.value is None:
            raise self.error or ImageError("nothing is known of this picture")
        return self.value


def attempt(job: Job[Value], pipeline: Pipeline, read: Reader) -> Answer[Value]:
    """The answer to a job, done here."""
    try:
        return Answer(job(pipeline, read))
    except Exception as error:  # raised where the answer is taken
        return Answer(error=error)


@dataclass(frozen=True)
class Setup:
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
    def of(cls, pipeline: Pipeline, settings: Settings, given: Mapping[str, Any]) -> Setup:
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


def in_order(
    setup: Setup, items: Iterable[Item], ask: Callable[[Pool, Item], Value], workers: int
) -> Generator[Value, None, None]:
    """What is made of each item by asking workers, in the order of the items; close it to stop.

    Args:
        ask: called by one thread for each worker.
    """
    with Pool(setup, workers) as pool, ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[Value]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(ask, pool, item))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
            pool.stop(at_once=bool(waiting))


class Pool:
    """The workers of a run, of which each is asked by one thread at a time."""

    def __init__(self, setup: Setup, workers: int) -> None:
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

    def __enter__(self) -> Pool:
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

    def ask(self, job: Job[Value]) -> Answer[Value]:
        """A worker's answer to a job.

        Raises:
            UnavailableError: workers end before they do anything.
        """
        worker = self._idle.get()
        try:
            answer, warned = worker.ask(job)
            self._deaths = 0
        except (EOFError, OSError, pickle.UnpicklingError):
            worker = self._replaced(worker)
            ended = "the process that worked on it ended (out of memory?)"
            return Answer(error=ImageError(f"'{job.name}': {ended}; try it with one worker"))
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
    """One process that works; raises ``EOFError`` or ``OSError`` once it ended."""

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

    def ask(self, job: Any) -> tuple[Answer[Any], list[tuple[str, type[Warning]]]]:
        self._send(job)
        answer: tuple[Answer[Any], list[tuple[str, type[Warning]]]] = _received(self._answers)
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
    """The life of a worker: a setup and then jobs on its standard input, answers on its
    standard output. What a part prints goes to the standard error."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, received), daemon=True).start()
    made = _attempt_setup(received.get())
    while True:
        job = received.get()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            answer = made if isinstance(made, Answer) else attempt(job, *made)
        warned = [(str(w.message), w.category) for w in caught
                  if issubclass(w.category, UserWarning)]  # fmt: skip
        answers.write(_sent(answer, warned))
        answers.flush()


def _receive(jobs: BinaryIO, received: queue.SimpleQueue[Any]) -> None:
    """Reads what is sent, and ends this process once the one that sends is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            received.put(_received(jobs))
    os._exit(0)


def _attempt_setup(sent: bytes) -> tuple[Pipeline, Reader] | Answer[Any]:
    """The pipeline and the reader of a setup; or the error that each job then has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said where the setup was made
        try:
            setup: Setup = _received(io.BytesIO(sent))
            return setup.make(), Reader(setup.settings)
        except SamDetectError as error:
            return Answer(error=error)
        except Exception as error:  # of the user's own classes: anything
            said = f"a part of this detector cannot be made in another process ({one_line(error)})"
            return Answer(error=ConfigError(f"{said}: take one worker"))


def _received(pipe: BinaryIO) -> Any:
    """The next object of a pipe between this program's own processes."""
    return pickle.load(pipe)  # noqa: S301 - no other program writes to it


def _sent(answer: Answer[Any], warned: Sequence[tuple[str, type[Warning]]]) -> bytes:
    """An answer as bytes; an error that cannot be sent is told by its message."""
    try:
        data = pickle.dumps((answer, warned), pickle.HIGHEST_PROTOCOL)
        if answer.error is not None:
            _received(io.BytesIO(data))
    except Exception:
        told = SamDetectError(one_line(answer.error or ValueError("no answer can be sent")))
        data = pickle.dumps((Answer(error=told), []), pickle.HIGHEST_PROTOCOL)
    return data
