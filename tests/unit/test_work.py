"""The queue between the requests of a service and its worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from sam_detect.server.problems import BusyError, FullError
from sam_detect.server.work import MOST_TOGETHER, WorkQueue


class Worker:
    """Notes what it is given, and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def work(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.begun.set()
        assert self.go_on.wait(20)
        return [ValueError(item) if item == "bad" else f"done {item}" for item in items]


async def begun(worker: Worker) -> None:
    await asyncio.to_thread(worker.begun.wait, 20)


def test_what_asks_alike_is_worked_on_together() -> None:
    async def main() -> list[Any]:
        worker, queue = Worker(), WorkQueue(100, 20)
        first = asyncio.create_task(queue.run("a", worker.work, "first"))
        await begun(worker)
        rest = [asyncio.create_task(queue.run(k, worker.work, f"{k}{i}"))
                for i in range(10) for k in "ab"]  # fmt: skip
        bad = asyncio.create_task(queue.run("a", worker.work, "bad"))
        await asyncio.sleep(0.1)
        worker.go_on.set()
        results = await asyncio.gather(first, *rest, bad, return_exceptions=True)
        assert results[0] == "done first"
        assert results[1:-1] == [f"done {k}{i}" for i in range(10) for k in "ab"]
        assert isinstance(results[-1], ValueError), "an error of one is not that of the others"
        queue.close(5)
        return worker.batches

    batches = asyncio.run(main())
    assert all(len({str(item)[0] for item in batch if item != "bad"}) <= 1 for batch in batches[1:])
    assert max(len(batch) for batch in batches) == MOST_TOGETHER


def test_the_queue_is_limited_and_what_nobody_waits_for_is_dropped() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(1, 0.3)
        first = asyncio.create_task(queue.run("a", worker.work, "first"))
        await begun(worker)
        second = asyncio.create_task(queue.run("b", worker.work, "second"))
        await asyncio.sleep(0.05)
        with pytest.raises(FullError) as caught:
            await queue.run("c", worker.work, "third")
        assert caught.value.retry_after > 0
        for task in (first, second):
            with pytest.raises(BusyError, match="not done within"):
                await task
        worker.go_on.set()
        await asyncio.sleep(0.1)
        assert worker.batches == [["first"]], "the second was not begun"
        queue.close(5)
        with pytest.raises(BusyError, match="ending"):
            await queue.run("a", worker.work, "late")

    asyncio.run(main())


def test_a_client_that_has_gone_is_not_worked_for() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(10, 20)
        first = asyncio.create_task(queue.run("a", worker.work, "first"))
        await begun(worker)

        async def gone() -> bool:
            return True

        with pytest.raises(BusyError, match="gone"):
            await queue.run("b", worker.work, "second", gone=gone)
        worker.go_on.set()
        assert await first == "done first"
        queue.close(5)
        assert worker.batches == [["first"]]

    asyncio.run(main())


def test_what_was_taken_is_done_before_the_end() -> None:
    async def main() -> None:
        worker, queue = Worker(), WorkQueue(10, 20)
        tasks = [asyncio.create_task(queue.run(i, worker.work, i)) for i in range(3)]
        await begun(worker)
        ending = threading.Thread(target=queue.close, args=(20,))
        ending.start()
        worker.go_on.set()
        assert await asyncio.gather(*tasks) == ["done 0", "done 1", "done 2"]
        ending.join()

    asyncio.run(main())


@pytest.mark.parametrize("results", [[], ["one"], ["one", "two", "three"], None])
def test_work_that_gives_no_result_for_each_item_is_an_error_and_the_worker_goes_on(
    results: Any,
) -> None:
    async def main() -> None:
        queue = WorkQueue(10, 20)
        both = [queue.run("a", lambda _: results, item) for item in (1, 2)]
        for each in await asyncio.gather(*both, return_exceptions=True):
            assert isinstance(each, (ValueError, TypeError)) or (each, results) == ("one", ["one"])
        assert await queue.run("b", lambda items: items, 3) == 3
        assert queue.well
        queue.close(5)

    asyncio.run(main())


def test_a_worker_that_fails_is_seen_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        queue = WorkQueue(10, 20)
        with monkeypatch.context() as patched:
            patched.setattr(queue, "_take", lambda _: 1 / 0)
            first = asyncio.create_task(queue.run("a", lambda items: items, 1))
            while queue.well:
                await asyncio.sleep(0.01)
        assert await first == 1
        while not queue.well:
            await asyncio.sleep(0.01)
        queue.close(5)

    asyncio.run(main())


def test_what_is_slow_waits_for_itself() -> None:
    async def main() -> None:
        slow, quick, queue = Worker(), Worker(), WorkQueue(2, 20)
        quick.go_on.set()
        first = asyncio.create_task(queue.run("a", slow.work, "first", slow=True))
        await begun(slow)
        job = asyncio.get_running_loop().run_in_executor(None, queue.call, "b", slow.work, "job")
        second = asyncio.create_task(queue.run("a", slow.work, "second", slow=True))
        while len(queue) < 2:
            await asyncio.sleep(0.01)
        # Nothing of it is in the way of what is quick, and what is slow does not fill the queue.
        assert not queue.is_full
        for number in range(5):
            assert await queue.run("a", quick.work, number) == f"done {number}"
        with pytest.raises(FullError):
            await queue.run("a", slow.work, "third", slow=True)
        slow.go_on.set()
        assert await asyncio.gather(first, second, job) == ["done first", "done second", "done job"]
        queue.close(5)

    asyncio.run(main())
