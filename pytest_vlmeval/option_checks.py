"""What options say only together: what one takes from others, or excludes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pytest_vlmeval.errors import VlmEvalError

Backend = Literal["auto", "endpoint", "demo", "local"]


def choose_backend(backend: Backend, model: str | None) -> Backend:
    """Return where the model runs."""
    if backend == "auto":
        return "demo" if model == "demo" else "endpoint"
    return backend


def check_together(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` for options that exclude each other."""
    check_frames(values)
    check_sent(values, backend)
    check_repeat(values, backend)
    check_stop_early(values)


def check_frames(values: Mapping[str, Any]) -> None:
    """Raise `VlmEvalError` where a video would be shown in two ways."""
    given = [name for name in ("nframe", "fps", "video-url") if values[name]]
    if len(given) > 1:
        options = " and ".join(f"--vlm-{name}" for name in given)
        raise VlmEvalError(
            f"{options} exclude each other: a video is shown as N frames, as F frames "
            "per second or as its file. Give one of them."
        )


def check_sent(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` where no server has a value of its own."""
    if backend == "endpoint":
        return
    for name in ("max-tokens", "temperature"):
        if values[name] is None:
            raise VlmEvalError(
                f"--vlm-{name}=none leaves it to the model's server, and "
                f"--vlm-backend={backend} has none. Give a number, or leave it out."
            )
    for name in ("max-tokens-name", "api-query", "api-header-file"):
        if values[name] is not None:
            raise VlmEvalError(
                f"--vlm-{name} is about requests to a server, and "
                f"--vlm-backend={backend} has none. Leave it out."
            )


def check_repeat(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` where repeats would all be alike."""
    if values["repeat"] == 1:
        return
    given = f"--vlm-repeat={values['repeat']} asks each sample {values['repeat']} times"
    if backend == "demo":
        raise VlmEvalError(
            f"{given}, but the demo model answers a prompt always alike. Leave "
            "--vlm-repeat out."
        )
    if values["temperature"] == 0:
        raise VlmEvalError(
            f"{given}, but at --vlm-temperature=0 a model answers alike each time. "
            "Give a temperature above 0, for example --vlm-temperature=0.7, or leave "
            "--vlm-repeat out."
        )


def check_stop_early(values: Mapping[str, Any]) -> None:
    """Raise `VlmEvalError` for what excludes that gates are decided one by one."""
    if not values["stop-early"]:
        return
    mode = values["mode"]
    if mode in ("infer", "score"):
        raise VlmEvalError(
            f"--vlm-stop-early and --vlm-mode={mode} exclude each other: samples are "
            "scored while others are asked. Give --vlm-mode=all, or leave "
            "--vlm-stop-early out."
        )
    if values["fdr"] is not None:
        raise VlmEvalError(
            "--vlm-stop-early and --vlm-fdr exclude each other: the one decides each "
            "gate by itself, the other all together. Leave one of them out."
        )
    if values["repeat"] > 1:
        raise VlmEvalError(
            f"--vlm-stop-early and --vlm-repeat={values['repeat']} exclude each other: "
            "a gate is decided early only by samples that are asked once. Leave one "
            "of them out."
        )
