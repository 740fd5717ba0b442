"""Pools of real clients, for the tests of what asks through them."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Concurrency, Endpoint, Limiter, Pool
from pytest_vlmeval.run.engine import Journal

EIGHT = Concurrency(8, adaptive=False)


def make_pool(
    *urls: str,
    concurrency: Concurrency = EIGHT,
    model: str = "tiny-vlm",
    timeout_s: float = 20,
    outage_s: float = 60,
    role: Literal["model", "judge"] = "model",
    journal: Journal | None = None,
    aside: tuple[str, ...] = (),
) -> Pool:
    """Open the endpoints of a model, as a run does."""
    journal = journal or Journal(model)
    endpoints = []
    for url in urls:
        client = EndpointClient(
            model=model,
            api_base=url,
            api_key=None,
            max_tokens=16,
            temperature=0.0,
            timeout_s=timeout_s,
            concurrency=concurrency.ceiling,
            role=role,
        )
        limiter = Limiter(concurrency, partial(journal.note_limit, url))
        endpoints.append(Endpoint(url, client, limiter))
    return Pool(endpoints, ceiling=concurrency.ceiling, outage_s=outage_s, aside=aside)
