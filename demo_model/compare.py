"""Whether transformers, given the checkpoint, answers as the ONNX files do.

    python -m demo_model.compare FOLDER

asks both all of the demo's questions; it needs transformers, and a checkpoint that
`demo_model.checkpoint` has written to FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from transformers import (
    AutoTokenizer,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

from demo_model.questions import benchmark_prompt
from demo_model.tables import TABLES, held_out_samples, png_bytes
from pytest_vlmeval.models.demo import FOLDER, IMAGE_TOKENS, DemoModel

MAX_TOKENS = 16


class Reply(NamedTuple):
    """An answer, with the end of the turn where there is one, and its prompt's size."""

    text: str
    prompt_tokens: int


class Checkpoint:
    """A checkpoint in transformers' own classes, greedy."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = Qwen2VLImageProcessor.from_pretrained(folder)
        self.model = Qwen2VLForConditionalGeneration.from_pretrained(folder)

    def ask(self, image: Image, text: str) -> Reply:
        """Ask about one image."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        turns: list[Any] = [{"role": "user", "content": content}]
        template = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        prompt = str(template).replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS)
        seen = self.processor(images=[image], return_tensors="pt")
        asked = self.tokenizer([prompt], return_tensors="pt")
        tokens = self.model.generate(
            **asked,
            **seen,
            mm_token_type_ids=(
                asked.input_ids == self.model.config.image_token_id
            ).int(),
            max_new_tokens=MAX_TOKENS,
        )
        size = asked.input_ids.shape[1]
        return Reply(str(self.tokenizer.decode(tokens[0, size:])), size)


def count_differences(checkpoint: Path, package: Path = FOLDER) -> int:
    """Ask both models the demo's questions; print and count what differs."""
    torch.set_grad_enabled(False)
    theirs, ours = Checkpoint(checkpoint), DemoModel(folder=package)
    differences = 0
    for table in TABLES:
        for index, sample in enumerate(held_out_samples(table), start=1):
            text = benchmark_prompt(sample)
            expected = theirs.ask(sample.image, text)
            image = png_bytes(sample.image)
            given = ours.generate([("image", image), ("text", text)], MAX_TOKENS)
            end = "<|im_end|>" if given.finish_reason == "stop" else ""
            if Reply(given.text + end, given.prompt_tokens) != expected:
                print(f"{table} {index}: transformers {expected}, ONNX {given}")
                differences += 1
    return differences


def main() -> None:
    """Exit with 1 where an answer differs."""
    parser = argparse.ArgumentParser(description="Compare transformers with ONNX.")
    parser.add_argument("folder", type=Path)
    differences = count_differences(parser.parse_args().folder)
    print(f"{differences} answers differ")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
