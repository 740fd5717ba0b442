"""Hostile texts that are too large or too deep, or of signs that upset a reader."""

from __future__ import annotations

import random
from pathlib import Path

CONTROLS = "\0\a\b\t\n\v\f\r\x1b\x7f\x80\x85\x9b\u2028\u2029\ufeff\ufffe\uffff"


def huge_numbers(_marker: Path, chance: random.Random) -> list[str]:
    towers = ["**".join("9" * height) for height in (3, 4, 9, 60)]
    return [
        *towers,
        *(f"10**{chance.randrange(10**8, 10**9)}" for _ in range(3)),
        "1<<99999999999",
        "2**-99999999999",
        "((((9**99)**99)**99)**99)**99",
        "9" * 5_000,
        "1e999999999",
        "-1e400",
        "0x" + "f" * 20_000,
        "1/0",
        "nan",
        "inf",
        "-inf",
        "1e308*1e308",
        "'a'*10**10",
        "[0]*10**10",
        "1000000000!",
        "9!!!!!!!!",
    ]


def deep_nesting(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        "(" * 10_000,
        "(" * 90 + "1" + ")" * 90,
        "[" * 5_000 + "]" * 5_000,
        "[" * 150 + "]" * 150,
        "{" * 3_000 + "}" * 3_000,
        "{'a':" * 1_000 + "1" + "}" * 1_000,
        "-" * 20_000 + "1",
        "not " * 5_000 + "1",
        "+".join(["1"] * 20_000),
        "1" + "**2" * 500,
        "1" + "<2" * 5_000,
        r"\frac{" * 2_000 + "1" + "}{2}" * 2_000,
        r"\sqrt{" * 3_000 + "4" + "}" * 3_000,
        r"\boxed{" * 2_000 + "Z" + "}" * 2_000,
        "x^{" * 400 + "2" + "}" * 400,
    ]


def regex_bombs(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        "a" * 30_000 + "!",
        "(a+)+$",
        "(.*)*" * 50,
        "." * 20_000,
        " " * 50_000 + "x",
        "\n" * 50_000 + "x",
        "1," * 30_000,
        "1." * 30_000,
        "- " * 30_000,
        "'" * 20_001,
        '"' * 20_001,
        "\\" * 20_001,
        "\\'" * 10_000,
        "$" * 20_001,
        "{" * 20_001,
        "answer is " * 5_000,
        "Answer: (" * 5_000,
        "the a an " * 10_000,
        "(A" * 10_000,
        "((?P<n>a)(?P=n))*",
        "[" + "'a\\'," * 30_000,
        "A. B. C. D. " * 5_000,
    ]


def controls(_marker: Path, chance: random.Random) -> list[str]:
    mixed = ["".join(chance.choices(CONTROLS, k=40)) + "x" for _ in range(8)]
    return [*(f"x{sign}y" for sign in CONTROLS), *mixed, "\0", "\0" * 10_000 + "x"]


def escapes(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        "\x1b[2J\x1b[H\x1b[31mall passed\x1b[0m",
        "\x1b]0;title\x07",
        "\x1b]8;;file:///etc/passwd\x1b\\here\x1b]8;;\x1b\\",
        "\x1b]52;c;cm0gLXJmIH4=\x07",
        "\x1bP+q544e\x1b\\",
        "\x9b31m\x9d0;x\x9c",
        "wrong\rPASSED",
        "wrong" + "\b" * 5 + "right",
        "\x1b[1A\x1b[2K",
        "\x1bc",
    ]


def surrogates(_marker: Path, chance: random.Random) -> list[str]:
    lone = [chr(chance.randrange(0xD800, 0xE000)) for _ in range(6)]
    return [
        *(f"x{sign}y" for sign in lone),
        "\ud800",
        "\udc80\udcff",
        "\udfff\ud800",
        "x" + "\udcff" * 5_000,
        "['\ud800', 1]",
        "\\ud800",
    ]


def directions(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        "\u202ex\u202c",
        "\u2066x\u2069" * 20,
        "\u200f\u200e\u061cx",
        "x" + "\u0300" * 5_000,
        "\u200b\u200c\u200d\u2060x",
        "\U000e0041\U000e0042x",
        "\uff3a\uff19",
        "\u0661\u0662\u0663",
        "²³",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 50,
    ]


def noise(_marker: Path, chance: random.Random) -> list[str]:
    planes = [(0x20, 0x7F), (0xA0, 0x2000), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF)]
    texts = []
    for _ in range(12):
        low, high = chance.choice(planes)
        length = chance.randrange(3, 400)
        texts.append("".join(chr(chance.randrange(low, high)) for _ in range(length)))
    return texts


def long_texts(size: int) -> list[str]:
    """Give texts of about `size` characters."""
    return [
        "x" * size,
        "word " * (size // 5),
        "[" + "1, " * (size // 3) + "1]",
        "\n" * (size - 1) + "x",
    ]
