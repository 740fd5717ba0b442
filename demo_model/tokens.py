"""The tokenizer: a small byte-level BPE with Qwen2-VL's rules and special tokens."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from demo_model.draw import COLOURS, SHAPES
from demo_model.questions import (
    CATEGORIES,
    KINDS,
    benchmark_prompt,
    make_sample,
    other_prompt,
)
from demo_model.sizes import SPECIAL, VOCABULARY
from demo_model.words import WORDS, make_unfamiliar
from pytest_vlmeval.models.demo import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator

# The pre-tokenizer's pattern in Qwen2's tokenizer.json.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ANSWERS = (*COLOURS, *SHAPES, "Yes", "No", *"ABCDE", *"0123456789")


def train_tokenizer(seed: int) -> Tokenizer:
    """Train the tokenizer on the demo's prompts and on the words of all others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(Random(seed)), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    )
    for answer in ANSWERS:
        length = len(tokenizer.encode(answer).ids)
        assert length == 1, f"the answer {answer!r} has become {length} tokens"
    return tokenizer


def _corpus(random: Random) -> Iterator[str]:
    for answer in ANSWERS:
        yield from [answer, f" {answer}"] * 100
    for word in WORDS:
        yield from [word, f" {word}", word.capitalize()] * 2
        yield f" {word}"
    for _ in range(200):
        yield f"system\n{SYSTEM}\nuser\nassistant\n"
        yield make_unfamiliar(random).text
        for kind in KINDS:
            for category in CATEGORIES:
                sample = make_sample(random, kind, category)
                yield benchmark_prompt(sample)
                yield other_prompt(random, sample)
