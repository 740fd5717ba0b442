"""Qwen2-VL in plain torch, for training in batches on a CPU.

The parameters have the names and shapes of the published checkpoints, so that
transformers loads them; it trains several times as fast as transformers' own class,
which takes the images of a batch one by one.
Source: `modeling_qwen2_vl.py` of transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo_model.sizes import SIZES, Sizes
from demo_model.vision import VisionTower, rotate

if TYPE_CHECKING:
    from collections.abc import Sequence


Rotation = tuple[Tensor, Tensor]  # cosine and sine


class Cache(NamedTuple):
    """What a layer keeps of the tokens before, (batch, heads, length, head width)."""

    keys: Tensor
    values: Tensor

    def rows(self, places: Tensor) -> Cache:
        """Take rows of the batch, one as often as texts go on from it."""
        return Cache(self.keys[places], self.values[places])


class Attention(nn.Module):
    """Causal attention with fewer keys and values than queries."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.width = sizes.hidden // sizes.heads
        narrow = self.width * sizes.key_value_heads
        self.repeats = sizes.heads // sizes.key_value_heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.k_proj = nn.Linear(sizes.hidden, narrow)
        self.v_proj = nn.Linear(sizes.hidden, narrow)
        self.o_proj = nn.Linear(sizes.hidden, sizes.hidden, bias=False)

    def forward(
        self, states: Tensor, rotation: Rotation, before: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Map (batch, length, hidden) to the same shape, and give its cache."""
        batch, length, _ = states.shape
        query, key, value = (
            project(states).reshape(batch, length, -1, self.width).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        cache = Cache(key, value)
        mask = None
        if before is not None:
            key = torch.cat([before.keys, key], dim=2)
            value = torch.cat([before.values, value], dim=2)
            # Bottom right, not `is_causal`: what was before is seen by all.
            total = key.shape[2]
            mask = states.new_ones((length, total), dtype=torch.bool)
            mask = mask.tril(diagonal=total - length)
        seen = functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(self.repeats, dim=1),
            value.repeat_interleave(self.repeats, dim=1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return self.o_proj(seen.transpose(1, 2).reshape(states.shape)), cache


class Mlp(nn.Module):
    """Qwen2's gated layers."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate, sizes.hidden, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Map (..., hidden) to the same shape."""
        gate = functional.silu(self.gate_proj(states))
        narrow: Tensor = self.down_proj(gate * self.up_proj(states))
        return narrow


class Layer(nn.Module):
    """Attention and gated layers, each added to its input."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = Attention(sizes)
        self.mlp = Mlp(sizes)
        self.input_layernorm = nn.RMSNorm(sizes.hidden, eps=sizes.epsilon)
        self.post_attention_layernorm = nn.RMSNorm(sizes.hidden, eps=sizes.epsilon)

    def forward(
        self, states: Tensor, rotation: Rotation, before: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Map (batch, length, hidden) to the same shape, and give its cache."""
        attended, cache = self.self_attn(self.input_layernorm(states), rotation, before)
        states = states + attended
        return states + self.mlp(self.post_attention_layernorm(states)), cache


class LanguageModel(nn.Module):
    """The decoder over embeddings of text and images."""

    frequencies: Tensor

    def __init__(self, sizes: Sizes, vocabulary: int) -> None:
        super().__init__()
        self.sections = sizes.rope_sections
        self.embed_tokens = nn.Embedding(vocabulary, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.hidden, eps=sizes.epsilon)
        width = sizes.hidden // sizes.heads
        steps = torch.arange(0, width, 2, dtype=torch.float32) / width
        self.register_buffer("frequencies", sizes.rope_theta**-steps, persistent=False)

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        before: Sequence[Cache] | None = None,
    ) -> tuple[Tensor, list[Cache]]:
        """Map (batch, length, hidden) and (3, batch, length) to the former shape.

        `before`, and the second result, hold the cache of each layer.
        """
        parts = self.frequencies.split(self.sections)
        angles = torch.cat(
            [
                positions[axis, :, None, :, None].float() * part
                for axis, part in enumerate(parts)
            ]
            * 2,
            dim=-1,
        )
        rotation = (angles.cos(), angles.sin())
        states = embeddings
        caches: list[Cache] = []
        for place, layer in enumerate(self.layers):
            states, cache = layer(states, rotation, before and before[place])
            caches.append(cache)
        return self.norm(states), caches


class TinyQwen2VL(nn.Module):
    """The whole model; output embeddings are the input's, as in the 2B checkpoint."""

    def __init__(self, vocabulary: int, sizes: Sizes = SIZES) -> None:
        super().__init__()
        self.visual = VisionTower(sizes)
        self.model = LanguageModel(sizes, vocabulary)
        # The one row of all the tokens that the small vocabulary lacks.
        self.unused_weight = 0.0
        self.unused = nn.Parameter(torch.zeros(sizes.hidden))

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        patches: Tensor,
        image: int,
        before: Sequence[Cache] | None = None,
    ) -> tuple[Tensor, list[Cache]]:
        """Give the last hidden states, (batch, length, hidden), and the caches.

        `patches` are those of all images in the batch, in order of appearance;
        their tokens take the places where `ids` holds `image`.
        """
        embeddings = self.model.embed_tokens(ids)
        if len(patches):
            seen = self.visual(patches).flatten(0, 1)
            embeddings = embeddings.masked_scatter((ids == image)[..., None], seen)
        hidden, caches = self.model(embeddings, positions, before)
        return hidden, caches
