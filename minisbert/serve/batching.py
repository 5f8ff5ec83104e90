"""Texts of all requests share batches: threads take from one queue what fits a strip of tokens.

Because a batch is one strip without padding, texts of any length share it. Nothing waits for a batch to fill: a thread
that is free takes what is there, at once. While all threads compute, texts gather, so batches grow with the load.

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
from minisbert.parallel import LEAST_TOKENS, threads

BATCH_TOKENS = 512
"""Tokens in a batch, at most: half of what `encode` takes, because whoever comes next waits for it."""


class QueueFull(Exception):
    """Too much waits already; ``seconds`` says for how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


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
    ``seen(pieces, tokens)`` hears of each batch.
    """

    def __init__(
        self,
        forward: Callable[[list[Array], int | None], list[Array]],
        queue_tokens: int,
        num_threads: int | None = None,
        seen: Callable[[int, int], object] = lambda pieces, tokens: None,
    ) -> None:
        self.forward, self.queue_tokens, self.seen = forward, queue_tokens, seen
        self.waiting = 0  # tokens that no thread has begun
        self._num_threads = num_threads or threads.usable()
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

    async def run(self, pieces: Sequence[Array]) -> list[Array]:
        """Give each piece's vector. Whoever stops waiting takes the pieces that are not begun out of the queue."""
        tokens = sum(map(len, pieces))
        job = _Job(pieces, asyncio.get_running_loop().create_future(), [None] * len(pieces))
        with self._changed:
            if self.waiting and self.waiting + tokens > self.queue_tokens:
                speed = self._num_threads * self._tokens / self._seconds if self._seconds else self.waiting
                raise QueueFull(self.waiting / speed)
            self.waiting += tokens
            self._jobs.append(job)
            self._changed.notify(len(pieces))
        try:
            return await job.future
        finally:
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)
                    self.waiting -= sum(map(len, pieces[job.begun :]))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._take():
            pieces = [job.pieces[i] for job, i in batch]
            tokens = sum(map(len, pieces))
            with self._changed:
                is_alone = len(batch) == 1 and self._computing == 1 and not self._jobs
            self.seen(len(batch), tokens)
            begin = time.perf_counter()
            try:
                found: Sequence[Array] | Exception = self.forward(pieces, None if is_alone else 1)
            except Exception as error:  # told to those whose texts these were
                found = error
            with self._changed:
                self._computing -= 1
                self._seconds += time.perf_counter() - begin
                self._tokens += tokens
            loop.call_soon_threadsafe(_deliver, batch, found)

    def _take(self) -> list[tuple[_Job, int]]:
        """Wait for work, and take one thread's share of it; nothing once the queue is closed and empty."""
        batch: list[tuple[_Job, int]] = []
        with self._changed:
            while not (self._jobs or self._closed):
                self._changed.wait()
            room = min(BATCH_TOKENS, max(LEAST_TOKENS, -(-self.waiting // self._num_threads)))
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
