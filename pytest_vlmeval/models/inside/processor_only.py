"""Makes code that insists on CUDA run on the processor, where there is no GPU.

ms-vlmeval's classes ask nvidia-smi for the memory, take flash attention and move their
inputs to "cuda", whatever the machine has.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import transformers


def run_without_cuda() -> str:
    """Fix what is known to insist on CUDA; return "cuda" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    memory: Any = importlib.import_module("vlmeval.smp")
    # They choose by how much there is, and refuse to run with none.
    memory.get_gpu_memory = lambda: [1]
    for owner in (torch.Tensor, torch.nn.Module, transformers.BatchFeature):
        _patch(owner, "to", _on_processor)
    _patch(transformers.BatchEncoding, "to", _on_processor)
    for owner in (torch.Tensor, torch.nn.Module):
        _patch(owner, "cuda", lambda given: lambda self, *args, **options: self)
    model: Any = transformers.PreTrainedModel
    model.from_pretrained = classmethod(_load(model.from_pretrained.__func__))
    return "cpu"


def _patch(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def _cpu(value: Any) -> Any:
    if isinstance(value, str | torch.device) and str(value).startswith("cuda"):
        return "cpu"
    return value


def _on_processor(given: Callable[..., Any]) -> Callable[..., Any]:
    def to(self: Any, *args: Any, **options: Any) -> Any:
        moved = {name: _cpu(value) for name, value in options.items()}
        return given(self, *map(_cpu, args), **moved)

    return to


def _load(given: Callable[..., Any]) -> Callable[..., Any]:
    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        if options.get("attn_implementation") == "flash_attention_2":
            options["attn_implementation"] = "sdpa"
        if options.get("device_map") is not None:
            options["device_map"] = "cpu"
        return given(cls, *args, **options)

    return from_pretrained
