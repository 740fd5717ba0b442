"""Images and prompts as the options send them: read off what a server receives."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import BodyWriter, fit_image, target_size
from pytest_vlmeval.models.client import Request, RequestError
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.groups import Prompting
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess


def draw(width: int, height: int, kind: str, mode: str = "RGB") -> bytes:
    """Draw an image that has that size."""
    out = io.BytesIO()
    Image.new(mode, (width, height), 128 if mode == "L" else None).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("bounds", "size"),
    [
        (Prompting(image_size=100), (100, 50)),
        (Prompting(image_size=400), (400, 200)),
        (Prompting(image_size=500), (400, 200)),
        (Prompting(max_pixels=20_000), (200, 100)),
        (Prompting(max_pixels=20_000, image_size=50), (50, 25)),
        (Prompting(max_pixels=1), (1, 1)),
    ],
)
def test_both_bounds_hold(bounds: Prompting, size: tuple[int, int]) -> None:
    assert target_size(400, 200, bounds) == size


@pytest.mark.parametrize(
    ("kind", "media_type", "mode", "becomes"),
    [
        ("PNG", "image/png", "RGBA", "PNG"),
        ("PNG", "image/png", "P", "PNG"),
        ("JPEG", "image/jpeg", "L", "JPEG"),
        ("JPEG", "image/jpeg", "CMYK", "JPEG"),
        ("WEBP", "image/webp", "RGB", "WEBP"),
        ("BMP", "image/bmp", "RGB", "PNG"),
    ],
)
def test_a_image_keeps_its_format(
    kind: str, media_type: str, mode: str, becomes: str
) -> None:
    data, given = fit_image(
        draw(60, 40, kind, mode), media_type, Prompting(image_size=30)
    )
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.format) == ((30, 20), becomes)
    assert given == f"image/{becomes.lower()}"


def test_a_small_image_stays_byte_by_byte() -> None:
    data = draw(60, 40, "JPEG")
    assert fit_image(data, "image/jpeg", Prompting(image_size=60))[0] is data


def test_a_turned_image_is_turned_before() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(out, "JPEG", exif=exif)
    data, _ = fit_image(out.getvalue(), "image/jpeg", Prompting(image_size=30))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (20, 30)


def test_what_is_no_image_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    part = PromptPart(kind="image", media="a.png", media_type="image/png")
    request = Request(
        turns=((part,),), media_folder=tmp_path, prompting=Prompting(image_size=30)
    )
    with pytest.raises(RequestError, match=r"image a\.png cannot be made smaller"):
        BodyWriter("model", 10, 0.0).write(request)


OPTIONS = [
    "--vlm-image-size=32",
    "--vlm-image-detail=high",
    "--vlm-system-prompt=Be brief.",
    '--vlm-extra-body={"top_k": 1, "repetition_penalty": 1.5}',
]


def write_bodies(tmp_path: Path, prompting: Prompting) -> dict[str, Any]:
    """Write the body of a prompt with an image."""
    (tmp_path / "a.png").write_bytes(draw(64, 48, "PNG"))
    part = PromptPart(kind="image", media="a.png", media_type="image/png")
    text = PromptPart(kind="text", text="What?")
    request = Request(
        turns=((part, text),),
        media_folder=tmp_path,
        system=prompting.system_prompt,
        prompting=prompting,
    )
    body: dict[str, Any] = json.loads(BodyWriter("model", 10, 0.0).write(request))
    return body


def test_all_of_it_stands_in_the_body(
    load: Callable[..., Settings], tmp_path: Path
) -> None:
    body = write_bodies(tmp_path, load(*OPTIONS).prompting)
    assert (body["top_k"], body["repetition_penalty"]) == (1, 1.5)
    assert (body["max_tokens"], body["temperature"]) == (10, 0)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    image = user["content"][0]["image_url"]
    assert image["detail"] == "high"
    data = base64.b64decode(image["url"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as seen:
        assert seen.size == (32, 24)


@pytest.mark.slow
def test_other_prompts_are_another_run(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    server.control(default="B")
    project.ask(server.url)
    for number, option in enumerate(OPTIONS, 2):
        project.ask(server.url, option)
        assert len(server.requests()) == 4 * number
        assert len(project.stored("SELECT 1 FROM runs")) == number
    project.ask(server.url)
    assert len(server.requests()) == 4 * (1 + len(OPTIONS))


def test_the_demo_model_takes_prompts_as_they_are(
    load: Callable[..., Settings],
) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=demo", *OPTIONS[:2])
    assert str(raised.value) == (
        "--vlm-image-size is for --vlm-backend=endpoint, and the model is of "
        "--vlm-backend=demo. Leave it out, or name another model."
    )


@pytest.mark.parametrize("given", ["[1]", "{", "{}", '{"model": "x"}', '{"n": 2}'])
def test_a_body_that_cannot_be_added(load: Callable[..., Settings], given: str) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load(f"--vlm-extra-body={given}")
    assert str(raised.value) == (
        "--vlm-extra-body=*** is not accepted: --vlm-extra-body takes the text of a "
        "JSON object without keys or passwords, without messages, stream and n, and "
        "with model, max_tokens and temperature only as null, which leaves them out."
    )
