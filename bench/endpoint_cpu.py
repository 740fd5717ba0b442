"""Processor time of a request: the endpoint client beside what it is built on.

`python bench/endpoint_cpu.py` starts the test server in a process of its own, which
answers after 100 ms, and asks it for each client in turn; the time is that of the
asking process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_vlmeval.models.client import Request
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Concurrency, Endpoint, Limiter, Pool
from pytest_vlmeval.records import PromptPart
from tests.support.server_fixtures import ServerProcess

MODEL = "tiny-vlm"
QUESTION = "What is in the image? Answer with the option's letter."
IMAGE_BYTES = 31_000
MAX_TOKENS = 64

Ask = Callable[[], Awaitable[object]]


async def _measure(name: str, ask: Ask, requests: int, concurrency: int) -> None:
    """Print ms of processor time per request, and requests per second."""
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            await ask()

    await ask()
    started, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    processor, seconds = time.process_time() - processor, time.perf_counter() - started
    print(
        f"{name:42} {1000 * processor / requests:8.2f} {requests / seconds:12.0f}",
        flush=True,
    )


async def _endpoint(url: str, folder: Path, requests: int, concurrency: int) -> None:
    client = EndpointClient(
        model=MODEL,
        api_base=url,
        api_key=None,
        max_tokens=MAX_TOKENS,
        temperature=0.0,
        timeout_s=60,
        concurrency=concurrency,
    )
    image = PromptPart(kind="image", media="image.jpg", media_type="image/jpeg")
    prompt = (image, PromptPart(kind="text", text=QUESTION))
    request = Request(turns=(prompt,), media_folder=folder)
    await _measure("EndpointClient", lambda: client.ask(request), requests, concurrency)
    limits = Concurrency(concurrency, adaptive=False)
    endpoints = [Endpoint(url, client, Limiter(limits))]
    pool = Pool(endpoints, ceiling=concurrency, outage_s=60)
    await _measure("Pool of it", lambda: pool.ask(request), requests, concurrency)
    await pool.close()


async def _openai(
    url: str, folder: Path, requests: int, concurrency: int, *, with_aiohttp: bool
) -> None:
    transport = DefaultAioHttpClient if with_aiohttp else DefaultAsyncHttpxClient
    name = "aiohttp" if with_aiohttp else "default"

    async def ask() -> object:
        data = b64encode((folder / "image.jpg").read_bytes()).decode()
        image = {"url": f"data:image/jpeg;base64,{data}"}
        return await client.chat.completions.create(
            model=MODEL,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": image["url"]}},
                        {"type": "text", "text": QUESTION},
                    ],
                }
            ],
        )

    async with AsyncOpenAI(
        api_key="none", base_url=url, http_client=transport(trust_env=False)
    ) as client:
        title = f"openai, {name} transport"
        await _measure(title, ask, requests, concurrency)


async def _aiohttp(url: str, folder: Path, requests: int, concurrency: int) -> None:
    async def ask() -> object:
        data = b64encode((folder / "image.jpg").read_bytes()).decode()
        image = {"url": f"data:image/jpeg;base64,{data}"}
        content = [
            {"type": "image_url", "image_url": image},
            {"type": "text", "text": QUESTION},
        ]
        body = {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
            "messages": [{"role": "user", "content": content}],
        }
        async with session.post(f"{url}/chat/completions", json=body) as response:
            return await response.json()

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        await _measure("aiohttp alone", ask, requests, concurrency)


def main() -> None:
    """Measure every client on the same work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    work = arguments.requests, arguments.concurrency
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "image.jpg").write_bytes(os.urandom(IMAGE_BYTES))
        server = ServerProcess(folder, latency_s=0.1)
        try:
            print(f"{'client':42} {'ms CPU':>8} {'requests/s':>12}")
            for _ in range(arguments.rounds):
                asyncio.run(_endpoint(server.url, folder, *work))
                for with_aiohttp in (True, False):
                    asyncio.run(
                        _openai(server.url, folder, *work, with_aiohttp=with_aiohttp)
                    )
                asyncio.run(_aiohttp(server.url, folder, *work))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
