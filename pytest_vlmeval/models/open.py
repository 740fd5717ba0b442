"""Opens the endpoints of what the user asked to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
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
from pytest_vlmeval.settings.option import shown_address

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


class Opening(NamedTuple):
    """How the endpoints of a model or judge are opened, whatever they are.

    `aside` names those that could not be asked at the start; `learned` is what the
    session has found out of them.
    """

    concurrency: Concurrency
    watched: Watch
    aside: Collection[str] = ()
    learned: Learned | None = None


def create_pool(
    settings: Settings,
    concurrency: Concurrency,
    watched: Watch,
    aside: Collection[str] = (),
    learned: Learned | None = None,
) -> Pool:
    """Open the endpoints of the chosen backend; nothing is connected yet.

    `aside` names those that could not be asked at the start; `learned` is what the
    session has found out of them. Raises `VlmEvalError` for a missing model and an
    unusable URL or key. Only the chosen client is imported: openai takes a second,
    onnxruntime a part of one.
    """
    if settings.model is None:
        raise VlmEvalError(NO_MODEL)
    if settings.cluster is not None:
        return _cluster_pool(settings, settings.cluster, concurrency, aside)
    it = Opening(concurrency, watched, aside, learned)
    return backend_of(settings).open(settings, it)


def create_judge_pool(
    settings: Settings,
    judge: JudgeEndpoint,
    concurrency: Concurrency,
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
    )
    it = Opening(concurrency, watched, aside, learned)
    return _endpoint_pool(asked, judge.api_bases, settings, it)


class Backend:
    """Where a model runs, and what follows from that: here, at servers.

    A model that `is_served` is sent requests, so it matters how images are sent, and
    what the server takes can be tried. What a model says that `is_ours` to run stays as
    it is in prediction files, and its class is told where a prompt comes from.
    """

    is_served = True
    is_ours = False

    def open(self, settings: Settings, it: Opening) -> Pool:
        """Open the pool."""
        asked = _Asked(
            name=str(settings.model),
            api_key=settings.api_key,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            role="model",
            form=settings.form,
        )
        return _endpoint_pool(asked, settings.api_bases, settings, it)

    def recipes(self, settings: Settings) -> Sequence[Recipe]:
        """Return what the replicas of a cluster are made by, in turn."""
        from pytest_vlmeval.models.cluster.recipes import EndpointRecipe

        return [
            EndpointRecipe(
                api_base=api_base,
                api_key=settings.api_key,
                concurrency=settings.concurrency or AUTO_CEILING,
                max_reply_mb=settings.max_reply_mb,
                form=settings.form,
                **_shared(settings),
            )
            for api_base in dict.fromkeys(map(normalize_api_base, settings.api_bases))
        ]

    def batch_size(self, settings: Settings) -> int | None:
        """Return how many prompts a model answers at once; None if a server knows."""
        return None

    def place(self, settings: Settings) -> str:
        """Say behind the model's name where it is asked."""
        return f" at {', '.join(map(shown_address, settings.api_bases))}"


class _Demo(Backend):
    """The model that ships with the plugin, in this process."""

    is_served = False

    def open(self, settings: Settings, it: Opening) -> Pool:
        from pytest_vlmeval.models.demo import DemoClient, count_threads

        # More at once only wait for a processor.
        most = count_threads(it.concurrency.ceiling)
        assert settings.max_tokens is not None
        client = DemoClient(max_tokens=settings.max_tokens, concurrency=most)
        return _pool_of("demo", client, most, settings)

    def recipes(self, settings: Settings) -> Sequence[Recipe]:
        from pytest_vlmeval.models.cluster.recipes import DemoRecipe

        assert settings.max_tokens is not None
        return [DemoRecipe(max_tokens=settings.max_tokens)]

    def batch_size(self, settings: Settings) -> int | None:
        return 1

    def place(self, settings: Settings) -> str:
        return ""


class _Local(_Demo):
    """A model that loads its weights, in a process of its own."""

    is_ours = True

    def open(self, settings: Settings, it: Opening) -> Pool:
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
        return _pool_of("local", client, 2 * local.batch_size, settings)

    def recipes(self, settings: Settings) -> Sequence[Recipe]:
        from pytest_vlmeval.models.cluster.recipes import LocalRecipe

        return [LocalRecipe(local=_local(settings), **_shared(settings))]

    def batch_size(self, settings: Settings) -> int | None:
        return settings.local.batch_size

    def place(self, settings: Settings) -> str:
        return f" here, from {settings.local.path or 'its hub'}"


# By the values of --vlm-backend.
BACKENDS: Mapping[str, Backend] = {
    "endpoint": Backend(),
    "demo": _Demo(),
    "local": _Local(),
}


def backend_of(settings: Settings) -> Backend:
    """Return where the model of a run runs."""
    return BACKENDS[settings.backend]


def _pool_of(name: str, client: ModelClient, most: int, settings: Settings) -> Pool:
    limiter = Limiter(Concurrency(most, adaptive=False))
    return Pool(
        [Endpoint(name, client, limiter)], ceiling=most, outage_s=settings.outage_s
    )


def _shared(settings: Settings) -> dict[str, Any]:
    return {
        "model": str(settings.model),
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "timeout_s": settings.timeout_s,
    }


def _local(settings: Settings) -> LocalModel:
    """Return the local model with where its checksums and its hub's files lie."""
    caches = [each.cache for each in settings.hubs if each.kind == "huggingface"]
    checksums = settings.cache_dir / "checksums.json"
    return replace(settings.local, checksums=checksums, hub_cache=caches[0])


def _cluster_pool(
    settings: Settings,
    cluster: ClusterSettings,
    concurrency: Concurrency,
    aside: Collection[str],
) -> Pool:
    from pytest_vlmeval.models.cluster import place_replicas

    backend = backend_of(settings)
    recipes = backend.recipes(settings)
    place = place_replicas(cluster, needs_gpu=recipes[0].needs_gpu)
    from pytest_vlmeval.models.cluster.replica import Crew, Replica

    crew = Crew()
    count, size = max(place.replicas, len(recipes)), backend.batch_size(settings)
    ceiling = concurrency.ceiling
    if size is not None:
        # While one batch is answered, the next one gathers.
        concurrency = Concurrency(2 * size, adaptive=False)
        ceiling = concurrency.ceiling * count
    endpoints = []
    for number in range(count):
        name = f"replica {number}"
        recipe = recipes[number % len(recipes)]
        client = Replica(name, recipe, crew, on_gpu=place.on_gpu)
        endpoints.append(Endpoint(name, client, Limiter(concurrency)))
    return Pool(endpoints, ceiling=ceiling, outage_s=settings.outage_s, aside=aside)


def _endpoint_pool(
    asked: _Asked,
    api_bases: Sequence[str],
    settings: Settings,
    it: Opening,
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
            learned=it.learned,
        )
        limiter = Limiter(it.concurrency)
        endpoints.append(Endpoint(client.api_base, it.watched(client), limiter))
    return Pool(
        endpoints,
        ceiling=it.concurrency.ceiling,
        outage_s=settings.outage_s,
        aside=it.aside,
    )
