"""What each replica's model is made by: picklable, and without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pytest_vlmeval.settings.groups import PLAIN

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.models.client import ModelClient
    from pytest_vlmeval.settings.groups import LocalModel, RequestForm


class Recipe(Protocol):
    """Makes a client on the node where it is to answer."""

    @property
    def needs_gpu(self) -> bool:
        """Whether the model takes a GPU where the cluster has some."""

    def make(self, folder: Path, devices: str | None) -> ModelClient:
        """Make the client; `folder` is there for its log, `devices` are its GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRecipe:
    """A model that loads its weights; path and interpreter are those of the node."""

    local: LocalModel
    model: str
    max_tokens: int
    temperature: float
    timeout_s: float
    needs_gpu: bool = True

    def make(self, folder: Path, devices: str | None) -> ModelClient:
        """Make the client; Ray has chosen its GPUs already."""
        from pytest_vlmeval.models.local import LocalClient

        return LocalClient(
            replace(self.local, visible_devices=devices),
            model=self.model,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            timeout_s=self.timeout_s,
            log=folder / "model.log",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecipe:
    """The model that ships with the plugin."""

    max_tokens: int
    needs_gpu: bool = False

    def make(self, folder: Path, devices: str | None) -> ModelClient:
        """Make the client."""
        from pytest_vlmeval.models.demo import DemoClient

        return DemoClient(max_tokens=self.max_tokens, concurrency=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecipe:
    """The client of an endpoint; its requests then come from the node."""

    model: str
    api_base: str
    api_key: str | None = field(repr=False)
    max_tokens: int | None
    temperature: float | None
    timeout_s: float
    concurrency: int
    max_reply_mb: float
    form: RequestForm = PLAIN
    needs_gpu: bool = False

    def make(self, folder: Path, devices: str | None) -> ModelClient:
        """Make the client."""
        from pytest_vlmeval.models.endpoint import EndpointClient

        return EndpointClient(
            model=self.model,
            api_base=self.api_base,
            api_key=self.api_key,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            timeout_s=self.timeout_s,
            concurrency=self.concurrency,
            max_reply_mb=self.max_reply_mb,
            form=self.form,
        )
