"""Pools of real clients, for the tests of what asks through them."""

from __future__ import annotations

from typing import Literal

from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Concurrency, Endpoint, Limiter, Pool

EIGHT = Concurrency(8, adaptive=False)


def make_pool(
    *urls: str,
    concurrency: Concurrency = EIGHT,
    model: str = "tiny-vlm",
    timeout_s: float = 20,
    outage_s: float = 60,
    role: Literal["model", "judge"] = "model",
    aside: tuple[str, ...] = (),
) -> Pool:
    """Open the endpoints of a model, as a run does."""
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
        endpoints.append(Endpoint(url, client, Limiter(concurrency)))
    return Pool(endpoints, ceiling=concurrency.ceiling, outage_s=outage_s, aside=aside)
