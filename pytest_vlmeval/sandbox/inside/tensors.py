"""The little of torch, torchvision and OpenCV that cutting frames takes, in NumPy.

MVBench's classes stack frames into a tensor of [0, 1] and take pictures out of it
again. In 32 bits that gives back every level, which a test holds.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Tensor:
    """An array with the methods of a tensor that are used."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def permute(self, *axes: int) -> Tensor:
        """Change the order of the axes."""
        return Tensor(self.array.transpose(axes))

    def contiguous(self) -> Tensor:
        """Keep the values in memory in their order."""
        return Tensor(np.ascontiguousarray(self.array))

    def float(self) -> Tensor:
        """Give 32-bit numbers."""
        return Tensor(self.array.astype(np.float32))

    def div(self, divisor: int) -> Tensor:
        """Divide every value."""
        return Tensor(self.array / np.float32(divisor))

    def size(self, axis: int) -> int:
        """Give the length of an axis."""
        return int(self.array.shape[axis])


def split(tensor: Tensor, size: int) -> list[Tensor]:
    """Cut a tensor into parts of a size along its first axis, as torch.split."""
    starts = range(0, tensor.size(0), size)
    return [Tensor(tensor.array[start : start + size]) for start in starts]


class Compose:
    """One function after the other, as torchvision.transforms.Compose."""

    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        self._steps = steps

    def __call__(self, value: Any) -> Any:
        """Apply all of them."""
        for step in self._steps:
            value = step(value)
        return value


class ToPILImage:
    """A picture of [0, 1], as torchvision.transforms.ToPILImage: rounded down."""

    def __call__(self, tensor: Tensor) -> Image.Image:
        """Take channels, height, width; give a picture."""
        levels = (tensor.array * np.float32(255)).astype(np.uint8)
        return Image.fromarray(levels.transpose(1, 2, 0))


def replace_tensors(_module: ModuleType) -> None:
    """Answer dataset/mvbench.py:9-19: torch, torchvision and cv2 for a few calls."""
    if _is_missing("torch"):
        torch: Any = ModuleType("torch")
        torch.Tensor = torch.from_numpy = Tensor
        torch.split = split
        transforms: Any = ModuleType("torchvision.transforms")
        transforms.Compose, transforms.ToPILImage = Compose, ToPILImage
        torchvision: Any = ModuleType("torchvision")
        torchvision.transforms = transforms
        sys.modules["torch"] = torch
        sys.modules["torchvision"] = torchvision
        sys.modules["torchvision.transforms"] = transforms
    if _is_missing("cv2"):
        cv2: Any = ModuleType("cv2")
        cv2.COLOR_RGBA2RGB = None
        cv2.cvtColor = lambda frame, _code: np.ascontiguousarray(frame[..., :3])
        sys.modules["cv2"] = cv2


def _is_missing(name: str) -> bool:
    return name not in sys.modules and find_spec(name) is None


BEFORE: dict[str, Callable[[ModuleType], None]] = {
    f"vlmeval.dataset.{name}": replace_tensors
    for name in (
        "mvbench",
        "tamperbench",
        "utils.mvbench",
        "utils.tamperbench",
        "EgoExoBench.egoexobench",
        "EgoExoBench.utils",
    )
}
