"""The files that the package ships, and the weights that the repository keeps."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from safetensors.torch import save_file

from pytest_vlmeval.models.demo import CONTEXT_TOKENS, IMAGE_TOKENS, MERGE, PATCH

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer
    from torch import Tensor

    from demo_model.network import LanguageModel, TinyQwen2VL


class LastHidden(torch.nn.Module):
    """The language model up to the state that the next token is read from."""

    def __init__(self, language: LanguageModel) -> None:
        super().__init__()
        self.language = language

    def forward(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Map (1, length, hidden) and (3, 1, length) to (1, hidden)."""
        hidden, _ = self.language(embeddings, positions)
        last: Tensor = hidden[:, -1]
        return last


def round_weights(model: TinyQwen2VL) -> None:
    """Round to float16, so that all that is exported has the weights that are kept."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float())


def export_weights(model: TinyQwen2VL, path: Path) -> None:
    """Write the weights as float16, under the names of Qwen2-VL's checkpoints."""
    halves = {name: weight.half() for name, weight in model.state_dict().items()}
    save_file(halves, path)


def export_package(model: TinyQwen2VL, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the ONNX files, the embeddings and the tokenizer."""
    embeddings = model.model.embed_tokens.weight.detach().numpy()
    np.save(folder / "embeddings.npy", embeddings)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _export_vision(model, folder / "vision.onnx")
        _export_language(model, folder / "language.onnx")
    for name in ("vision.onnx", "language.onnx"):
        _remove_traces(folder / name)


def _export_vision(model: TinyQwen2VL, path: Path) -> None:
    patches = torch.zeros(1, IMAGE_TOKENS * MERGE**2, 3 * 2 * PATCH**2)
    torch.onnx.export(
        model.visual,
        (patches,),
        str(path),
        input_names=["patches"],
        output_names=["tokens"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _export_language(model: TinyQwen2VL, path: Path) -> None:
    length = torch.export.Dim("length", min=2, max=CONTEXT_TOKENS)
    embeddings = torch.zeros(1, 40, model.model.embed_tokens.embedding_dim)
    positions = torch.zeros(3, 1, 40, dtype=torch.int64)
    torch.onnx.export(
        LastHidden(model.model),
        (embeddings, positions),
        str(path),
        input_names=["embeddings", "positions"],
        output_names=["hidden"],
        dynamic_shapes={"embeddings": {1: length}, "positions": {2: length}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _remove_traces(path: Path) -> None:
    """Remove the source paths that the exporter notes at every node."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    onnx.save(model, path)
