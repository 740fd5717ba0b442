"""What tells runs apart, and what is said of those that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_vlmeval.presets import NO_PRESET

if TYPE_CHECKING:
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import Setting
    from pytest_vlmeval.store.runs import OtherRun


def identify(settings: Settings) -> dict[str, Setting | None]:
    """Return what tells runs apart; the endpoint's address is not in it.

    A limit or a temperature that is not sent is None. The name under which a server
    takes the limit changes no answer.
    """
    local = settings.local.identity() if settings.backend == "local" else {}
    prompting = settings.prompting.identity()
    if settings.backend != "endpoint":
        del prompting["images"]  # how a server is sent them
    return {
        "model": settings.model,
        "backend": settings.backend,
        **({} if settings.preset == NO_PRESET else {"preset": settings.preset}),
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        **prompting,
        **local,
    }


def generation_of(settings: Settings) -> dict[str, Setting | None]:
    """Return what an answer depends on beside the model and the prompt."""
    identity = identify(settings)
    del identity["model"], identity["backend"]
    return {**identity, "repeat": settings.repeat}


def _shown(value: object) -> object:
    return "none" if value is None else value


def tell_apart(mine: Mapping[str, object], others: Sequence[OtherRun]) -> list[str]:
    """Return a line on each run of the same model that goes on beside this one."""
    found = []
    for other in others:
        if other.settings.get("model") != mine["model"]:
            continue
        differences = [
            f"its {name} is {_shown(other.settings.get(name))}, here it is "
            f"{_shown(value)}"
            for name, value in mine.items()
            if other.settings.get(name) != value
        ]
        found.append(
            "another command works in this store at a run of its own, which shares "
            "no answers with this one: "
            + (", ".join(differences) or "one of them was started with --vlm-fresh")
        )
    return found
