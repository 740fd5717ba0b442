"""The media of a dataset: its own bytes, once per content, known to be readable."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import PIL

# Pillow itself loads those of JPEG, PNG, GIF and BMP; the import registers the others.
from PIL import (
    Image,
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
    features,
)

from pytest_vlmeval.sandbox.own_files import MOST_IMAGE_BYTES, OUTSIDE, read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pillow's name of a format: the suffix and media type of its files. An MPO is a JPEG
# with more pictures behind the first.
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
# ms-vlmeval takes a shorter text for the index of the row that has the picture.
SHORTEST_PICTURE = 65
# Begins the text that stands for a picture's base64 text in a table; the SHA-256 of
# its content follows, which makes it long enough to pass for a picture.
STAND_IN = "picture:"
# Begins what holds a picture's base64 text where others name a file.
BASE64_URL = "data:;base64,"
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


class PictureError(Exception):
    """A picture that cannot be sent to a model; the text says why."""


class Picture(NamedTuple):
    """A file in the media folder.

    `saved_as` is the suffix of the file that ms-vlmeval writes it to anew, "" where it
    opens the file as it is.
    """

    name: str
    media_type: str
    saved_as: str = ""


class PictureStore:
    """Writes pictures below one folder and remembers which path stands for which."""

    def __init__(
        self,
        folder: Path,
        others: Path,
        *,
        linked: bool,
        within: Sequence[Path] | None = None,
    ) -> None:
        """Take the media folder, and one for contents that are no pictures.

        Both must exist. `linked` puts each picture at its path too, for classes of
        ms-vlmeval that open it there; where they only name it, that costs more than
        all the rest. Files are read from `within` these folders, None for any.
        """
        self._within = within
        self._folder = folder
        self._others = others
        self._linked = linked
        self._by_content: dict[str, Picture] = {}
        self._by_path: dict[str, Picture] = {}
        self._faults: dict[str, PictureError] = {}

    def stand_in(self, text: str) -> str:
        """Store what a base64 text holds; give the short text that stands for it.

        Any other text is given back.
        """
        if len(text) < SHORTEST_PICTURE or not BASE64.fullmatch(text):
            return text
        try:
            data = base64.b64decode(text)
        except binascii.Error:
            return text  # the row that shows it says why
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_content and digest not in self._faults:
            try:
                self._add(data)
            except PictureError as fault:  # perhaps meant to be none: a PDF
                self._faults[digest] = fault
                (self._others / digest).write_bytes(data)
        return STAND_IN + digest

    def content(self, stand_in: str) -> bytes:
        """Give the bytes that a text of `stand_in` stands for."""
        digest = stand_in.removeprefix(STAND_IN)
        if digest in self._faults:
            return (self._others / digest).read_bytes()
        return (self._folder / self._by_content[digest].name).read_bytes()

    def write_base64(self, text: str, path: str) -> None:
        """Store a picture of a table cell, which ms-vlmeval knows by `path`."""
        picture = self._store(text, path)._replace(saved_as=Path(path).suffix.lower())
        self._by_path[path] = picture
        if self._linked:
            self._link(picture, Path(path))

    def _store(self, text: str, path: str) -> Picture:
        digest = text.removeprefix(STAND_IN)
        if digest in self._faults:
            raise self._faults[digest]
        if digest not in self._by_content:
            try:
                data = base64.b64decode(text)
            except (binascii.Error, ValueError) as error:
                raise PictureError(f"its text is not base64 ({error})") from error
            digest = self._add(data)
        self._by_path[path] = self._by_content[digest]
        return self._by_path[path]

    def _link(self, picture: Picture, target: Path) -> None:
        # Its path is what a cell of the table says.
        place = Path(os.path.realpath(target.parent))
        if not place.is_relative_to(self._others.resolve()):
            raise PictureError(f"{target}: {OUTSIDE}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(self._folder.absolute() / picture.name)

    def knows(self, path: str) -> bool:
        """Whether the picture of a path is stored."""
        return path in self._by_path

    def at(self, path: str) -> Picture:
        """Give the picture at `path`, storing it if ms-vlmeval made the file.

        Some classes give a data URL or the table's cell where others name a file.
        """
        text = path.partition(";base64,")[2] if path.startswith("data:") else path
        if path.startswith(("data:", STAND_IN)):
            return self._store(text, path)
        picture = self._by_path.get(path)
        if picture is None:
            try:
                data = read_regular(Path(path), MOST_IMAGE_BYTES, self._within)
                digest = self._add(data)
            except OSError as error:
                raise PictureError(f"{path}: {error.strerror}") from error
            except ValueError as error:  # a path with a NUL in it
                raise PictureError(f"{path!r}: {error}") from error
            self._by_path[path] = picture = self._by_content[digest]
        return picture

    def _add(self, data: bytes) -> str:
        """Write a picture unless it is there; give the SHA-256 it is known by."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_content:
            suffix, media_type = FORMATS[check_picture(data)]
            picture = Picture(digest + suffix, media_type)
            (self._folder / picture.name).write_bytes(data)
            self._by_content[digest] = picture
        return digest


def check_picture(data: bytes) -> str:
    """Give Pillow's name of the format; raises PictureError when it does not decode.

    The whole picture is decoded, so that a cut one is noticed: a JPEG at an eighth of
    its size, which takes a fraction of the time.
    """
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PictureError(
                    f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}"
                )
            if image.format == "JPEG":
                image.draft(image.mode, (width // 8 or 1, height // 8 or 1))
            image.load()
            return str(image.format)
    except UnidentifiedImageError:
        if known := BRANDS.get(data[4:12]):
            raise PictureError(
                f"it is {known}, which Pillow {PIL.__version__} of the sandbox's "
                "environment does not read. Convert it to PNG or JPEG."
            ) from None
        raise PictureError(
            f"its {len(data)} bytes are not a picture in {', '.join(OPENED)}"
        ) from None
    # Pillow's decoders raise many things on broken input.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PictureError(str(error) or type(error).__name__) from error
