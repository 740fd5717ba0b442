"""Chooses the client for what the user asked to be evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from pytest_vlmeval.judge_settings import JudgeEndpoint
    from pytest_vlmeval.models.client import ModelClient
    from pytest_vlmeval.options import Settings

NO_MODEL = (
    "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible endpoint "
    "serves it under (see --vlm-api-base), or --vlm-model=demo for the tiny model that "
    "ships with the plugin."
)


def create_client(settings: Settings, *, concurrency: int) -> ModelClient:
    """Make the client of the chosen backend, for this many requests at once.

    Raises `VlmEvalError` for a missing model and an unusable URL or key. Only the
    chosen client is imported: openai takes a second, onnxruntime a part of one.
    """
    if settings.model is None:
        raise VlmEvalError(NO_MODEL)
    if settings.backend == "demo":
        from pytest_vlmeval.models.demo_client import DemoClient

        return DemoClient(max_tokens=settings.max_tokens, concurrency=concurrency)
    from pytest_vlmeval.models.endpoint import EndpointClient

    return EndpointClient(
        model=settings.model,
        api_base=settings.api_base,
        api_key=settings.api_key,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        timeout_s=settings.timeout_s,
        concurrency=concurrency,
    )


def create_judge_client(
    settings: Settings, judge: JudgeEndpoint, *, concurrency: int
) -> ModelClient:
    """Make the client of a judge; `VlmEvalError` for an unusable URL or key.

    Its requests bring their sampling settings along.
    """
    from pytest_vlmeval.models.endpoint import EndpointClient

    return EndpointClient(
        model=judge.name,
        api_base=judge.api_base,
        api_key=judge.api_key,
        max_tokens=None,
        temperature=None,
        timeout_s=settings.timeout_s,
        concurrency=concurrency,
        role="judge",
    )
