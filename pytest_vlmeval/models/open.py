"""Opens the endpoints of what the user asked to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import normalize_api_base
from pytest_vlmeval.models.pool import (
    AUTO_CEILING,
    Concurrency,
    Endpoint,
    Limiter,
    Pool,
)

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import ModelClient, Role
    from pytest_vlmeval.models.cluster.recipes import Recipe
    from pytest_vlmeval.models.pool import Learned
    from pytest_vlmeval.settings import Settings
    from pytest_vlmeval.settings.groups import (
        ClusterSettings,
        JudgeEndpoint,
        LocalModel,
        RequestForm,
    )

# Told the endpoint, its limit before and after a change, and the reason.
NoteLimit = Callable[[str, int, int, str], None]
# Gives a client that also looks after a server of the run.
Watch = Callable[["ModelClient"], "ModelClient"]

NO_MODEL = (
    "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible endpoint "
    "serves it under (see --vlm-api-base), or --vlm-model=demo for the tiny model that "
    "ships with the plugin."
)


class _Asked(NamedTuple):
    """What the endpoints of one model or judge have in common."""

    name: str
    api_key: str | None
    max_tokens: int | None
    temperature: float | None
    role: Role
    form: RequestForm
    learned: Learned | None


def create_pool(
    settings: Settings,
    concurrency: Concurrency,
    note: NoteLimit,
    watched: Watch,
    aside: Collection[str] = (),
    learned: Learned | None = None,
) -> Pool:
    """Open the endpoints of the chosen backend; nothing is connected yet.

    `aside` names those that could not be asked at the start; `learned` is what the
    session has found out of them. Raises `VlmEvalError`
    for a missing model and an unusable URL or key. Only the chosen client is
    imported: openai takes a second, onnxruntime a part of one.
    """
    if settings.model is None:
        raise VlmEvalError(NO_MODEL)
    if settings.cluster is not None:
        return _cluster_pool(settings, settings.cluster, concurrency, note, aside)
    if settings.backend == "demo":
        return _demo_pool(settings, concurrency, note)
    if settings.backend == "local":
        return _local_pool(settings, note)
    asked = _Asked(
        name=settings.model,
        api_key=settings.api_key,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        role="model",
        form=settings.form,
        learned=learned,
    )
    return _endpoint_pool(
        asked, settings.api_bases, settings, concurrency, note, watched, aside
    )


def create_judge_pool(
    settings: Settings,
    judge: JudgeEndpoint,
    concurrency: Concurrency,
    note: NoteLimit,
    watched: Watch,
    aside: Collection[str] = (),
    learned: Learned | None = None,
) -> Pool:
    """Open the endpoints of a judge; `VlmEvalError` for an unusable URL or key.

    Its requests bring their sampling settings along.
    """
    asked = _Asked(
        name=judge.name,
        api_key=judge.api_key,
        max_tokens=None,
        temperature=None,
        role="judge",
        form=judge.asking.form,
        learned=learned,
    )
    return _endpoint_pool(
        asked, judge.api_bases, settings, concurrency, note, watched, aside
    )


def _demo_pool(settings: Settings, concurrency: Concurrency, note: NoteLimit) -> Pool:
    from pytest_vlmeval.models.demo import DemoClient, count_threads

    # More at once only wait for a processor.
    most = Concurrency(count_threads(concurrency.ceiling), adaptive=False)
    assert settings.max_tokens is not None
    client = DemoClient(max_tokens=settings.max_tokens, concurrency=most.ceiling)
    limiter = Limiter(most, partial(note, "demo"))
    endpoints = [Endpoint("demo", client, limiter)]
    return Pool(endpoints, ceiling=most.ceiling, outage_s=settings.outage_s)


def _local_pool(settings: Settings, note: NoteLimit) -> Pool:
    from pytest_vlmeval.models.local import LocalClient

    local = _local(settings)
    assert settings.max_tokens is not None
    assert settings.temperature is not None
    client = LocalClient(
        local,
        model=str(settings.model),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        timeout_s=settings.timeout_s,
        log=settings.work_dir / "local" / f"model-{local.replica}.log",
    )
    # While one batch is answered, the next one gathers.
    most = Concurrency(2 * local.batch_size, adaptive=False)
    endpoints = [Endpoint("local", client, Limiter(most, partial(note, "local")))]
    return Pool(endpoints, ceiling=most.ceiling, outage_s=settings.outage_s)


def _local(settings: Settings) -> LocalModel:
    """Return the local model with where its checksums and its hub's files lie."""
    caches = [each.cache for each in settings.hubs if each.kind == "huggingface"]
    checksums = settings.cache_dir / "checksums.json"
    return replace(settings.local, checksums=checksums, hub_cache=caches[0])


def _cluster_pool(
    settings: Settings,
    cluster: ClusterSettings,
    concurrency: Concurrency,
    note: NoteLimit,
    aside: Collection[str],
) -> Pool:
    from pytest_vlmeval.models.cluster import place_replicas

    recipes = _recipes(settings)
    place = place_replicas(cluster, needs_gpu=recipes[0].needs_gpu)
    from pytest_vlmeval.models.cluster.replica import Crew, Replica

    crew = Crew()
    if settings.backend != "endpoint":
        # While one batch is answered, the next one gathers.
        size = settings.local.batch_size if settings.backend == "local" else 1
        concurrency = Concurrency(2 * size, adaptive=False)
    endpoints = []
    for number in range(max(place.replicas, len(recipes))):
        name = f"replica {number}"
        recipe = recipes[number % len(recipes)]
        client = Replica(name, recipe, crew, on_gpu=place.on_gpu)
        endpoints.append(
            Endpoint(name, client, Limiter(concurrency, partial(note, name)))
        )
    ceiling = concurrency.ceiling
    if settings.backend != "endpoint":
        ceiling *= len(endpoints)
    return Pool(endpoints, ceiling=ceiling, outage_s=settings.outage_s, aside=aside)


def _recipes(settings: Settings) -> Sequence[Recipe]:
    """Return what the replicas are made by, in turn."""
    from pytest_vlmeval.models.cluster.recipes import (
        DemoRecipe,
        EndpointRecipe,
        LocalRecipe,
    )

    if settings.backend == "demo":
        assert settings.max_tokens is not None
        return [DemoRecipe(max_tokens=settings.max_tokens)]
    shared: dict[str, Any] = {
        "model": str(settings.model),
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "timeout_s": settings.timeout_s,
    }
    if settings.backend == "local":
        return [LocalRecipe(local=_local(settings), **shared)]
    return [
        EndpointRecipe(
            api_base=api_base,
            api_key=settings.api_key,
            concurrency=settings.concurrency or AUTO_CEILING,
            max_reply_mb=settings.max_reply_mb,
            form=settings.form,
            **shared,
        )
        for api_base in dict.fromkeys(map(normalize_api_base, settings.api_bases))
    ]


def _endpoint_pool(
    asked: _Asked,
    api_bases: Sequence[str],
    settings: Settings,
    concurrency: Concurrency,
    note: NoteLimit,
    watched: Watch,
    aside: Collection[str] = (),
) -> Pool:
    from pytest_vlmeval.models.endpoint import EndpointClient

    endpoints = []
    bases = [normalize_api_base(each, asked.role) for each in api_bases]
    for api_base in dict.fromkeys(bases):
        client = EndpointClient(
            model=asked.name,
            api_base=api_base,
            api_key=asked.api_key,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            timeout_s=settings.timeout_s,
            # The pool bounds them; this process's part may grow to the whole.
            concurrency=settings.concurrency or AUTO_CEILING,
            max_reply_mb=settings.max_reply_mb,
            role=asked.role,
            form=asked.form,
            learned=asked.learned,
        )
        limiter = Limiter(concurrency, partial(note, client.api_base))
        endpoints.append(Endpoint(client.api_base, watched(client), limiter))
    return Pool(
        endpoints,
        ceiling=concurrency.ceiling,
        outage_s=settings.outage_s,
        aside=aside,
    )
