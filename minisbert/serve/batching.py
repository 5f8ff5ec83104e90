"""Texts of all requests share batches: threads take from one queue what fits a strip of tokens.

Because a batch is one strip without padding, texts of any length share it. An idle server begins at once; while one
core computes, texts gather, so that batches grow with the load.

Each request stands in the queue with its pieces: its texts, or their chunks. A batch takes one piece of each request in
turn, so a request of a thousand long texts delays a short one by the batches that are being computed, and no more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minisbert.model import Array
from minisbert.parallel import LEAST_TOKENS
from minisbert.serve.limits import ApiError

BATCH_TOKENS = 512
"""Tokens in a batch, at most: half of what `encode` takes, because whoever comes next waits for it."""
GATHER_TOKENS, GATHER_SECONDS = 128, 0.005
"""While other threads compute, a free one waits for so many tokens, and no longer than that."""


@dataclass(eq=False)
class _Job:
    """A request's pieces, those that are begun, and the vectors of those that are done."""

    pieces: Sequence[Array]  # token ids
    future: asyncio.Future[list[Array]]
    vectors: list[Any]
    begun: int = 0
    done: int = 0


class Batcher:
    """A queue and its threads.

    ``forward(pieces, num_threads)`` gives a vector each; None leaves a piece that is alone to BLAS's own threads.
    """

    def __init__(
        self, forward: Callable[[list[Array], int | None], Sequence[Array]], num_threads: int, queue_tokens: int
    ) -> None:
        self.forward, self.queue_tokens = forward, queue_tokens
        self.waiting = 0  # tokens that no thread has begun
        self._num_threads = num_threads
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._computing = 0  # threads
        self._closed = False
        self._seconds, self._tokens = 0.0, 0  # of all batches
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; the event loop that runs is the one that requests are made in."""
        loop = asyncio.get_running_loop()
        for _ in range(self._num_threads):
            self._threads.append(threading.Thread(target=self._work, args=(loop,), name="minisbert", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """End the threads once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, pieces: Sequence[Array]) -> asyncio.Future[list[Array]]:
        """Promise each piece's vector. Who cancels the promise takes the pieces that are not begun out of the queue."""
        tokens = sum(map(len, pieces))
        job = _Job(pieces, asyncio.get_running_loop().create_future(), [None] * len(pieces))
        with self._changed:
            if self.waiting and self.waiting + tokens > self.queue_tokens:
                problem = f"{self.waiting:,} tokens wait already: try again after Retry-After"
                seconds = self.waiting * self._seconds / max(1, self._tokens * self._num_threads)
                raise ApiError(429, problem, code="rate_limit_exceeded", retry_after=seconds)
            self.waiting += tokens
            self._jobs.append(job)
        # not before the event loop has read what else has come by now
        job.future.get_loop().call_soon(self._wake)
        job.future.add_done_callback(lambda _: self._drop(job))
        return job.future

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self.waiting -= sum(map(len, job.pieces[job.begun :]))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._take():
            pieces = [job.pieces[i] for job, i in batch]
            tokens = sum(map(len, pieces))
            with self._changed:
                is_alone = len(batch) == 1 and self._computing == 1 and not self._jobs
            begin = time.perf_counter()
            try:
                found: Sequence[Array] | Exception = self.forward(pieces, None if is_alone else 1)
            except Exception as error:  # told to those whose texts these were
                found = error
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()
                self._seconds += time.perf_counter() - begin
                self._tokens += tokens
            loop.call_soon_threadsafe(_deliver, batch, found)

    def _take(self) -> list[tuple[_Job, int]]:
        """Wait for work, and take one thread's share of it; nothing once the queue is closed and empty."""
        batch: list[tuple[_Job, int]] = []
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._changed.wait_for(
                    lambda: not self._computing or self.waiting >= GATHER_TOKENS or self._closed, GATHER_SECONDS
                )
                if self._jobs or self._closed:  # another thread may have been faster
                    break
            free = self._num_threads - self._computing
            room = min(BATCH_TOKENS, max(LEAST_TOKENS, -(-self.waiting // free)))
            while self._jobs:
                job = self._jobs[0]
                size = len(job.pieces[job.begun])
                if batch and size > room:
                    break
                batch.append((job, job.begun))
                room -= size
                self.waiting -= size
                job.begun += 1
                self._jobs.popleft()
                if job.begun < len(job.pieces):
                    self._jobs.append(job)  # behind the others
            self._computing += bool(batch)
        return batch


def _deliver(batch: list[tuple[_Job, int]], found: Sequence[Array] | Exception) -> None:
    """Hand the vectors to their requests; runs in the event loop."""
    for n, (job, i) in enumerate(batch):
        if job.future.done():  # nobody waits any more
            continue
        if isinstance(found, Exception):
            job.future.set_exception(found)
            continue
        job.vectors[i] = found[n]
        job.done += 1
        if job.done == len(job.pieces):
            job.future.set_result(job.vectors)
