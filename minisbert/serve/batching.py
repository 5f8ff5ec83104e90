"""Texts of all requests share batches: what waits while a round is computed is the next round.

Because a batch is one strip without padding, texts of any length share it, on all cores as in `encode`. An idle server
begins at once; while it computes, texts gather, so that rounds grow with the load.

Each request stands in the queue with its pieces: its texts, or their chunks. A round takes one piece of each request in
turn, so a request of a thousand long texts delays a short one by the round that is being computed, and its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from minisbert.model import Array
from minisbert.serve.limits import ApiError

ROUND_TOKENS = 1024
"""Tokens in a round, for each thread."""
PAUSE, LONGEST_WAIT = 0.002, 0.02
"""Whoever is answered asks again, so a round waits for as many requests as there were, but begins once none has come
for so many seconds, and after the second figure at the latest."""


@dataclass(eq=False)
class _Job:
    """A request's pieces, those that are begun, and the vectors of those that are done."""

    pieces: Sequence[Array]  # token ids
    future: asyncio.Future[list[Array]]
    vectors: list[Any]
    begun: int = 0
    done: int = 0


class Batcher:
    """A queue, and one round after the other. All of it lives in the event loop but ``forward(pieces)``, which gives
    a vector each."""

    def __init__(
        self, forward: Callable[[list[Array]], Sequence[Array]], *, round_tokens: int, queue_tokens: int
    ) -> None:
        self.forward, self.round_tokens, self.queue_tokens = forward, round_tokens, queue_tokens
        self.waiting = 0  # tokens that are in no round
        self._jobs: deque[_Job] = deque()
        self._expected = 0  # requests that there were at the end of the last round
        self._since = 0.0  # when the first of the next round came
        self._seconds, self._tokens = 0.0, 0  # of all rounds

    def start(self) -> None:
        """Begin; the event loop that runs is the one that requests are made in."""
        self._loop = asyncio.get_running_loop()
        self._is_ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="minisbert")
        self._rounds = self._loop.create_task(self._run())

    async def close(self) -> None:
        """End, once the round that is being computed has ended."""
        self._rounds.cancel()
        await asyncio.to_thread(self._computing.shutdown)

    def submit(self, pieces: Sequence[Array]) -> asyncio.Future[list[Array]]:
        """Promise each piece's vector. Who cancels the promise takes the pieces that are not begun out of the queue."""
        tokens = sum(map(len, pieces))
        if self.waiting and self.waiting + tokens > self.queue_tokens:
            problem = f"{self.waiting:,} tokens wait already: try again after Retry-After"
            seconds = self.waiting * self._seconds / max(1, self._tokens)
            raise ApiError(429, problem, code="rate_limit_exceeded", retry_after=seconds)
        job = _Job(pieces, self._loop.create_future(), [None] * len(pieces))
        job.future.add_done_callback(lambda _: self._drop(job))
        self._since = self._since if self._jobs else self._loop.time()
        self._jobs.append(job)
        self.waiting += tokens
        self._gather()
        return job.future

    def _drop(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            self.waiting -= sum(map(len, job.pieces[job.begun :]))

    def _gather(self) -> None:
        """Begin a round if it is whole, else once no more come."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._jobs:  # they may all have hung up
            return
        if len(self._jobs) >= self._expected or self.waiting >= self.round_tokens:
            self._is_ready.set()
        else:
            soon = min(self._loop.time() + PAUSE, self._since + LONGEST_WAIT)
            self._timer = self._loop.call_at(soon, self._is_ready.set)

    async def _run(self) -> None:
        while True:
            await self._is_ready.wait()
            batch = self._take()
            pieces = [job.pieces[i] for job, i in batch]
            found: Any = []
            begin = time.perf_counter()
            try:
                if pieces:  # or all have hung up since the round was ready
                    found = await self._loop.run_in_executor(self._computing, self.forward, pieces)
            except Exception as error:  # told to those whose texts these were
                found = error
            self._seconds += time.perf_counter() - begin
            self._tokens += sum(map(len, pieces))
            _deliver(batch, found)
            self._expected = len({id(job) for job, _ in batch}.union(map(id, self._jobs)))
            self._since = self._loop.time()
            self._is_ready.clear()
            self._gather()

    def _take(self) -> list[tuple[_Job, int]]:
        """Take a round's pieces out of the queue: one of each request, then more, which make those wait that come."""
        batch: list[tuple[_Job, int]] = []
        tokens, requests = 0, len(self._jobs)
        while self._jobs:
            job = self._jobs[0]
            size = len(job.pieces[job.begun])
            if batch and tokens + size > (self.round_tokens if len(batch) < requests else self.round_tokens // 2):
                break
            batch.append((job, job.begun))
            tokens += size
            self.waiting -= size
            job.begun += 1
            self._jobs.popleft()
            if job.begun < len(job.pieces):
                self._jobs.append(job)  # behind the others
        return batch


def _deliver(batch: list[tuple[_Job, int]], found: Sequence[Array] | Exception) -> None:
    """Hand the vectors to their requests."""
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
