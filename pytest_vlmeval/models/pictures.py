"""Images as the options send them: bounded in size, or encoded as ms-vlmeval does."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from pytest_vlmeval.prompt_settings import Prompting

JPEG_QUALITY = 95
# What ms-vlmeval enlarges the shorter edge of an image to (smp/vlm.py:123), and the
# longest side of a JPEG.
SHORTEST_EDGE = 100
LONGEST_SIDE = 65_500
# What it makes RGB of; an image in another mode is encoded as it is.
_CONVERTED = ("RGBA", "P", "LA")
# A PNG holds the pixels of these as they are.
_LOSSLESS = ("RGB", "L", "1")
# The formats whose pictures stay what they are; all others become PNG.
_KEPT = {"image/jpeg": "JPEG", "image/webp": "WEBP", "image/png": "PNG"}


def target_size(width: int, height: int, prompting: Prompting) -> tuple[int, int]:
    """Give the size, in pixels, of a picture within both bounds; never a larger one.

    The longest side is bounded as `img_size` of ms-vlmeval's API models does, the area
    as `max_pixels` of Qwen's processors.
    """
    scale = 1.0
    if prompting.image_size is not None:
        scale = min(scale, prompting.image_size / max(width, height))
    if prompting.max_pixels is not None:
        scale = min(scale, (prompting.max_pixels / (width * height)) ** 0.5)
    if scale == 1:
        return width, height
    # Rounded down, so that the bounds hold.
    return max(1, int(width * scale)), max(1, int(height * scale))


def fit_picture(
    data: bytes, media_type: str, prompting: Prompting
) -> tuple[bytes, str]:
    """Give a picture within the bounds, and its media type.

    One that is within them stays as it is, byte by byte. Raises OSError for what PIL
    cannot read, ValueError for more pixels than it takes.
    """
    from PIL import Image

    try:
        return _fit(data, media_type, prompting)
    # The warning is an error where pytest makes all of them such.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from None


def _fit(data: bytes, media_type: str, prompting: Prompting) -> tuple[bytes, str]:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as picture:
        size = target_size(*picture.size, prompting)
        if size == picture.size:
            return data, media_type
        upright = ImageOps.exif_transpose(picture)
        if upright.size != picture.size:
            size = (size[1], size[0])
        if upright.mode not in {"RGB", "RGBA", "L"}:
            upright = upright.convert(
                "RGBA" if "transparency" in upright.info else "RGB"
            )
        smaller = upright.resize(size, Image.Resampling.LANCZOS)
    kept = _KEPT.get(media_type, "PNG")
    out = io.BytesIO()
    options = {} if kept == "PNG" else {"quality": JPEG_QUALITY}
    smaller.save(out, kept, **options)
    return out.getvalue(), media_type if media_type in _KEPT else "image/png"


def as_ms_vlmeval(data: bytes, saved_as: str, image_size: int | None) -> bytes:
    """Give the bytes that an API model of ms-vlmeval sends for an image: a JPEG.

    It writes what a table's cell holds to a file, whose suffix is `saved_as`, and
    encodes that file anew (smp/vlm.py:159, :103); with "" the file is `data` itself.
    `image_size` is its `img_size`. Raises OSError or ValueError for what it cannot
    send.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if not saved_as:
                return _encode(picture, image_size)
            with _save(picture, saved_as) as saved:
                return _encode(saved, image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from None


def _save(picture: Picture, suffix: str) -> Picture:
    """Return an image as the file holds it in which ms-vlmeval keeps it."""
    from PIL import Image

    if picture.mode in _CONVERTED:
        picture = picture.convert("RGB")
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise ValueError(f"Pillow writes no file that ends with {suffix}")
    if kind == "PNG" and picture.mode in _LOSSLESS:
        pixels = picture.copy()
        pixels.info.clear()  # a comment would go into the JPEG
        return pixels
    out = io.BytesIO()
    picture.save(out, kind)
    return Image.open(out)


def _encode(picture: Picture, image_size: int | None) -> bytes:
    """Write the JPEG that is sent.

    Its bound of 10^9 characters of base64 is left out: no image that can be prepared
    reaches it.
    """
    if picture.mode in _CONVERTED:
        picture = picture.convert("RGB")
    if image_size is not None:
        picture.thumbnail((image_size, image_size))
    width, height = picture.size
    if min(width, height) < SHORTEST_EDGE:
        factor = SHORTEST_EDGE / min(width, height)
        width, height = int(width * factor), int(height * factor)
    if max(width, height) > LONGEST_SIDE:
        raise ValueError(
            f"it is {width} x {height} pixels there, and no side of a JPEG is longer "
            f"than {LONGEST_SIDE:,}"
        )
    if (width, height) != picture.size:
        picture = picture.resize((width, height))
    out = io.BytesIO()
    picture.save(out, "JPEG")
    return out.getvalue()
