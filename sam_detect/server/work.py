"""The queue between the requests of a service and the two threads that work on them.

Each works on one picture at a time, so requests wait in a queue of limited length. One thread has
what takes long (large pictures, jobs), so that this holds up nothing else.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from sam_detect.server.problems import BusyError, FullError

ASK_SECONDS = 0.5
"""How often it is asked whether a client that waits is still there."""

Work = Callable[[], Any]
_Tasks = SimpleQueue[tuple[Future[Any], Work] | None]


class WorkQueue:
    """Two worker threads, of which the second has what is slow, and what waits for each.

    Args:
        most_waiting: for each thread; further requests are refused.
        seconds: a request that is not done by then is given up.
    """

    def __init__(self, most_waiting: int, seconds: float) -> None:
        self._most, self._seconds = most_waiting, seconds
        self._lock, self._closed = threading.Lock(), False
        self._waiting: dict[bool, _Tasks] = {False: SimpleQueue(), True: SimpleQueue()}
        self._threads = [
            threading.Thread(target=_work_on, args=(tasks,), daemon=True, name="worker")
            for tasks in self._waiting.values()
        ]
        for each in self._threads:
            each.start()

    def __len__(self) -> int:
        return sum(each.qsize() for each in self._waiting.values())

    @property
    def well(self) -> bool:
        """Whether its threads work."""
        return all(each.is_alive() for each in self._threads)

    @property
    def is_full(self) -> bool:
        return self._waiting[False].qsize() >= self._most

    async def run(
        self, work: Work, *, slow: bool = False, gone: Callable[[], Any] | None = None
    ) -> Any:
        """What ``work`` gives.

        Args:
            slow: whether it takes long.
            gone: awaited again and again; what is for a client that has gone is dropped.

        Raises:
            FullError: the queue is full.
            BusyError: it was not done in time, or the service ends.
        """
        task = self._put(work, slow=slow, most=self._most)
        waiting = asyncio.wrap_future(task)
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
            task.cancel()  # what was not begun is dropped

    async def call(self, work: Work) -> Any:
        """What ``work`` gives, for a caller that has time: it waits with what is slow, and is not
        refused where the queue is full. Raises ``BusyError`` where the service ends."""
        return await asyncio.wrap_future(self._put(work, slow=True))

    def close(self, seconds: float) -> None:
        """Takes nothing more, and waits until what was taken is done."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for tasks in self._waiting.values():
                    tasks.put(None)
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _put(self, work: Work, *, slow: bool, most: float = math.inf) -> Future[Any]:
        task, tasks = Future[Any](), self._waiting[slow]
        with self._lock:
            if self._closed:
                raise BusyError("the service is ending: try again later", 5)
            if tasks.qsize() >= most:
                raise FullError(f"{most} requests are waiting already: try again later", 2)
            tasks.put((task, work))
        return task


def _work_on(tasks: _Tasks) -> None:
    """Does what waits, until it is told to end. No error ends it, not even a lack of memory."""
    going = True
    while going:
        with suppress(Exception):
            going = _do(tasks.get())


def _do(waiting: tuple[Future[Any], Work] | None) -> bool:
    if waiting is None:
        return False
    task, work = waiting
    if task.set_running_or_notify_cancel():
        try:
            task.set_result(work())
        except BaseException as error:
            task.set_exception(error)
    return True
