"""Images, frames and videos of a dataset: each content once, known to be readable.

MVBench's classes stack frames into a tensor of [0, 1] and take images out of it
again. In 32 bits that gives back every level, which a test holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    OUTSIDE,
    SHORTEST_IMAGE,
    read_regular,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Pillow's name of a format: the suffix and media type of its files. An MPO is a JPEG
# with more images behind the first.
FORMATS = {
    "JPEG": (".jpg", "image/jpeg"),
    "MPO": (".jpg", "image/jpeg"),
    "PNG": (".png", "image/png"),
    "WEBP": (".webp", "image/webp"),
    "GIF": (".gif", "image/gif"),
    "BMP": (".bmp", "image/bmp"),
    "TIFF": (".tif", "image/tiff"),
}
# Pillow reads it from version 11.3 on, where it was built with a library for it.
if features.check("avif"):
    from PIL import AvifImagePlugin  # noqa: F401

    FORMATS["AVIF"] = (".avif", "image/avif")
OPENED = [name for name in FORMATS if name != "MPO"]
# Formats that begin alike, by the brand that follows, which Pillow may not read.
BRANDS = {
    b"ftypavif": "AVIF",
    b"ftypavis": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypheix": "HEIC",
    b"ftypmif1": "HEIF",
}
# No more than Pillow opens unless it is told otherwise, as in the clients of models.
MAX_PIXELS = 175_000_000
# Begins the text that stands for an image's base64 text in a table; the SHA-256 of
# its content follows, which makes it long enough to pass for an image.
STAND_IN = "image:"
# Begins what holds an image's base64 text where others name a file.
BASE64_URL = "data:;base64,"
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


class ImageError(Exception):
    """An image that cannot be sent to a model; the text says why."""


class VideoError(Exception):
    """A video or frame that cannot be sent to a model; the text says why."""


class MediaFile(NamedTuple):
    """A file in the media folder.

    `saved_as` is the suffix of the file that ms-vlmeval writes it to anew, "" where it
    opens the file as it is.
    """

    name: str
    media_type: str
    saved_as: str = ""


class ImageStore:
    """Writes images below one folder and remembers which path stands for which."""

    def __init__(
        self,
        folder: Path,
        others: Path,
        *,
        linked: bool,
        within: Sequence[Path] | None = None,
    ) -> None:
        """Take the media folder, and one for contents that are no images.

        Both must exist. `linked` puts each image at its path too, for classes of
        ms-vlmeval that open it there; where they only name it, that costs more than
        all the rest. Files are read from `within` these folders, None for any.
        """
        self._within = within
        self._folder = folder
        self._others = others
        self._linked = linked
        self._by_content: dict[str, MediaFile] = {}
        self._by_path: dict[str, MediaFile] = {}
        self._faults: dict[str, ImageError] = {}

    def stand_in(self, text: str) -> str:
        """Store what a base64 text holds; give the short text that stands for it.

        Any other text is given back.
        """
        if len(text) < SHORTEST_IMAGE or not BASE64.fullmatch(text):
            return text
        try:
            data = base64.b64decode(text)
        except binascii.Error:
            return text  # the row that shows it says why
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_content and digest not in self._faults:
            try:
                self._add(data)
            except ImageError as fault:  # perhaps meant to be none: a PDF
                self._faults[digest] = fault
                (self._others / digest).write_bytes(data)
        return STAND_IN + digest

    def content(self, stand_in: str) -> bytes:
        """Return the bytes that a text of `stand_in` stands for."""
        digest = stand_in.removeprefix(STAND_IN)
        if digest in self._faults:
            return (self._others / digest).read_bytes()
        return (self._folder / self._by_content[digest].name).read_bytes()

    def write_base64(self, text: str, path: str) -> None:
        """Store an image of a table cell, which ms-vlmeval knows by `path`."""
        image = self._store(text, path)._replace(saved_as=Path(path).suffix.lower())
        self._by_path[path] = image
        if self._linked:
            self._link(image, Path(path))

    def _store(self, text: str, path: str) -> MediaFile:
        digest = text.removeprefix(STAND_IN)
        if digest in self._faults:
            raise self._faults[digest]
        if digest not in self._by_content:
            try:
                data = base64.b64decode(text)
            except (binascii.Error, ValueError) as error:
                raise ImageError(f"its text is not base64 ({error})") from error
            digest = self._add(data)
        self._by_path[path] = self._by_content[digest]
        return self._by_path[path]

    def _link(self, image: MediaFile, target: Path) -> None:
        # Its path is what a cell of the table says.
        place = Path(os.path.realpath(target.parent))
        if not place.is_relative_to(self._others.resolve()):
            raise ImageError(f"{target}: {OUTSIDE}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(self._folder.absolute() / image.name)

    def knows(self, path: str) -> bool:
        """Return whether the image of a path is stored."""
        return path in self._by_path

    def at(self, path: str) -> MediaFile:
        """Return the image at `path`, storing it if ms-vlmeval made the file.

        Some classes give a data URL or the table's cell where others name a file.
        """
        text = path.partition(";base64,")[2] if path.startswith("data:") else path
        if path.startswith(("data:", STAND_IN)):
            return self._store(text, path)
        image = self._by_path.get(path)
        if image is None:
            try:
                data = read_regular(Path(path), MOST_IMAGE_BYTES, self._within)
                digest = self._add(data)
            except OSError as error:
                raise ImageError(f"{path}: {error.strerror}") from error
            except ValueError as error:  # a path with a NUL in it
                raise ImageError(f"{path!r}: {error}") from error
            self._by_path[path] = image = self._by_content[digest]
        return image

    def _add(self, data: bytes) -> str:
        """Write an image unless it is there; give the SHA-256 it is known by."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_content:
            suffix, media_type = FORMATS[check_image(data)]
            image = MediaFile(digest + suffix, media_type)
            (self._folder / image.name).write_bytes(data)
            self._by_content[digest] = image
        return digest


def check_image(data: bytes) -> str:
    """Return Pillow's name of the format; raises ImageError when it does not decode.

    The whole image is decoded, so that a cut one is noticed: a JPEG at an eighth of
    its size, which takes a fraction of the time.
    """
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}"
                )
            if image.format == "JPEG":
                image.draft(image.mode, (width // 8 or 1, height // 8 or 1))
            image.load()
            return str(image.format)
    except UnidentifiedImageError:
        if known := BRANDS.get(data[4:12]):
            raise ImageError(
                f"it is {known}, which Pillow {PIL.__version__} of the sandbox's "
                "environment does not read. Convert it to PNG or JPEG."
            ) from None
        raise ImageError(
            f"its {len(data)} bytes are not an image in {', '.join(OPENED)}"
        ) from None
    # Pillow's decoders raise many things on broken input.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise ImageError(str(error) or type(error).__name__) from error


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
        """Return 32-bit numbers."""
        return Tensor(self.array.astype(np.float32))

    def div(self, divisor: int) -> Tensor:
        """Divide every value."""
        return Tensor(self.array / np.float32(divisor))

    def size(self, axis: int) -> int:
        """Return the length of an axis."""
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
    """An image of [0, 1], as torchvision.transforms.ToPILImage: rounded down."""

    def __call__(self, tensor: Tensor) -> Image.Image:
        """Take channels, height, width; give an image."""
        levels = (tensor.array * np.float32(255)).astype(np.uint8)
        return Image.fromarray(levels.transpose(1, 2, 0))


def replace_torchvision(_module: ModuleType) -> None:
    """Answer dataset/mmlongbench.py:11, torch for one call that changes a size.

    Only models that see many pages in one image get there, and none is named here.
    """
    if _is_missing("torchvision"):
        transforms: Any = ModuleType("torchvision.transforms")
        transforms.Compose, transforms.ToPILImage = Compose, ToPILImage
        torchvision: Any = ModuleType("torchvision")
        torchvision.transforms = transforms
        sys.modules["torchvision"] = torchvision
        sys.modules["torchvision.transforms"] = transforms


def replace_tensors(module: ModuleType) -> None:
    """Answer dataset/mvbench.py:9-19: torch, torchvision and cv2 for a few calls."""
    replace_torchvision(module)
    if _is_missing("torch"):
        torch: Any = ModuleType("torch")
        torch.Tensor = torch.from_numpy = Tensor
        torch.split = split
        sys.modules["torch"] = torch
    if _is_missing("cv2"):
        cv2: Any = ModuleType("cv2")
        cv2.COLOR_RGBA2RGB = None
        cv2.cvtColor = lambda frame, _code: np.ascontiguousarray(frame[..., :3])
        sys.modules["cv2"] = cv2


def _is_missing(name: str) -> bool:
    return name not in sys.modules and find_spec(name) is None


BEFORE: dict[str, Callable[[ModuleType], None]] = {
    "vlmeval.dataset.mmlongbench": replace_torchvision
} | {
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
