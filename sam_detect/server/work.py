"""The queue between the requests of a service and the two threads that work on them.

Each works on one picture at a time, so requests wait in a queue of limited length. Those that ask
for the same are taken together, as a micro-batch: the library is read once for all of them. One
thread has what takes long (large pictures, jobs), so that this holds up nothing else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sam_detect.server.metrics import log
from sam_detect.server.problems import BusyError, FullError

MOST_TOGETHER = 8
"""Items of a micro-batch: more would keep the first one waiting without saving anything."""
ASK_SECONDS = 0.5
"""How often it is asked whether a client that waits is still there."""
PAUSE_SECONDS = 1.0
"""After an error nothing expected, before a thread goes on."""

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Does the work of a micro-batch: a result, or an exception, for each item."""


class LastingThread(threading.Thread):
    """A thread that no error ends: it is logged, and after a pause the thread goes on.

    Args:
        name: in the log.
        step: is called again and again, until it gives False.
    """

    def __init__(self, name: str, step: Callable[[], bool]) -> None:
        super().__init__(daemon=True, name=name)
        self._step, self._failing = step, False
        self.start()

    @property
    def well(self) -> bool:
        """Whether it runs, and its last step went well."""
        return self.is_alive() and not self._failing

    def run(self) -> None:
        going = True
        while going:
            try:
                going = self._step()
                self._failing = False
            except BaseException as error:
                with suppress(Exception):  # there may be no memory for it
                    if not self._failing:
                        log("error", thread=self.name, error=f"{type(error).__name__}: {error}")
                self._failing = True
                time.sleep(PAUSE_SECONDS)


@dataclass
class _Task:
    key: Hashable
    work: Work
    item: Any
    future: Future[Any]


class WorkQueue:
    """Two worker threads, of which the second has slow items, and what waits for each.

    Args:
        most_waiting: for each thread; further ones are refused.
        seconds: an item that is not done after so long is given up.
        batched: is called with the size of each micro-batch.
    """

    def __init__(
        self, most_waiting: int, seconds: float, batched: Callable[[int], None] = lambda _: None
    ) -> None:
        self._most, self._seconds, self._batched = most_waiting, seconds, batched
        self._waiting: dict[bool, deque[_Task]] = {False: deque(), True: deque()}
        self._changed = threading.Condition()
        self._closed = False
        queues = self._waiting.values()
        self._threads = [LastingThread("worker", partial(self._next, tasks)) for tasks in queues]

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def well(self) -> bool:
        """Whether its threads work."""
        return all(thread.well for thread in self._threads)

    @property
    def is_full(self) -> bool:
        return len(self._waiting[False]) >= self._most

    async def run(
        self, key: Hashable, work: Work, item: Any, *, slow: bool = False,
        gone: Callable[[], Any] | None = None,
    ) -> Any:  # fmt: skip
        """What ``work`` gives for an item.

        Args:
            key: items of equal keys and works may be worked on together.
            slow: whether it takes long.
            gone: awaited again and again; an item whose client has gone is dropped.

        Raises:
            FullError: the queue is full.
            BusyError: it was not done in time, or the service ends.
        """
        task = _Task(key, work, item, Future())
        with self._changed:
            if self._closed:
                raise BusyError("the service is ending: try again later", 5)
            tasks = self._waiting[slow]
            if len(tasks) >= self._most:
                raise FullError(f"{len(tasks)} requests are waiting already: try again later", 2)
            tasks.append(task)
            self._changed.notify_all()
        waiting = asyncio.wrap_future(task.future)
        # What comes too late may have no client that asks for it any more.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        end = asyncio.get_running_loop().time() + self._seconds
        try:
            while True:
                left = end - asyncio.get_running_loop().time()
                done, _ = await asyncio.wait([waiting], timeout=max(0, min(ASK_SECONDS, left)))
                if done:
                    return waiting.result()
                if left <= 0:
                    raise BusyError(f"it was not done within {self._seconds:g} s", 5)
                if gone is not None and await gone():
                    raise BusyError("the client has gone", 1)
        finally:
            task.future.cancel()  # what was not begun is dropped

    def call(self, key: Hashable, work: Work, item: Any) -> Any:
        """What ``work`` gives for an item, for a thread that has time: it waits with what is slow,
        and is not refused where the queue is full. Raises ``BusyError`` where the service ends."""
        task = _Task(key, work, item, Future())
        with self._changed:
            if self._closed:
                raise BusyError("the service is ending", 5)
            self._waiting[True].append(task)
            self._changed.notify_all()
        return task.future.result()

    def close(self, seconds: float) -> None:
        """Takes nothing more, and waits until what was taken is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _next(self, tasks: deque[_Task]) -> bool:
        """Works on a micro-batch, if there is one; whether there may be more."""
        with self._changed:
            if not tasks and not self._closed:
                self._changed.wait(ASK_SECONDS)
            if not tasks:
                return not self._closed
            batch = self._take(tasks)
        if batch:
            self._do(batch)
        return True

    def _take(self, tasks: deque[_Task]) -> list[_Task]:
        """The first task, and those that may be worked on with it."""
        first = tasks.popleft()
        batch, rest = [first], deque[_Task]()
        while tasks:
            each = tasks.popleft()
            alike = each.key == first.key and each.work == first.work
            (batch if alike and len(batch) < MOST_TOGETHER else rest).append(each)
        tasks.extend(rest)
        return [each for each in batch if each.future.set_running_or_notify_cancel()]

    def _do(self, batch: Sequence[_Task]) -> None:
        try:
            self._batched(len(batch))
            results = list(batch[0].work([each.item for each in batch]))
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results of {len(batch)} items")
        except BaseException as error:
            for each in batch:
                each.future.set_exception(error)
            return
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                each.future.set_exception(result)
            else:
                each.future.set_result(result)
