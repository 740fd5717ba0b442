"""Pools of real clients, for the tests of what asks through them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast

from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Concurrency, Endpoint, Limiter, Pool
from pytest_vlmeval.settings.groups import AS_IT_IS

if TYPE_CHECKING:
    from pytest_vlmeval.settings import Settings

EIGHT = Concurrency(8, adaptive=False)


def asking_settings(work_dir: Path = Path(), *, retries: int = 1) -> Settings:
    """Give what the asking needs of the settings of a run."""
    settings = SimpleNamespace(
        work_dir=work_dir,
        retries=retries,
        model="tiny-vlm",
        backend="endpoint",
        cluster=None,
        prompting=AS_IT_IS,
        fresh=True,
        identity=dict,
    )
    return cast("Settings", settings)


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
