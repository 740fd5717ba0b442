"""The weights that the training starts from.

Two things take a small transformer thousands of steps to find: to look at the token a
fixed distance before, and to look for a token like the present one. A model has to
do both to find the letter of an option. They can be had from the start.
"""

from __future__ import annotations

import torch
from torch import nn

from demo_model.network import Attention, TinyQwen2VL
from demo_model.sizes import SIZES

EMBEDDING_DEVIATION = 0.3
ADDED = ("o_proj", "down_proj", "attn.proj", "fc2")
ADDED_SHARE = 0.3
DISTANCES = (2, 1)  # tokens: from an option to its letter, and to the sign between
POSITION_STRENGTH = 3.5
CONTENT_SHARE = 0.1  # where heads look at positions


def initialise(model: TinyQwen2VL) -> None:
    """Draw the weights so that every layer keeps the size of its input."""
    for name, weight in model.named_parameters():
        if "norm" in name or "ln_q" in name:
            continue
        if weight.ndim == 1:
            nn.init.zeros_(weight)
        elif "embed_tokens" in name:
            nn.init.normal_(weight, std=EMBEDDING_DEVIATION)
        else:
            # What is added to the tokens is small at first, so that they stay known.
            added = any(last in name for last in ADDED)
            deviation = weight.flatten(1).shape[1] ** -0.5
            nn.init.normal_(weight, std=deviation * (ADDED_SHARE if added else 1))
    with torch.no_grad():
        attentions = [one for one in model.modules() if isinstance(one, Attention)]
        for attention in attentions:
            seek_the_same(attention)
        look_back(attentions[0])


def seek_the_same(attention: Attention) -> None:
    """Make queries of the same weights as keys: like tokens attend to each other."""
    keys = attention.k_proj.weight.unflatten(0, (SIZES.key_value_heads, -1))
    queries = keys.repeat_interleave(attention.repeats, dim=0)
    attention.q_proj.weight.copy_(queries.flatten(0, 1))


def look_back(attention: Attention) -> None:
    """Make the heads of the first keys look DISTANCES back, whatever stands there.

    Constant queries and keys of the angles a and b, rotated with their positions p
    and q, have a product of cos(a - b + (p - q) f): the largest where the exponent's
    frequency f times the distance undoes the difference of the angles.
    """
    width = attention.width
    attention.k_proj.weight[:width] *= CONTENT_SHARE
    attention.q_proj.weight[: width * len(DISTANCES)] *= CONTENT_SHARE
    steps = torch.arange(SIZES.rope_sections[0])
    frequencies = SIZES.rope_theta ** (-2.0 * steps / width)
    half = width // 2
    attention.k_proj.bias[steps] = POSITION_STRENGTH
    for head, distance in enumerate(DISTANCES):
        angles = -distance * frequencies
        first = head * width + steps
        attention.q_proj.bias[first] = POSITION_STRENGTH * angles.cos()
        attention.q_proj.bias[first + half] = POSITION_STRENGTH * angles.sin()
