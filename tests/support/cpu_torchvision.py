"""Lets torchvision's wheel for CUDA be imported beside a torch without CUDA.

Copied as `sitecustomize.py` into the environment of the model servers. Its two
compiled libraries cannot be loaded there. One holds operators that only have to be
declared; of the other, transformers uses the decoding of images, done here by PIL.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

DETECTIONS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _decode_image(source: Any, mode: Any = None, **options: Any) -> Any:
    """Read an image as torchvision does: channels, height and width, in bytes."""
    import numpy as np
    import torch
    from PIL import Image

    named = isinstance(source, str | bytes) or hasattr(source, "__fspath__")
    file = source if named else io.BytesIO(source.numpy().tobytes())
    image = Image.open(file)
    grey = getattr(mode, "name", mode) == "GRAY"
    pixels = np.array(image.convert("L" if grey else "RGB"))
    if grey:
        pixels = pixels[:, :, None]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class _Finder(importlib.abc.MetaPathFinder):
    """Steps in when torchvision is first imported."""

    library: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision" and self.library is None:
            self._declare()
        if name != "torchvision.io.image" or self.library is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def load(module: ModuleType) -> None:
                execute(module)
                module.decode_image = _decode_image  # type: ignore[attr-defined]

            spec.loader.exec_module = load  # type: ignore[method-assign]
        return spec

    def _declare(self) -> None:
        import torch

        if torch.version.cuda is None:
            # Its declarations hold as long as it lives.
            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(operator + DETECTIONS)


sys.meta_path.insert(0, _Finder())
