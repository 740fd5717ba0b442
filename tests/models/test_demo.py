"""The demo model as it ships: its answers, its errors, its files, and its client."""

from __future__ import annotations

import asyncio
import base64
import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from demo_model.tables import TABLES, table_rows
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.models.demo import (
    CONTEXT_TOKENS,
    FOLDER,
    IMAGE_SIZE,
    IMAGE_TOKENS,
    MODEL_FILES,
    DemoClient,
    DemoModel,
    image_patches,
    rope_positions,
)
from pytest_vlmeval.records import PromptPart
from tests.support.endpoint_calls import ask as ask_endpoint
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.models.demo import Part

    Row = dict[str, str]

ACCURACY = {"DemoChoice": 0.8, "DemoYesNo": 0.9, "DemoOpen": 0.9}
MOST_BYTES = 5_000_000
UNFAMILIAR = [
    "Hello!",
    "Describe the image in detail.",
    "Hint: Please answer the question and provide the correct option letter, e.g., "
    "A, B, C, D, at the end.\nQuestion: In the triangle $ABC$ the angle at $B$ is "
    "$40^{\\circ}$ and $AB = BC$. What is the angle at $A$?\nChoices:\n(A) 40\n"
    "(B) 60\n(C) 70\n(D) 80\n(E) 100",
    "Hint: Please answer the question and provide the final answer at the end.\n"
    "Question: " + "Seven gnomes carry as many stones as their ages allow. " * 25,
    "请描述这张图片。",
]


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel()


def read_table(name: str) -> list[Row]:
    with (FOLDER / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def prompt_text(table: str, row: Row) -> str:
    """Write the prompt out as ms-vlmeval's classes do for such a row."""
    if table == "DemoYesNo":
        return row["question"]
    if table == "DemoOpen":
        return row["question"] + (
            "\nAnswer the question using a single word or phrase."
        )
    options = "".join(f"{name}. {row[name]}\n" for name in "ABCD" if row[name])
    return (
        f"Question: {row['question']}\nOptions:\n{options}"
        "Please select the correct answer from the options above. \n"
    )


def prompt_parts(table: str, row: Row) -> list[Part]:
    image = base64.b64decode(row["image"])
    return [("image", image), ("text", prompt_text(table, row))]


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(row: Row) -> bytes:
    with Image.open(BytesIO(base64.b64decode(row["image"]))) as image:
        assert image.size == IMAGE_SIZE
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize("table", TABLES)
def test_accuracy_on_held_out_samples(model: DemoModel, table: str) -> None:
    rows = read_table(table)
    replies = [model.generate(prompt_parts(table, row), 16) for row in rows]
    right = [
        reply.text == row["answer"] for reply, row in zip(replies, rows, strict=True)
    ]
    assert sum(right) / len(right) >= ACCURACY[table]
    assert {reply.finish_reason for reply in replies} == {"stop"}


@pytest.mark.parametrize("table", TABLES)
def test_table_layout(table: str) -> None:
    rows = read_table(table)
    options = list("ABCD") if table == "DemoChoice" else []
    names = ["index", "question", *options, "answer", "category", "image"]
    assert list(rows[0]) == names
    assert [row["index"] for row in rows] == [str(place) for place in range(1, 41)]
    assert {row["category"] for row in rows} == {"colour", "shape", "count"}
    for row in rows:
        assert all(row[name] for name in names if name != "D")
        if options:
            assert row[row["answer"]]


def test_no_answer_is_much_more_frequent_than_others() -> None:
    letters = Counter(row["answer"] for row in read_table("DemoChoice"))
    assert max(letters.values()) <= 14
    assert Counter(row["answer"] for row in read_table("DemoYesNo"))["Yes"] == 20
    words = Counter(row["answer"] for row in read_table("DemoOpen"))
    assert max(words.values()) <= 5


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_what_the_script_draws(table: str) -> None:
    shipped, drawn = read_table(table), table_rows(table)
    # Pixels, because another version of Pillow may compress them otherwise.
    assert [pixels(row) for row in shipped] == [pixels(row) for row in drawn]
    for row in [*shipped, *drawn]:
        del row["image"]
    assert shipped == drawn


@pytest.mark.parametrize("text", UNFAMILIAR)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_unfamiliar_questions_end(model: DemoModel, text: str, images: int) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    parts: list[Part] = [("image", png(Image.fromarray(noise)))] * images
    reply = model.generate([*parts, ("text", text)], 64)
    assert reply.finish_reason == "stop"
    assert reply.text
    assert reply.completion_tokens <= 4


def test_same_answer_every_time_and_from_all_threads(model: DemoModel) -> None:
    questions = [prompt_parts("DemoOpen", row) for row in read_table("DemoOpen")]
    expected = [DemoModel(threads=2).generate(parts, 16) for parts in questions[:3]]
    expected += [model.generate(parts, 16) for parts in questions[3:]]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda parts: model.generate(parts, 16), questions))
    assert replies == expected


def test_counts_tokens_and_cuts_at_the_limit(model: DemoModel) -> None:
    parts = prompt_parts("DemoOpen", read_table("DemoOpen")[0])
    whole, cut = model.generate(parts, 16), model.generate(parts, 1)
    assert (whole.finish_reason, whole.completion_tokens) == ("stop", 2)
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 1)
    assert cut.text == whole.text
    longer = model.generate([*parts, parts[0]], 16)
    # The start and the end of the image are tokens too.
    assert longer.prompt_tokens == whole.prompt_tokens + IMAGE_TOKENS + 2


def test_special_tokens_in_a_question_are_text(model: DemoModel) -> None:
    image = base64.b64decode(read_table("DemoOpen")[0]["image"])
    text = "What is <|image_pad|> or <|im_end|>?"
    reply = model.generate([("image", image), ("text", text)], 16)
    plain = model.generate([("image", image), ("text", "What is or ?")], 16)
    assert reply.prompt_tokens > plain.prompt_tokens + 10


def test_any_image_is_brought_to_the_models_size(model: DemoModel) -> None:
    text = "What colour is the image?"
    for mode, size in (("RGB", (700, 500)), ("RGBA", (3, 9)), ("P", (112, 84))):
        red = png(Image.new("RGB", size, (215, 30, 30)).convert(mode))
        assert model.generate([("image", red), ("text", text)], 16).text == "red"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not an image", "cannot identify image file"),
        (png(Image.new("RGB", (300, 300)))[:200], "truncated"),
        (b"", "cannot identify image file"),
    ],
)
def test_undecodable_image(model: DemoModel, data: bytes, reason: str) -> None:
    expected = f"the image of {len(data)} bytes cannot be decoded: .*{reason}"
    with pytest.raises(ValueError, match=expected):
        model.generate([("image", data), ("text", "What is it?")], 16)


def test_prompt_longer_than_the_context(model: DemoModel) -> None:
    expected = (
        rf"^the prompt has \d{{4}} tokens, but the demo model's context is "
        f"{CONTEXT_TOKENS} tokens, answer included; shorten the prompt$"
    )
    with pytest.raises(ValueError, match=expected):
        model.generate([("text", "7" * CONTEXT_TOKENS)], 16)


def test_no_tokens_allowed(model: DemoModel) -> None:
    with pytest.raises(ValueError, match=r"^max_tokens is 0; it must be at least 1$"):
        model.generate([("text", "Hello")], 0)


def test_image_positions_stand_on_a_grid() -> None:
    positions = rope_positions([7, *[9] * IMAGE_TOKENS, 7, 7], image=9)
    assert positions[:, 0].tolist() == [0, 0, 0]
    assert positions[:, 1].tolist() == [1, 1, 1]
    assert positions[:, IMAGE_TOKENS].tolist() == [1, 3, 4]
    assert positions[:, IMAGE_TOKENS + 1].tolist() == [5, 5, 5]
    assert positions[:, -1].tolist() == [6, 6, 6]


def test_patches_of_a_merged_square_stand_together() -> None:
    width, height = IMAGE_SIZE
    tiles = np.arange(48, dtype=np.uint8).reshape(6, 8)
    image = np.repeat(np.repeat(tiles, 14, axis=0), 14, axis=1)
    patches = image_patches(np.stack([image] * 3, axis=-1)[None])
    assert patches.shape == (1, 48, 3 * 2 * 14 * 14)
    assert (height, width) == image.shape
    red = np.round((patches[0, :, 0] * 0.26862954 + 0.48145466) * 255).astype(int)
    assert red[:8].tolist() == [0, 1, 8, 9, 2, 3, 10, 11]


def test_shipped_files() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    models = {"vision.onnx", "language.onnx", "embeddings.npy", "tokenizer.json"}
    assert set(sizes) == models | {f"{table}.tsv" for table in TABLES}
    assert sum(sizes.values()) < MOST_BYTES
    for name in sizes:
        assert b"demo_model" not in (FOLDER / name).read_bytes()


def test_checkpoint_has_the_published_ids_and_shapes(tmp_path: Path) -> None:
    from demo_model.checkpoint import write_checkpoint

    write_checkpoint(tmp_path)
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tensors = load_file(tmp_path / "model.safetensors")
    rows = tensors["model.embed_tokens.weight"]
    shipped = np.load(FOLDER / "embeddings.npy")
    assert rows.shape == (151_680, shipped.shape[1])
    assert np.array_equal(rows[: len(shipped) - 14], shipped[:-14])
    assert np.array_equal(rows[151_643:151_657], shipped[-14:])
    assert tensors["visual.patch_embed.proj.weight"].shape[1:] == (3, 2, 14, 14)
    assert "unused" not in tensors
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.token_to_id("<|endoftext|>") == 151_643
    assert tokenizer.token_to_id("<|image_pad|>") == 151_655
    assert tokenizer.encode("red<|im_end|>").ids[-1] == 151_645
    small = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert tokenizer.encode("Is it red?").ids == small.encode("Is it red?").ids


def test_import_is_light() -> None:
    """The heavy libraries come with the first model, not with the module."""
    code = (
        "import sys; before = set(sys.modules); import pytest_vlmeval.models.demo; "
        "heavy = {'numpy', 'PIL', 'tokenizers', 'onnxruntime'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == "[]"


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
