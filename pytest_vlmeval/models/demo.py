"""The demo model: a tiny Qwen2-VL that answers in threads of this process.

Its files lie in `datasets/demo/`; `demo_model/` at the top of the repository
draws its data, trains it and writes them, and imports the functions below, so that
the model is asked exactly as it was taught.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import input_error, read_media
from pytest_vlmeval.models.client import Reply
from pytest_vlmeval.models.evidence import checksum_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from tokenizers import Tokenizer

    from pytest_vlmeval.models.client import Request

    Part = tuple[Literal["text", "image"], str | bytes]

FOLDER = Path(__file__).parent.parent / "datasets" / "demo"
CONTEXT_TOKENS = 2048
IMAGE_SIZE = (112, 84)  # width, height in pixels; the vision tower takes no other
PATCH = 14  # pixels along the side of a patch
MERGE = 2  # patches along the side of the square that becomes one token
MERGED_ROWS = IMAGE_SIZE[1] // PATCH // MERGE
MERGED_COLUMNS = IMAGE_SIZE[0] // PATCH // MERGE
IMAGE_TOKENS = MERGED_ROWS * MERGED_COLUMNS
SYSTEM = "You are a helpful assistant."
# Mean and deviation of each channel in transformers' Qwen2VLImageProcessor (CLIP's).
CHANNEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CHANNEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class SpecialTokens(NamedTuple):
    """The ids that the Qwen2-VL chat template and the decoding loop need."""

    end_of_text: int
    turn_start: int
    turn_end: int
    vision_start: int
    vision_end: int
    image: int


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer that reads special tokens in a text as plain characters."""
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Look up the ids of the special tokens, by their names in Qwen2-VL."""
    names = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
    )
    vocabulary = tokenizer.get_vocab()
    return SpecialTokens(*(vocabulary[name] for name in names))


def encode_chat(
    tokenizer: Tokenizer, special: SpecialTokens, texts: Sequence[str | None]
) -> list[int]:
    """Return the ids of Qwen2-VL's chat template for one user turn.

    `texts` holds the parts of the turn in order, None where an image stands.
    """
    ids = [special.turn_start]
    ids += _encode(tokenizer, f"system\n{SYSTEM}")
    ids.append(special.turn_end)
    ids += _encode(tokenizer, "\n")
    ids.append(special.turn_start)
    # Text is encoded up to the next special token at once, as transformers does:
    # a line break at the start of the question may merge with the one of the role.
    pending = "user\n"
    for text in texts:
        if text is not None:
            pending += text
            continue
        ids += _encode(tokenizer, pending)
        pending = ""
        ids.append(special.vision_start)
        ids += [special.image] * IMAGE_TOKENS
        ids.append(special.vision_end)
    ids += _encode(tokenizer, pending)
    ids.append(special.turn_end)
    ids += _encode(tokenizer, "\n")
    ids.append(special.turn_start)
    return ids + _encode(tokenizer, "assistant\n")


def rope_positions(ids: Sequence[int], image: int) -> NDArray[np.int64]:
    """Return Qwen2-VL's rotary positions (time, row, column), shape (3, len(ids)).

    Tokens of text count up in all three; those of an image stand on its grid, and
    the text after it goes on behind the grid's longer side.
    """
    import numpy as np

    positions = np.empty((3, len(ids)), dtype=np.int64)
    rows, columns = np.divmod(np.arange(IMAGE_TOKENS), MERGED_COLUMNS)
    grid = np.stack([np.zeros(IMAGE_TOKENS, dtype=np.int64), rows, columns])
    index = following = 0
    while index < len(ids):
        if ids[index] == image:
            positions[:, index : index + IMAGE_TOKENS] = following + grid
            index += IMAGE_TOKENS
            following += max(MERGED_ROWS, MERGED_COLUMNS)
        else:
            positions[:, index] = following
            index += 1
            following += 1
    return positions


def open_image(data: bytes) -> Image:
    """Decode an image to RGB in the model's size; ValueError where it cannot be."""
    from PIL import Image

    try:
        image = Image.open(BytesIO(data)).convert("RGB")
    except Exception as error:  # each of PIL's decoders has failures of its own
        message = f"the image of {len(data)} bytes cannot be decoded: {error}"
        raise ValueError(message) from error
    if image.size != IMAGE_SIZE:
        image = image.resize(IMAGE_SIZE, Image.Resampling.BICUBIC)
    return image


def image_patches(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cut (n, height, width, 3) pixels into patches of shape (n, 48, 1176).

    Order and scaling are those of transformers' Qwen2VLImageProcessor: the four
    patches of a merged square stand together; the numbers of a patch run over
    channel, time (a still image counts twice), row, column.
    """
    import numpy as np

    mean = np.asarray(CHANNEL_MEAN, dtype=np.float32)
    deviation = np.asarray(CHANNEL_DEVIATION, dtype=np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / deviation
    count = len(pixels)
    cut = scaled.reshape(
        count, MERGED_ROWS, MERGE, PATCH, MERGED_COLUMNS, MERGE, PATCH, 3
    ).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    twice = np.repeat(cut[..., None, :, :], 2, axis=6)
    return np.ascontiguousarray(
        twice.reshape(count, IMAGE_TOKENS * MERGE**2, 3 * 2 * PATCH**2)
    )


class DemoModel:
    """The demo model in memory; `generate` may be called from several threads."""

    def __init__(self, threads: int = 1, folder: Path = FOLDER) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._vision, self._language = (
            onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )
            for name in ("vision.onnx", "language.onnx")
        )
        # Rows of the token embeddings, (tokens, width): input and, tied, output.
        self._embeddings: NDArray[np.float32] = np.load(folder / "embeddings.npy")
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._special = special_tokens(self._tokenizer)

    def generate(self, parts: Sequence[Part], max_tokens: int) -> Reply:
        """Answer one user turn greedily; any number of images, also none.

        The token that ended the answer counts among its tokens, if one did.
        `parts` are in order: a text, or the original bytes of an image. ValueError:
        an image cannot be decoded, or the prompt leaves no room in the context.
        """
        import numpy as np

        if max_tokens < 1:
            message = f"max_tokens is {max_tokens}; it must be at least 1"
            raise ValueError(message)
        texts = [None if isinstance(part, bytes) else part for _, part in parts]
        ids = encode_chat(self._tokenizer, self._special, texts)
        if len(ids) >= CONTEXT_TOKENS:
            message = (
                f"the prompt has {len(ids)} tokens, but the demo model's context "
                f"is {CONTEXT_TOKENS} tokens, answer included; shorten the prompt"
            )
            raise ValueError(message)
        embeddings = self._embeddings[ids]  # shape (len(ids), width)
        images = [part for _, part in parts if isinstance(part, bytes)]
        if images:
            pixels = np.stack([np.asarray(open_image(data)) for data in images])
            seen = [
                self._vision.run(None, {"patches": patches[None]})[0]
                for patches in image_patches(pixels)
            ]
            embeddings[np.asarray(ids) == self._special.image] = np.concatenate(
                [tokens[0] for tokens in seen]
            )
        answer = self._decode(ids, embeddings, max_tokens)
        stopped = answer[-1] in {self._special.turn_end, self._special.end_of_text}
        return Reply(
            text=self._tokenizer.decode(answer),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(ids),
            completion_tokens=len(answer),
        )

    def _decode(
        self, ids: Sequence[int], embeddings: NDArray[np.float32], max_tokens: int
    ) -> list[int]:
        """Choose the likeliest token until one ends the answer or the room is used."""
        import numpy as np

        positions = rope_positions(ids, self._special.image)
        answer: list[int] = []
        # Answers are a word long, so that running the whole prompt again for each
        # token costs less than a cache of keys and values would in code.
        for _ in range(min(max_tokens, CONTEXT_TOKENS - len(ids))):
            feed = {"embeddings": embeddings[None], "positions": positions[:, None]}
            hidden = self._language.run(None, feed)[0][0]
            answer.append(int(np.argmax(self._embeddings @ hidden)))
            if answer[-1] in {self._special.turn_end, self._special.end_of_text}:
                break
            embeddings = np.concatenate([embeddings, self._embeddings[answer[-1:]]])
            positions = np.concatenate([positions, positions[:, -1:] + 1], axis=1)
        return answer


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


MODEL_FILES = ("vision.onnx", "language.onnx", "embeddings.npy", "tokenizer.json")


def count_threads(concurrency: int) -> int:
    """Return how many answers are worth to be made at once."""
    return max(1, min(os.cpu_count() or 1, concurrency))


class DemoClient:
    """Asks the demo model, on at most `concurrency` threads and one per processor.

    The model is loaded with the first question. `folder` holds its files.
    """

    def __init__(
        self, *, max_tokens: int, concurrency: int, folder: Path = FOLDER
    ) -> None:
        self._max_tokens = max_tokens
        self._folder = folder
        self._threads = ThreadPoolExecutor(
            max_workers=count_threads(concurrency),
            thread_name_prefix="vlm-demo",
        )
        self._model: DemoModel | None = None
        self._model_lock = threading.Lock()

    async def check(self) -> None:
        """Raise `VlmEvalError` if files of the model are missing."""
        missing = [name for name in MODEL_FILES if not (self._folder / name).is_file()]
        if missing:
            raise VlmEvalError(
                f"The demo model lacks {', '.join(missing)} in {self._folder}. "
                "Install pytest-vlmeval again: the files come with the package."
            )

    async def describe(self) -> Mapping[str, str]:
        """Return the checksum of the model's files."""
        files = [self._folder / name for name in MODEL_FILES]
        checksum = await asyncio.to_thread(checksum_files, files, self._folder, None)
        return {"weights": checksum}

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt; `RequestError` of kind "input" if it cannot be read."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._generate, request)

    async def close(self) -> None:
        """Drop what waits, and end the threads when their present answers are done."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _generate(self, request: Request) -> Reply:
        if request.replies:
            raise input_error(
                "the demo model answers single questions and goes on with none: "
                "another model holds a conversation"
            )
        (turn,) = request.turns
        if any(part.kind == "video" for part in turn):
            raise input_error(
                "the demo model sees images and no videos: leave out --vlm-video-url"
            )
        parts: list[Part] = [
            ("text", part.text)
            if part.kind == "text"
            else ("image", read_media(request.media_folder, part))
            for part in turn
        ]
        with self._model_lock:
            if self._model is None:
                self._model = DemoModel(threads=1, folder=self._folder)
        try:
            return self._model.generate(parts, self._max_tokens)
        except ValueError as error:
            raise input_error(f"the demo model cannot answer: {error}") from None
