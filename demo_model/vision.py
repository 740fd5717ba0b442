"""Qwen2-VL's vision tower in plain torch, for batches of images of one size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo_model.sizes import Sizes
from pytest_vlmeval.models.demo import (
    IMAGE_TOKENS,
    MERGE,
    MERGED_COLUMNS,
    MERGED_ROWS,
    PATCH,
)


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions to (..., length, head width) queries or keys."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine


def vision_rotation(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of the patches' rows and columns, (patches, head width)."""
    width = sizes.vision_width // sizes.vision_heads // 2
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    rows = torch.arange(MERGED_ROWS * MERGE)[:, None].expand(-1, MERGED_COLUMNS * MERGE)
    columns = torch.arange(MERGED_COLUMNS * MERGE).expand_as(rows)
    angles = []
    for places in (rows, columns):
        # In the order of the patches: those that are merged stand together.
        grouped = places.reshape(MERGED_ROWS, MERGE, MERGED_COLUMNS, MERGE)
        flat = grouped.transpose(1, 2).reshape(-1, 1)
        angles.append(flat * frequencies)
    both = torch.cat(angles * 2, dim=-1)
    return both.cos(), both.sin()


class VisionAttention(nn.Module):
    """Attention of each patch to all patches of its image."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.vision_heads
        self.qkv = nn.Linear(sizes.vision_width, 3 * sizes.vision_width)
        self.proj = nn.Linear(sizes.vision_width, sizes.vision_width)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Map (images, patches, width) to the same shape."""
        images, patches, _ = states.shape
        split = self.qkv(states).reshape(images, patches, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        seen = functional.scaled_dot_product_attention(query, key, value)
        merged: Tensor = self.proj(seen.transpose(1, 2).reshape(states.shape))
        return merged


class VisionMlp(nn.Module):
    """Two layers with a quick GELU between them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        wide = sizes.vision_width * sizes.vision_ratio
        self.fc1 = nn.Linear(sizes.vision_width, wide)
        self.fc2 = nn.Linear(wide, sizes.vision_width)

    def forward(self, states: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        wide = self.fc1(states)
        narrow: Tensor = self.fc2(wide * torch.sigmoid(1.702 * wide))
        return narrow


class VisionBlock(nn.Module):
    """Attention and layers, each added to its input."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.vision_width, eps=1e-6)
        self.norm2 = nn.LayerNorm(sizes.vision_width, eps=1e-6)
        self.attn = VisionAttention(sizes)
        self.mlp = VisionMlp(sizes)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Map (images, patches, width) to the same shape."""
        states = states + self.attn(self.norm1(states), cosine, sine)
        mixed: Tensor = states + self.mlp(self.norm2(states))
        return mixed


class PatchEmbed(nn.Module):
    """The convolution over patches, which do not overlap: a product of matrices."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        shape = (2, PATCH, PATCH)
        self.proj = nn.Conv3d(3, sizes.vision_width, shape, stride=shape, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map (images, patches, 1176) to (images, patches, width)."""
        return functional.linear(patches, self.proj.weight.flatten(1))


class PatchMerger(nn.Module):
    """Four patches into one token of the language model."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        wide = sizes.vision_width * MERGE**2
        self.ln_q = nn.LayerNorm(sizes.vision_width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, sizes.hidden)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Map (images, patches, width) to (images, tokens, hidden)."""
        squares = self.ln_q(states).reshape(states.shape[0], IMAGE_TOKENS, -1)
        tokens: Tensor = self.mlp(squares)
        return tokens


class VisionTower(nn.Module):
    """Patches of images of the one size, into tokens of the language model."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(sizes)
        self.blocks = nn.ModuleList(
            VisionBlock(sizes) for _ in range(sizes.vision_depth)
        )
        self.merger = PatchMerger(sizes)
        cosine, sine = vision_rotation(sizes)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map (images, 48, 1176) to (images, 12, hidden)."""
        states: Tensor = self.patch_embed(patches)
        for block in self.blocks:
            states = block(states, self.cosine, self.sine)
        tokens: Tensor = self.merger(states)
        return tokens
