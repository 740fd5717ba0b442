"""Opens the endpoints of what the user asked to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import normalize_api_base
from pytest_vlmeval.models.pool import (
    AUTO_CEILING,
    Concurrency,
    Endpoint,
    Learned,
    Limiter,
    Pool,
)
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.settings.option import shown_address

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import ModelClient, Role
    from pytest_vlmeval.settings import Settings
    from pytest_vlmeval.settings.groups import (
        ClusterSettings,
        JudgeEndpoint,
        LocalModel,
    )

# Makes a client, here or on a node of a cluster, where it travels to: with a folder for
# logs, what CUDA_VISIBLE_DEVICES is there, and what is known of servers.
Recipe = Callable[[Path, str | None, Learned], "ModelClient"]


def create_pool(
    settings: Settings,
    concurrency: Concurrency,
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
    backend = BACKENDS[settings.backend]
    slots = backend.slots(settings, concurrency)
    recipes = backend.recipes(settings, slots.ceiling)
    if settings.cluster is None:
        clients = _make(recipes, settings, learned)
    else:
        able = list(recipes.values())
        clients = _place(able, settings.cluster, needs_gpu=backend.is_ours)
    ceiling = slots.ceiling * (1 if backend.is_served else len(clients))
    return _pool_of(clients, slots, ceiling, settings, aside)


def create_judge_pool(
    settings: Settings,
    judge: JudgeEndpoint,
    concurrency: Concurrency,
    aside: Collection[str] = (),
    learned: Learned | None = None,
) -> Pool:
    """Open the endpoints of a judge; `VlmEvalError` for an unusable URL or key.

    Its requests bring their sampling settings along.
    """
    recipes = _endpoint_recipes(
        settings,
        judge.api_bases,
        model=judge.name,
        api_key=judge.api_key,
        max_tokens=None,
        temperature=None,
        role="judge",
        form=judge.asking.form,
    )
    clients = _make(recipes, settings, learned)
    return _pool_of(clients, concurrency, concurrency.ceiling, settings, aside)


class Backend:
    """Where a model runs, and what follows from that: here, at servers.

    A model that `is_served` is sent requests, so it matters how images are sent, and
    what the server takes can be tried. One that `is_ours` to run takes a GPU where a
    cluster has some; what it says stays as it is in prediction files, and its class is
    given where a prompt comes from.
    """

    is_served = True
    is_ours = False

    def slots(self, settings: Settings, concurrency: Concurrency) -> Concurrency:
        """Return how many requests at once an endpoint is sent."""
        return concurrency

    def recipes(self, settings: Settings, slots: int) -> Mapping[str, Recipe]:
        """Return what makes the client of each endpoint, by the endpoint's name."""
        return _endpoint_recipes(
            settings,
            settings.api_bases,
            **_asking(settings),
            api_key=settings.api_key,
            role="model",
            form=settings.form,
        )

    def place(self, settings: Settings) -> str:
        """Say behind the model's name where it is asked."""
        return f" at {', '.join(map(shown_address, settings.api_bases))}"


class _Demo(Backend):
    """The model that ships with the plugin, in this process."""

    is_served = False

    def slots(self, settings: Settings, concurrency: Concurrency) -> Concurrency:
        from pytest_vlmeval.models.demo import count_threads

        # More at once only wait for a processor, of which a replica has one.
        in_cluster = settings.cluster is not None
        most = 2 if in_cluster else count_threads(concurrency.ceiling)
        return Concurrency(most, adaptive=False)

    def recipes(self, settings: Settings, slots: int) -> Mapping[str, Recipe]:
        threads = slots if settings.cluster is None else 1
        return {
            "demo": partial(
                make_demo, max_tokens=settings.max_tokens, concurrency=threads
            )
        }

    def place(self, settings: Settings) -> str:
        return ""


class _Local(Backend):
    """A model that loads its weights, in a process of its own."""

    is_served = False
    is_ours = True

    def slots(self, settings: Settings, concurrency: Concurrency) -> Concurrency:
        # While one batch is answered, the next one gathers.
        return Concurrency(2 * settings.local.batch_size, adaptive=False)

    def recipes(self, settings: Settings, slots: int) -> Mapping[str, Recipe]:
        caches = [each.cache for each in settings.hubs if each.kind == "huggingface"]
        local = replace(
            settings.local,
            checksums=settings.cache_dir / "checksums.json",
            hub_cache=caches[0],
        )
        options = {**_asking(settings), "timeout_s": settings.timeout_s}
        return {"local": partial(make_local, local=local, **options)}

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


def _asking(settings: Settings) -> dict[str, Any]:
    return {
        "model": str(settings.model),
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
    }


def _endpoint_recipes(
    settings: Settings, api_bases: Sequence[str], *, role: Role, **asked: Any
) -> Mapping[str, Recipe]:
    bases = [normalize_api_base(each, role) for each in api_bases]
    return {
        api_base: partial(
            make_endpoint,
            api_base=api_base,
            role=role,
            timeout_s=settings.timeout_s,
            # The pool bounds them; this process's part may grow to the whole.
            concurrency=settings.concurrency or AUTO_CEILING,
            max_reply_mb=settings.max_reply_mb,
            **asked,
        )
        for api_base in bases
    }


def make_endpoint(
    folder: Path, devices: str | None, learned: Learned, **options: Any
) -> ModelClient:
    """Make the client of an endpoint; its requests come from where it is made."""
    from pytest_vlmeval.models.endpoint import EndpointClient

    return EndpointClient(learned=learned, **options)


def make_demo(
    folder: Path, devices: str | None, learned: Learned, **options: Any
) -> ModelClient:
    """Make the client of the model that ships with the plugin."""
    from pytest_vlmeval.models.demo import DemoClient

    return DemoClient(**options)


def make_local(
    folder: Path,
    devices: str | None,
    learned: Learned,
    *,
    local: LocalModel,
    **options: Any,
) -> ModelClient:
    """Make the client of weights; path and interpreter are those of the node."""
    from pytest_vlmeval.models.local import LocalClient

    log = folder / f"model-{local.replica}.log"
    return LocalClient(replace(local, visible_devices=devices), log=log, **options)


def _make(
    recipes: Mapping[str, Recipe], settings: Settings, learned: Learned | None
) -> Mapping[str, ModelClient]:
    place = settings.work_dir / "local", settings.local.visible_devices
    known = Learned() if learned is None else learned
    return {name: make(*place, known) for name, make in recipes.items()}


def _place(
    recipes: Sequence[Recipe], cluster: ClusterSettings, *, needs_gpu: bool
) -> Mapping[str, ModelClient]:
    """Return the clients of a cluster's replicas, which take the recipes in turn."""
    from pytest_vlmeval.models.cluster import place_replicas

    place = place_replicas(cluster, needs_gpu=needs_gpu)
    from pytest_vlmeval.models.cluster.replica import Crew, Replica

    crew, clients = Crew(), {}
    for number in range(max(place.replicas, len(recipes))):
        name, recipe = f"replica {number}", recipes[number % len(recipes)]
        clients[name] = Replica(name, recipe, crew, on_gpu=place.on_gpu)
    return clients


def _pool_of(
    clients: Mapping[str, ModelClient],
    slots: Concurrency,
    ceiling: int,
    settings: Settings,
    aside: Collection[str],
) -> Pool:
    return Pool(
        [Endpoint(name, client, Limiter(slots)) for name, client in clients.items()],
        ceiling=ceiling,
        outage_s=settings.outage_s,
        aside=aside,
    )
