"""How much does `minisbert serve` cost beside `encode`? One text after the other, and 32 at a time.

``python -m minisbert.bench.serving`` starts a server in a process of its own and asks it from this one, on the same
cores: what asking costs is the server's loss. Rounds of both alternate, and each ratio is one within a round.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np

from minisbert.bench.run import default_texts, make_texts
from minisbert.bench.worker import timed
from minisbert.encoder import SentenceEncoder

AT_A_TIME, ROUNDS = 32, 5


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run ``minisbert serve`` on a free port meanwhile: its address, and its process."""
    command = [sys.executable, "-m", "minisbert", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stderr.readline() if process.stderr else ""
            found = re.search(r"http://\S+", said)
            if found is None:
                raise ValueError(f"minisbert serve said {said!r}")
            yield found[0], process.pid
        finally:
            process.terminate()


async def ask(url: str, texts: Sequence[str], at_a_time: int) -> list[float]:
    """Ask for each text alone, so many at a time, each over a connection that is kept; the seconds that each took."""
    where, following, seconds = urlsplit(url), iter(texts), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for text in following:
            body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
            begin = time.perf_counter()
            head = f"POST {where.path}/embeddings HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer)
            if length is None or not answer.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"expected vectors, got {answer!r:.300}")
            await reader.readexactly(int(length[1]))
            seconds.append(time.perf_counter() - begin)
        writer.close()

    await asyncio.gather(*(client() for _ in range(at_a_time)))
    return seconds


def memory_mib(process: int) -> float:
    """Memory of a process, on Linux."""
    said = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", said)[0]) / 1024


def main(count: int) -> None:
    """Measure with so many sentences a round, and a third as many texts of mixed lengths; print."""
    encoder = SentenceEncoder()
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(rng.lognormal(3.9, 0.8, count // 3)), 5, encoder.max_seq_length)
    loads = {"sentences": default_texts(encoder)[:count], "mixed lengths": make_texts(encoder, lengths, rng)}
    shares: dict[str, list[float]] = defaultdict(list)
    ratios, alone = [], []
    with serving() as (url, process):
        asyncio.run(ask(url, loads["sentences"], AT_A_TIME))
        memory = memory_mib(process)
        for _ in range(ROUNDS):
            for name, texts in loads.items():
                asked = timed(asyncio.run, ask(url, texts, AT_A_TIME))
                shares[f"{name}, one call"].append(timed(encoder.encode, texts) / asked)
                parts = [texts[start : start + AT_A_TIME] for start in range(0, len(texts), AT_A_TIME)]
                shares[f"{name}, {AT_A_TIME} a call"].append(sum(timed(encoder.encode, part) for part in parts) / asked)
            texts = loads["sentences"][:50]
            ours = 1000.0 * median(timed(encoder.encode, text) for text in texts)
            alone.append(1000.0 * median(asyncio.run(ask(url, texts, 1))))
            ratios.append(alone[-1] / ours)
        grown = memory_mib(process) - memory
    lines = [
        f"{AT_A_TIME} at a time: {median(found):.0%} of encode's texts/s ({min(found):.0%}-{max(found):.0%}); {name}"
        for name, found in shares.items()
    ]
    lines += [
        f"one at a time: p50 {median(alone):.1f} ms, {median(ratios):.2f} times encode's "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        f"memory: {memory:.0f} MiB after the first round, {grown:+.0f} after {ROUNDS} more",
    ]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
