"""Which servers a run starts by itself: what the options say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_vlmeval.errors import VlmEvalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Commands, as words, that serve the model and the judge; () where none is given.

    `replicas` is how many servers the model has, `timeout_s` how long each may take
    until it can be asked. `visible_devices` is CUDA_VISIBLE_DEVICES of the user, None
    where it is unset.
    """

    model: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    replicas: int = 1
    timeout_s: float = 1800
    visible_devices: str | None = None


def choose_serving(
    values: Mapping[str, Any], visible_devices: str | None, *, api_base_given: bool
) -> Serving:
    """Return the servers of a run; `VlmEvalError` for options that exclude each other.

    `api_base_given` tells whether the address of the model's endpoint was given.
    """
    if values["serve"] and api_base_given:
        raise VlmEvalError(
            "--vlm-serve and --vlm-api-base exclude each other: a server that the run "
            "starts says its address itself. Leave one of them out."
        )
    if values["judge-serve"] and values["judge-api-base"]:
        raise VlmEvalError(
            "--vlm-judge-serve and --vlm-judge-api-base exclude each other: a server "
            "that the run starts says its address itself. Leave one of them out."
        )
    if values["judge-serve"] and not values["judge"]:
        raise VlmEvalError(
            "--vlm-judge-serve starts a judge's server, and no judge is named. Give "
            "--vlm-judge=NAME too, the name that server serves it under."
        )
    if values["serve-replicas"] > 1 and not values["serve"]:
        raise VlmEvalError(
            f"--vlm-serve-replicas={values['serve-replicas']} says how many servers "
            "--vlm-serve starts, which is not given."
        )
    return Serving(
        model=values["serve"] or (),
        judge=values["judge-serve"] or (),
        replicas=values["serve-replicas"],
        timeout_s=values["serve-timeout"],
        visible_devices=visible_devices,
    )
