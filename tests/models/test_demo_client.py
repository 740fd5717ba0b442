"""The demo model as a client, in this process and behind the test server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.models.demo import FOLDER, MODEL_FILES, DemoClient
from pytest_vlmeval.records import PromptPart
from tests.support.endpoint_calls import ask as ask_endpoint
from tests.support.server_fixtures import ServerProcess

QUESTION = PromptPart(kind="text", text="What colour is the image?")

needs_model = pytest.mark.skipif(
    not all((FOLDER / name).is_file() for name in MODEL_FILES),
    reason="the demo model's files have not been made yet",
)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("red", "blue"):
        image = BytesIO()
        Image.new("RGB", (112, 84), name).save(image, "PNG")
        (tmp_path / f"{name}.png").write_bytes(image.getvalue())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def image_request(media: Path, name: str) -> Request:
    image = PromptPart(kind="image", media=f"{name}.png", media_type="image/png")
    return Request(turns=((image, QUESTION),), media_folder=media)


def ask(*requests: Request, max_tokens: int = 16) -> list[Reply]:
    """Ask all at once with one client."""

    async def run() -> list[Reply]:
        client = DemoClient(max_tokens=max_tokens, concurrency=4)
        try:
            await client.check()
            return await asyncio.gather(*(client.ask(request) for request in requests))
        finally:
            await client.close()

    return asyncio.run(run())


def complaint(request: Request) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(request)
    assert (caught.value.kind, caught.value.retryable) == ("input", False)
    return caught.value


@needs_model
def test_sees_the_image(media: Path) -> None:
    red, blue, again = ask(*(image_request(media, n) for n in ("red", "blue", "red")))
    assert "red" in red.text.lower()
    assert "blue" in blue.text.lower()
    assert again == red
    assert red.finish_reason == "stop"
    assert red.prompt_tokens > red.completion_tokens > 0


@needs_model
def test_answer_cut_off(media: Path) -> None:
    (reply,) = ask(image_request(media, "red"), max_tokens=1)
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 1)


@needs_model
def test_prompt_that_cannot_be_answered(media: Path) -> None:
    error = complaint(image_request(media, "broken"))
    assert str(error).startswith("the demo model cannot answer: the image of ")
    assert "cannot be decoded" in str(error)
    long = PromptPart(kind="text", text="What is it? " * 2000)
    error = complaint(Request(turns=((long,),), media_folder=media))
    assert "shorten the prompt" in str(error)


@needs_model
def test_video(media: Path) -> None:
    video = PromptPart(kind="video", media="a.mp4", media_type="video/mp4")
    error = complaint(Request(turns=((video, QUESTION),), media_folder=media))
    assert str(error) == (
        "the demo model sees images and no videos: leave out --vlm-video-url"
    )
    assert error.kind == "input"
    # Without that option frames of the video are sent.
    frames = tuple(
        PromptPart(kind="image", media=f"{name}.png", media_type="image/png")
        for name in ("red", "blue")
    )
    (reply,) = ask(Request(turns=((*frames, QUESTION),), media_folder=media))
    assert reply.text


def test_image_that_cannot_be_read(media: Path) -> None:
    error = complaint(image_request(media, "gone"))
    assert str(error) == "image gone.png cannot be read: No such file or directory"


@needs_model
def test_same_answer_behind_a_server(
    media: Path, vlm_server: Callable[..., ServerProcess]
) -> None:
    server = vlm_server(model="demo")
    request = image_request(media, "blue")
    (here,) = ask(request)
    assert ask_endpoint(server.url, request, max_tokens=16) == here
    with pytest.raises(RequestError, match="answered 400: the image of") as caught:
        ask_endpoint(server.url, image_request(media, "broken"))
    assert not caught.value.retryable


def test_files_are_missing(tmp_path: Path) -> None:
    (tmp_path / "vision.onnx").touch()

    async def run() -> None:
        client = DemoClient(max_tokens=16, concurrency=1, folder=tmp_path)
        try:
            await client.check()
        finally:
            await client.close()

    with pytest.raises(VlmEvalError) as caught:
        asyncio.run(run())
    assert str(caught.value) == (
        "The demo model lacks language.onnx, embeddings.npy, tokenizer.json in "
        f"{tmp_path}. Install pytest-vlmeval again: the files come with the package."
    )
