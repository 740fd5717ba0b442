"""Small files of enormous images: refused wherever an image is opened."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.models.chat import fit_image
from pytest_vlmeval.models.demo import open_image
from pytest_vlmeval.settings.groups import Prompting
from tests.support.run_fixtures import Project, endpoint, math_rows
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    prepare,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.process import Sandbox

SIDE = 50_000


def bomb(side: int = SIDE) -> bytes:
    """Make a real PNG of `side` x `side` black pixels, a bit each."""
    deflate = zlib.compressobj(9)
    line = bytes(1 + (side + 7) // 8)
    packed = b"".join(deflate.compress(line) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


@pytest.fixture(scope="module")
def png() -> bytes:
    """Give the bomb, which is far smaller than what is in it."""
    data = bomb()
    assert len(data) < 1_000_000
    return data


REASON = "the image cannot be read: it has 50000 x 50000 pixels, more than 175,000,000"


@pytest.mark.parametrize("kind", ["image", "list"])
def test_preparation_names_the_row(
    sandbox: Sandbox, tmp_path: Path, png: bytes, kind: str
) -> None:
    images = [cell(draw(1)), cell(png), cell(draw(2))]
    if kind == "list":
        images = [str([image, cell(draw(3))]) for image in images]
    table = write_table(tmp_path / "Bomb.tsv", choice_rows(images))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    first, broken, last = read_samples(prepared)
    assert first.error is last.error is None
    assert broken.error == f"row 2 (index 1): {REASON}"


def test_a_file_beside_a_table_of_one_s_own(
    project: Project, server: ServerProcess, png: bytes
) -> None:
    folder = project.pytester.path
    (folder / "bomb.png").write_bytes(png)
    (folder / "good.png").write_bytes(draw(1))
    rows = [
        {"question": "What?", "answer": "A", "image_path": f"{name}.png"}
        for name in ("good", "bomb")
    ]
    write_table(folder / "own.tsv", rows)
    project.pytester.makepyfile(
        test_own="from pytest_vlmeval import Benchmark\n"
        "class TestOwn(Benchmark):\n    datasets = ['own.tsv']\n"
    )
    result = project.ask(server.url)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines([f"*row 2 (index 2): {REASON}*"])
    assert len(server.requests()) == 1


def test_a_run_goes_on_with_the_other_rows(
    project: Project, server: ServerProcess, png: bytes
) -> None:
    rows = math_rows(4)
    rows[2]["image"] = cell(png)
    project.write_math(4, rows)
    result = project.run(*endpoint(server.url), "--vlm-image-size=64")
    result.stdout.fnmatch_lines([f"*row 3 (index 3): {REASON}*"])
    assert len(server.requests()) == 3


def test_the_demo_model_refuses_it(png: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the image of \d+ bytes cannot be decoded"):
        open_image(png)


@pytest.mark.parametrize("side", [12_000, SIDE])
def test_what_makes_images_smaller_refuses_it(side: int) -> None:
    # Of the smaller one Pillow only warns, which is an error in this session.
    with pytest.raises(ValueError, match="could be decompression bomb"):
        fit_image(bomb(side), "image/png", Prompting(image_size=64))
