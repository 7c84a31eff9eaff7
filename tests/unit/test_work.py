"""The queue between the requests of a service and its worker."""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from typing import Any

import pytest

from sam_detect.server.problems import BusyError, FullError
from sam_detect.server.work import WorkQueue


class Worker:
    """Notes what it is given, and waits until it may go on."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def on(self, item: Any) -> Any:
        return partial(self.work, item)

    def work(self, item: Any) -> str:
        self.taken.append(item)
        self.begun.set()
        assert self.go_on.wait(20)
        return f"done {item}"


async def begun(worker: Worker) -> None:
    await asyncio.to_thread(worker.begun.wait, 20)


def test_the_queue_is_limited_and_what_nobody_waits_for_is_dropped() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(1, 0.3)
        first = asyncio.create_task(queue.run(worker.on("first")))
        await begun(worker)
        second = asyncio.create_task(queue.run(worker.on("second")))
        await asyncio.sleep(0.05)
        with pytest.raises(FullError) as caught:
            await queue.run(worker.on("third"))
        assert caught.value.retry_after > 0
        for task in (first, second):
            with pytest.raises(BusyError, match="not done within"):
                await task
        worker.go_on.set()
        await asyncio.sleep(0.1)
        assert worker.taken == ["first"], "the second was not begun"
        queue.close(5)
        with pytest.raises(BusyError, match="ending"):
            await queue.run(worker.on("late"))

    asyncio.run(main())


def test_a_client_that_has_gone_is_not_worked_for() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(10, 20)
        first = asyncio.create_task(queue.run(worker.on("first")))
        await begun(worker)

        async def gone() -> bool:
            return True

        with pytest.raises(BusyError, match="gone"):
            await queue.run(worker.on("second"), gone=gone)
        worker.go_on.set()
        assert await first == "done first"
        queue.close(5)
        assert worker.taken == ["first"]

    asyncio.run(main())


def test_what_was_taken_is_done_before_the_end() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(10, 20)
        tasks = [asyncio.create_task(queue.run(worker.on(i))) for i in range(3)]
        await begun(worker)
        ending = threading.Thread(target=queue.close, args=(20,))
        ending.start()
        worker.go_on.set()
        assert await asyncio.gather(*tasks) == ["done 0", "done 1", "done 2"]
        ending.join()

    asyncio.run(main())


def test_an_error_is_that_of_its_request() -> None:
    async def main() -> None:
        queue = WorkQueue(10, 20)
        tasks = [queue.run(lambda each=each: 6 // each) for each in (0, 1, 2)]
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, ZeroDivisionError)
        assert others == [6, 3]
        assert queue.well
        queue.close(5)

    asyncio.run(main())


def test_no_error_ends_a_worker() -> None:
    async def main() -> None:
        queue = WorkQueue(10, 20)
        queue._waiting[False].put((None, None))  # type: ignore[arg-type]
        with pytest.raises(SystemExit):
            await queue.run(sys.exit)
        assert await queue.run(lambda: 1) == 1
        assert queue.well
        queue.close(5)
        assert not queue.well

    asyncio.run(main())


def test_what_is_slow_waits_for_itself() -> None:
    async def main() -> None:
        slow, quick, queue = Worker(), Worker(), WorkQueue(2, 20)
        quick.go_on.set()
        first = asyncio.create_task(queue.run(slow.on("first"), slow=True))
        await begun(slow)
        job = asyncio.create_task(queue.call(slow.on("job")))
        second = asyncio.create_task(queue.run(slow.on("second"), slow=True))
        while len(queue) < 2:
            await asyncio.sleep(0.01)
        # Nothing of it is in the way of what is quick, and what is slow does not fill the queue.
        assert not queue.is_full
        for number in range(5):
            assert await queue.run(quick.on(number)) == f"done {number}"
        with pytest.raises(FullError):
            await queue.run(slow.on("third"), slow=True)
        slow.go_on.set()
        assert await asyncio.gather(first, second, job) == ["done first", "done second", "done job"]
        queue.close(5)

    asyncio.run(main())
