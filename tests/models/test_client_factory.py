"""Which client a user's options lead to."""

from __future__ import annotations

import asyncio

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import ModelClient
from pytest_vlmeval.models.demo import DemoClient
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.open import create_pool
from pytest_vlmeval.models.pool import Concurrency
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.sources import pytest_sources


def client_for(pytester: pytest.Pytester, *arguments: str) -> ModelClient:
    settings = load_from(pytest_sources(pytester.parseconfig(*arguments), {}))
    two = Concurrency(2, adaptive=False)
    pool = create_pool(settings, two)
    asyncio.run(pool.close())
    (endpoint,) = pool.endpoints
    return endpoint.client


def test_demo(pytester: pytest.Pytester) -> None:
    client = client_for(pytester, "--vlm-model=demo")
    assert isinstance(client, DemoClient)


def test_endpoint(pytester: pytest.Pytester) -> None:
    base = "--vlm-api-base=http://host:81/v1/chat/completions"
    client = client_for(pytester, "--vlm-model=qwen-vl-chat", base)
    assert isinstance(client, EndpointClient)
    assert client.api_base == "http://host:81/v1"


def test_model_named_demo_at_an_endpoint(pytester: pytest.Pytester) -> None:
    client = client_for(pytester, "--vlm-model=demo", "--vlm-backend=endpoint")
    assert isinstance(client, EndpointClient)


def test_no_model(pytester: pytest.Pytester) -> None:
    with pytest.raises(VlmEvalError) as caught:
        client_for(pytester)
    assert str(caught.value) == (
        "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible "
        "endpoint serves it under (see --vlm-api-base), or --vlm-model=demo for the "
        "tiny model that ships with the plugin."
    )
    base = "--vlm-api-base=http://host:81/v1"
    named = client_for(pytester, "--vlm-model=NAME", base)
    assert isinstance(named, EndpointClient)
    assert isinstance(client_for(pytester, "--vlm-model=demo"), DemoClient)
