"""What a session says of itself at its start."""

from __future__ import annotations

import pytest

from pytest_vlmeval.judge_settings import SERVED
from pytest_vlmeval.option_values import shown_address
from pytest_vlmeval.options import is_given
from pytest_vlmeval.presets import NO_PRESET
from pytest_vlmeval.session import SCREEN_KEY, get_settings, is_model_given, is_worker


def tell_remarks(config: pytest.Config) -> None:
    """Say what of a task file has no effect, and what does not count of it."""
    if is_given("config", config) and not is_worker(config):
        for remark in get_settings(config).remarks:
            config.stash[SCREEN_KEY].announce(remark)


def header(config: pytest.Config) -> list[str]:
    """Return the line that says what is evaluated; nothing where no model is named."""
    if not is_model_given(config):
        if not is_given("judge", config):
            return []
        settings = get_settings(config)
        return [f"vlmeval: {settings.judging}, store {settings.store_name}"]
    settings = get_settings(config)
    where = ", ".join(map(shown_address, settings.api_bases))
    where = "" if settings.backend == "demo" else f" at {where}"
    if settings.backend == "local":
        where = f" here, from {settings.local.path or 'its hub'}"
    if settings.serving.model:
        where = f" {SERVED}"
    if settings.cluster is not None:
        where += " on Ray"
    if settings.preset != NO_PRESET:
        where += f", preset {settings.preset}"
    return [
        f"vlmeval: model {settings.model}{where}, {settings.judging}, "
        f"store {settings.store_name}"
    ]
