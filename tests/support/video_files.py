"""Videos of a few kB: an MP4 whose frames are JPEG images, written box by box."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

from PIL import Image

SIZE = (64, 48)
# The identity, as 16.16 and 2.30 fixed-point numbers.
MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def colours(count: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Give a colour for each frame, far enough apart to survive JPEG."""
    return [
        (37 * (frame + seed) % 256, 91 * frame % 256, 53 * (seed + 1) % 256)
        for frame in range(count)
    ]


def write_video(frames: Sequence[tuple[int, int, int]], fps: int = 4) -> bytes:
    """Give an MP4 with one plain frame for each colour."""
    images = [_jpeg(colour) for colour in frames]
    file_type = _box(b"ftyp", b"isom", _numbers(0x200), b"isomiso2mp41")
    data = _box(b"mdat", *images)
    return file_type + data + _movie(images, fps, offset=len(file_type) + 8)


def _jpeg(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(out, "JPEG", quality=90)
    return out.getvalue()


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _movie(images: Sequence[bytes], fps: int, offset: int) -> bytes:
    duration = len(images)
    header = _box(
        b"mvhd",
        _numbers(0, 0, 0, fps, duration, 0x10000, 0x1000000, 0, 0),
        MATRIX,
        bytes(24),
        _numbers(2),
    )
    track_header = _box(
        b"tkhd",
        _numbers(3, 0, 0, 1, 0, duration, 0, 0, 0, 0),
        MATRIX,
        _numbers(SIZE[0] << 16, SIZE[1] << 16),
    )
    media = _box(
        b"mdia",
        _box(b"mdhd", _numbers(0, 0, 0, fps, duration, 0x55C40000)),
        _box(b"hdlr", _numbers(0, 0), b"vide", bytes(12), b"frames\0"),
        _box(
            b"minf",
            _box(b"vmhd", _numbers(1, 0, 0)),
            _box(b"dinf", _box(b"dref", _numbers(0, 1), _box(b"url ", _numbers(1)))),
            _samples(images, offset),
        ),
    )
    return _box(b"moov", header, _box(b"trak", track_header, media))


def _samples(images: Sequence[bytes], offset: int) -> bytes:
    count = len(images)
    format_of_frames = _box(
        b"jpeg",
        bytes(6),
        struct.pack(">H", 1),
        bytes(16),
        struct.pack(">HHIIIH", *SIZE, 0x480000, 0x480000, 0, 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
    )
    return _box(
        b"stbl",
        _box(b"stsd", _numbers(0, 1), format_of_frames),
        _box(b"stts", _numbers(0, 1, count, 1)),
        _box(b"stsc", _numbers(0, 1, 1, count, 1)),
        _box(b"stsz", _numbers(0, 0, count, *map(len, images))),
        _box(b"stco", _numbers(0, 1, offset)),
    )
