"""The transformers checkpoint, expanded from the weights that are kept, in seconds.

    python -m demo_model.checkpoint FOLDER

Nearly all of a checkpoint with Qwen2-VL's vocabulary is rows of embeddings that no
text uses. The repository keeps the others, as float16, which they were rounded to
before anything was exported; so this needs numpy and safetensors, and no torch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from demo_model.sizes import FIRST_SPECIAL, PUBLISHED_ROWS, SIZES, SPECIAL
from pytest_vlmeval.models.demo import (
    CHANNEL_DEVIATION,
    CHANNEL_MEAN,
    CONTEXT_TOKENS,
    FOLDER,
    IMAGE_SIZE,
    MERGE,
    PATCH,
    SYSTEM,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = Path(__file__).with_name("weights.safetensors")
EMBEDDINGS = "model.embed_tokens.weight"
PIXELS = IMAGE_SIZE[0] * IMAGE_SIZE[1]
IDS = {name: FIRST_SPECIAL + place for place, name in enumerate(SPECIAL)}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(
    folder: Path, weights: Path = WEIGHTS, tokenizer: Path = FOLDER / "tokenizer.json"
) -> None:
    """Write a checkpoint that transformers and its servers load, about 40 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, NDArray[np.float16]] = load_file(weights)
    tensors = {name: kept[name].astype(np.float32) for name in kept}
    rows, unused = tensors[EMBEDDINGS], tensors.pop("unused")
    tensors[EMBEDDINGS] = _spread_rows(rows, unused)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    table = _published_tokenizer(json.loads(tokenizer.read_text("utf-8")))
    merges = [" ".join(pair) for pair in table["model"]["merges"]]
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *merges, ""]), "utf-8"
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    documents: dict[str, Any] = {
        "tokenizer.json": table,
        "vocab.json": table["model"]["vocab"],
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "tokenizer_config.json": _tokenizer_config(),
        "preprocessor_config.json": _preprocessor_config(),
        "config.json": _model_config(),
        "generation_config.json": _generation_config(),
    }
    for name, document in documents.items():
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (folder / name).write_text(text + "\n", "utf-8")


def _spread_rows(
    rows: NDArray[np.float32], unused: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move the special tokens' rows to their published ids; fill up with `unused`."""
    spread = np.tile(unused, (PUBLISHED_ROWS, 1))
    ordinary = len(rows) - len(SPECIAL)
    spread[:ordinary] = rows[:ordinary]
    spread[FIRST_SPECIAL : FIRST_SPECIAL + len(SPECIAL)] = rows[ordinary:]
    return spread


def _published_tokenizer(table: dict[str, Any]) -> dict[str, Any]:
    """Give the special tokens of a `tokenizer.json` their published ids.

    They enter the vocabulary too: an added token that is not in it would be numbered
    behind it, whatever its entry says.
    """
    for token in table["added_tokens"]:
        token["id"] = IDS[token["content"]]
    table["model"]["vocab"] |= IDS
    return table


def _tokenizer_config() -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(number): {"content": name, **flags, "special": True}
            for name, number in IDS.items()
        },
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "add_prefix_space": False,
        "split_special_tokens": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }


def _preprocessor_config() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        # Every image comes down, or up, to about the size of those in the training.
        "min_pixels": PIXELS,
        "max_pixels": PIXELS,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": list(CHANNEL_MEAN),
        "image_std": list(CHANNEL_DEVIATION),
    }


def _model_config() -> dict[str, Any]:
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_size": SIZES.hidden,
        "intermediate_size": SIZES.intermediate,
        "num_hidden_layers": SIZES.layers,
        "num_attention_heads": SIZES.heads,
        "num_key_value_heads": SIZES.key_value_heads,
        "hidden_act": "silu",
        "rms_norm_eps": SIZES.epsilon,
        "rope_theta": SIZES.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(SIZES.rope_sections)},
        "max_position_embeddings": CONTEXT_TOKENS,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "vocab_size": PUBLISHED_ROWS,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": IDS["<|im_end|>"],
        "pad_token_id": IDS["<|endoftext|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "vision_token_id": IDS["<|vision_pad|>"],
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_config": _vision_config(),
    }


def _vision_config() -> dict[str, Any]:
    return {
        "model_type": "qwen2_vl",
        "depth": SIZES.vision_depth,
        "embed_dim": SIZES.vision_width,
        "num_heads": SIZES.vision_heads,
        "mlp_ratio": SIZES.vision_ratio,
        "hidden_size": SIZES.hidden,
        "in_chans": 3,
        "in_channels": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "spatial_patch_size": PATCH,
        "temporal_patch_size": 2,
    }


def _generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": [IDS["<|im_end|>"], IDS["<|endoftext|>"]],
        "pad_token_id": IDS["<|endoftext|>"],
        "do_sample": False,
    }


def main() -> None:
    """Write the checkpoint to the folder that is named."""
    description = "Write the demo model as a transformers checkpoint."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write_checkpoint(folder)
    print(f"wrote the checkpoint to {folder}")


if __name__ == "__main__":
    main()
