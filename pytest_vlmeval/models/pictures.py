"""Makes pictures smaller where the options bound their size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.prompt_settings import Prompting

JPEG_QUALITY = 95
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
