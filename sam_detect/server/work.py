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
from dataclasses import dataclass
from typing import Any

from sam_detect.errors import SamDetectError

MOST_TOGETHER = 8
"""Items of a micro-batch: more would keep the first one waiting without saving anything."""
ASK_SECONDS = 0.5
"""How often it is asked whether a client that waits is still there."""

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Does the work of a micro-batch: a result, or an exception, for each item."""


class BusyError(SamDetectError):
    """There is more to do than can be done soon.

    Args:
        message: what is said.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FullError(BusyError):
    """The queue is full."""


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
        self._threads = [
            threading.Thread(target=self._run, args=(tasks,), daemon=True, name="worker")
            for tasks in self._waiting.values()
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

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

    def _run(self, tasks: deque[_Task]) -> None:
        while True:
            with self._changed:
                while not tasks and not self._closed:
                    self._changed.wait()
                if not tasks:
                    return
                batch = self._take(tasks)
            if batch:
                self._batched(len(batch))
                self._do(batch)

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
            results = batch[0].work([each.item for each in batch])
        except BaseException as error:
            for each in batch:
                each.future.set_exception(error)
            return
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                each.future.set_exception(result)
            else:
                each.future.set_result(result)
