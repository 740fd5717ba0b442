"""--vlm-images=as-ms-vlmeval sends the bytes that ms-vlmeval sends."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import BodyWriter, as_ms_vlmeval
from pytest_vlmeval.models.client import Request, RequestError
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.groups import Prompting
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project, math_rows
from tests.support.sandbox_tables import FIXTURES
from tests.support.server_fixtures import ServerProcess

SCRIPT = Path(__file__).parents[1] / "support" / "upstream_images.py"
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".nothing")
BOUNDS = (-1, 64)


def noise(mode: str, width: int, height: int, seed: int = 1) -> Image.Image:
    """Draw an image with something to lose in each pixel."""
    drawn = Image.frombytes(
        "RGB", (width, height), random.Random(seed).randbytes(3 * width * height)
    )
    if mode == "I;16":
        return Image.frombytes(
            mode, (width, height), random.Random(seed).randbytes(2 * width * height)
        )
    if mode in ("RGBA", "LA"):
        alpha = noise("L", width, height, seed + 1)
        drawn = drawn.convert("L" if mode == "LA" else "RGB")
        drawn.putalpha(alpha)
        return drawn
    return drawn.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Give the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned() -> bytes:
    """Give a JPEG that its EXIF data turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise("RGB", 160, 120), "JPEG", exif=exif, comment=b"Hello")


def corpus() -> dict[str, bytes]:
    """Give images of all modes, formats and sizes that a table may hold."""
    frames = [noise("RGB", 120, 110, seed) for seed in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    return {
        "RGB": saved(noise("RGB", 230, 150), "PNG"),
        "RGB as JPEG": saved(noise("RGB", 230, 150), "JPEG", quality=95),
        "progressive": saved(noise("RGB", 230, 150), "JPEG", progressive=True),
        "RGBA": saved(noise("RGBA", 140, 120), "PNG"),
        "LA": saved(noise("LA", 140, 120), "PNG"),
        "P": saved(noise("P", 140, 120), "PNG"),
        "P, transparent": saved(noise("P", 140, 120), "PNG", transparency=0),
        "L": saved(noise("L", 140, 120), "PNG"),
        "L as JPEG": saved(noise("L", 140, 120), "JPEG"),
        "1": saved(noise("1", 140, 120), "PNG"),
        "1, small": saved(noise("1", 64, 20), "PNG"),
        "16 bit": saved(noise("I;16", 140, 120), "PNG"),
        "CMYK": saved(noise("CMYK", 140, 120), "JPEG"),
        "TIFF": saved(noise("RGB", 140, 120), "TIFF"),
        "WebP": saved(noise("RGBA", 140, 120), "WEBP"),
        "BMP": saved(noise("RGB", 140, 120), "BMP"),
        "tiny": saved(noise("RGB", 1, 1), "PNG"),
        "wide": saved(noise("RGB", 64, 20), "PNG"),
        "wide, of four bands": saved(noise("RGBA", 20, 64), "PNG"),
        "short by a pixel": saved(noise("RGB", 99, 99), "PNG"),
        "short by a pixel, wide": saved(noise("RGB", 300, 99), "PNG"),
        "as short as may be": saved(noise("RGB", 100, 100), "PNG"),
        "too wide when enlarged": saved(noise("L", 700, 1), "PNG"),
        "animated GIF": saved(frames[0], "GIF", comment=b"Hi", **several),
        "animated PNG": saved(frames[0], "PNG", **several),
        "animated WebP": saved(frames[0], "WEBP", **several),
        "turned": turned(),
        "with a profile": saved(noise("RGB", 120, 130), "PNG", icc_profile=b"x" * 200),
    }


def upstream(
    environment: SandboxEnvironment, folder: Path, jobs: list[tuple[str, str, int]]
) -> list[str | None]:
    """Give what ms-vlmeval sends."""
    asked, answered = folder / "jobs.json", folder / "results.json"
    asked.write_text(json.dumps(jobs))
    subprocess.run(
        [environment.python, str(SCRIPT), str(asked), str(answered)],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    found: list[str | None] = json.loads(answered.read_text())
    return found


def ours(text: str, suffix: str, img_size: int) -> str | None:
    """Give what is sent here."""
    size = None if img_size == -1 else img_size
    try:
        data = as_ms_vlmeval(base64.b64decode(text), suffix, size)
    except (OSError, ValueError):
        return None
    return base64.b64encode(data).decode()


def test_every_byte_is_that_of_ms_vlmeval(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    cases = {
        (name, suffix, size): (base64.b64encode(data).decode(), suffix, size)
        for name, data in corpus().items()
        for suffix in SUFFIXES
        for size in BOUNDS
    }
    expected = upstream(sandbox_environment, tmp_path, list(cases.values()))
    differing = [
        case
        for (case, job), sent in zip(cases.items(), expected, strict=True)
        if ours(*job) != sent
    ]
    assert differing == []
    # It sends neither of these, however it keeps them.
    unsent = {
        case[0]
        for case, sent in zip(cases, expected, strict=True)
        if sent is None and case[1] == ".png" and case[2] == -1
    }
    assert unsent == {"16 bit", "CMYK", "too wide when enlarged"}


def fixture_images() -> list[str]:
    """Give the images of the seed fixtures' tables, as base64."""
    csv.field_size_limit(sys.maxsize)
    found = set()
    for path in (FIXTURES / "LMUData").glob("*.tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                found.add(row.get("image") or "")
    # Shorter ones name another row; PDFs and lists are none.
    return sorted(
        text for text in found if len(text) > 64 and not text.startswith(("[", "JVBE"))
    )


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
def test_the_images_of_the_fixtures(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    texts = fixture_images()
    jobs = [(text, suffix, -1) for text in texts for suffix in (".png", ".jpg")]
    assert len(jobs) > 40
    expected = upstream(sandbox_environment, tmp_path, jobs)
    assert None not in expected
    assert [ours(*job) for job in jobs] == expected


def request_for(folder: Path, data: bytes) -> Request:
    """Write a prompt of one image that is sent as ms-vlmeval sends it."""
    (folder / "a.png").write_bytes(data)
    part = PromptPart(
        kind="image", media="a.png", media_type="image/png", saved_as=".png"
    )
    prompting = Prompting(images="as-ms-vlmeval")
    return Request(turns=((part,),), media_folder=folder, prompting=prompting)


def test_it_is_sent_as_jpeg(tmp_path: Path) -> None:
    data = saved(noise("RGBA", 64, 20), "PNG")
    body = json.loads(BodyWriter("m", 10, 0.0).write(request_for(tmp_path, data)))
    (part,) = body["messages"][0]["content"]
    kind, _, text = part["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as seen:
        assert (seen.size, seen.mode, seen.format) == ((320, 100), "RGB", "JPEG")


def test_what_ms_vlmeval_cannot_send(tmp_path: Path) -> None:
    data = saved(noise("I;16", 120, 120), "PNG")
    with pytest.raises(RequestError) as raised:
        BodyWriter("m", 10, 0.0).write(request_for(tmp_path, data))
    assert raised.value.kind == "input"
    assert str(raised.value) == (
        "image a.png cannot be sent as ms-vlmeval sends it: cannot write mode I;16 as "
        "JPEG. ms-vlmeval cannot send it either; --vlm-images=original sends the bytes "
        "that the dataset has."
    )
    original = replace(request_for(tmp_path, data), prompting=Prompting())
    body = json.loads(BodyWriter("m", 10, 0.0).write(original))
    (part,) = body["messages"][0]["content"]
    assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == data
    wide = saved(noise("L", 700, 1), "PNG")
    with pytest.raises(
        RequestError, match="it is 70000 x 100 pixels there, and no sid"
    ):
        BodyWriter("m", 10, 0.0).write(request_for(tmp_path, wide))


def test_an_area_is_not_bounded_there(load: Callable[..., Settings]) -> None:
    as_upstream = "--vlm-images=as-ms-vlmeval"
    assert load(as_upstream, "--vlm-image-size=9").prompting == Prompting(
        images="as-ms-vlmeval", image_size=9
    )
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=m", as_upstream, "--vlm-max-pixels=1000")
    assert str(raised.value) == (
        "--vlm-images=as-ms-vlmeval and --vlm-max-pixels exclude each other: "
        "ms-vlmeval bounds the longest side of an image and never its area. Give "
        "--vlm-image-size, which is its img_size, or leave one of them out."
    )


def test_models_without_a_server_have_no_use_for_it(
    load: Callable[..., Settings],
) -> None:
    as_upstream = "--vlm-images=as-ms-vlmeval"
    is_for_endpoints = r"^--vlm-images is for --vlm-backend=endpoint, and the model is "
    with pytest.raises(VlmEvalError, match=f"{is_for_endpoints}of --vlm-backend=demo"):
        load("--vlm-model=demo", as_upstream)
    with pytest.raises(VlmEvalError, match=f"{is_for_endpoints}of --vlm-backend=local"):
        load("--vlm-model=m", "--vlm-backend=local", as_upstream)
    assert load("--vlm-model=demo").prompting == Prompting()


@pytest.mark.slow
def test_it_is_another_run_and_stands_in_the_report(
    project: Project,
    server: ServerProcess,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    rows = math_rows(2)
    project.write_math(2, rows)
    server.control(default="B")
    project.ask(server.url, "--vlm-export=first")
    project.ask(server.url, "--vlm-images=as-ms-vlmeval", "--vlm-export=second")
    jobs = [(row["image"], ".png", -1) for row in rows]
    sent = upstream(sandbox_environment, tmp_path, jobs)
    received = [
        (image["media_type"], image["sha256"])
        for record in server.requests()
        for image in cast("list[dict[str, str]]", record["images"])
    ]
    first = [("image/png", rows[0]["image"]), ("image/jpeg", rows[1]["image"])]
    second = [("image/jpeg", str(text)) for text in sent]
    # Requests are in flight side by side.
    assert sorted(received) == sorted(
        (kind, hashlib.sha256(base64.b64decode(text)).hexdigest())
        for kind, text in first + second
    )
    for name, images in (("first", "original"), ("second", "as-ms-vlmeval")):
        text = (project.pytester.path / name / "results.json").read_text()
        assert json.loads(text)["run"]["settings"]["images"] == images
