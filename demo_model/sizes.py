"""The sizes of the model and of its vocabulary."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """The sizes of the model, by their names in Qwen2-VL's configuration."""

    hidden: int = 64
    intermediate: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    rope_theta: float = 1_000_000.0
    rope_sections: tuple[int, int, int] = (2, 3, 3)  # time, row, column
    epsilon: float = 1e-6
    vision_width: int = 64
    vision_depth: int = 3
    vision_heads: int = 4
    vision_ratio: int = 2


SIZES = Sizes()
VOCABULARY = 1400  # tokens of the small tokenizer before the special ones
# The ids of the special tokens in Qwen2-VL, counted from the first: programs that
# serve the model have some of them written into their source.
FIRST_SPECIAL = 151_643
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Rows of the embeddings: the tokens above, rounded up to a multiple of 64.
PUBLISHED_ROWS = -(-(FIRST_SPECIAL + len(SPECIAL)) // 64) * 64
