"""The queue between the requests of a service and the two threads that work on them.

Each works on one picture at a time, so requests wait in a queue of limited length. One thread has
what takes long (large pictures, jobs), so that this holds up nothing else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from sam_detect.server.metrics import log
from sam_detect.server.problems import BusyError, FullError

ASK_SECONDS = 0.5
"""How often it is asked whether a client that waits is still there."""
PAUSE_SECONDS = 1.0
"""After an error nothing expected, before a thread goes on."""

Work = Callable[[], Any]
_Tasks = deque[tuple[Future[Any], Work]]


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


class WorkQueue:
    """Two worker threads, of which the second has what is slow, and what waits for each.

    Args:
        most_waiting: for each thread; further requests are refused.
        seconds: a request that is not done after so long is given up.
    """

    def __init__(self, most_waiting: int, seconds: float) -> None:
        self._most, self._seconds = most_waiting, seconds
        self._waiting: dict[bool, _Tasks] = {False: deque(), True: deque()}
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
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _put(self, work: Work, *, slow: bool, most: int | None = None) -> Future[Any]:
        task: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise BusyError("the service is ending: try again later", 5)
            tasks = self._waiting[slow]
            if most is not None and len(tasks) >= most:
                raise FullError(f"{len(tasks)} requests are waiting already: try again later", 2)
            tasks.append((task, work))
            self._changed.notify_all()
        return task

    def _next(self, tasks: _Tasks) -> bool:
        """Does what waits longest, if there is anything; whether there may be more."""
        with self._changed:
            if not tasks and not self._closed:
                self._changed.wait(ASK_SECONDS)
            if not tasks:
                return not self._closed
            task, work = tasks.popleft()
        if task.set_running_or_notify_cancel():
            try:
                task.set_result(work())
            except BaseException as error:
                task.set_exception(error)
        return True
