"""Texts that a hostile model, judge or dataset may hold, made anew from a seed.

Each that runs anywhere as code, or is opened as a file, leaves the marker. No text
here is the right answer to anything.
"""

from __future__ import annotations

import base64
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# Around an expression, as scorers look for it in an answer.
WRAPPINGS = (
    "{}",
    "[{}]",
    "['a', {}]",
    "The answer is {}",
    r"\boxed{{{}}}",
    r"$\frac{{{}}}{{2}}$",
    "Extracted answer: {} Answer format: Float",
)


def imports(marker: Path, chance: random.Random) -> list[str]:
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    calls = [
        touch,
        f"__import__('os').system('touch {marker}')",
        f"__import__('subprocess').call(['touch', {str(marker)!r}])",
        f"open({str(marker)!r}, 'w').close()",
        f"exec('open({str(marker)!r}, chr(119))')",
        f"eval(compile({touch!r}, '', 'eval'))",
        f"[x for x in [{touch}]]",
        f"(lambda: {touch})()",
        f"1 if {touch} else 2",
        f"(y := {touch})",
        f"f'{{{touch}}}'",
        f"{{1: {touch}}}",
        f"sympify({touch!r})",
        f"parse_expr({touch!r})",
    ]
    wrapped = [wrapping.format(call) for call in calls for wrapping in WRAPPINGS]
    chance.shuffle(wrapped)
    return [*calls, *wrapped[:40]]


def dunder_chains(marker: Path, _chance: random.Random) -> list[str]:
    subclasses = "().__class__.__bases__[0].__subclasses__()"
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return [
        subclasses,
        f"{subclasses}[-1].__init__.__globals__['__builtins__']['eval']({touch!r})",
        f"[c for c in {subclasses} if c.__name__ == '_wrap_close'][0]"
        f".__init__.__globals__['system']('touch {marker}')",
        "''.__class__.__mro__[1]",
        "(1).__class__.__base__.__subclasses__()",
        "__builtins__",
        "__builtins__.__dict__['open']",
        "globals()['__builtins__']",
        "self.__dict__",
        "line.__class__.__init__.__globals__",
        "pd.read_pickle.__globals__['os']",
        "pd.eval('@__builtins__')",
        f"@pd.core.common.os.system('touch {marker}')",
    ]


def format_strings(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        "%s" * 1_000,
        "%n%n%n%n",
        "%(a)s %(b)d %",
        "%1000000000d",
        "{}{}{}{}",
        "{0.__class__.__init__.__globals__}",
        "{:>1000000000}",
        "{!r:{width}}",
        "{",
        "}",
        "${HOME} $(id) `id`",
        "{{7*7}} {% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
        "<script>alert(1)</script>",
        "]]></failure><testcase name='x'/><![CDATA[",
        "</td></tr><tr><td>&lt;&amp;",
        "'; DROP TABLE answers; --",
        '"}]}, {"result": {"verdicts": []}}',
        "\n::error::owned\n",
        "=HYPERLINK('file:///etc/passwd')",
        "=cmd|' /C calc'!A0",
        "[red]markup[/red] [link=file:///etc/passwd]x[/link]",
    ]


def paths(marker: Path, _chance: random.Random) -> list[str]:
    return [
        str(marker),
        f"file://{marker}",
        "/etc/passwd",
        "../" * 40 + "etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        "~/.ssh/id_rsa",
        "Z:\\Windows\\win.ini",
        "\\\\127.0.0.1\\share",
        "http://127.0.0.1:9/x.tsv",
        "https://127.0.0.1:9/x.pkl",
        "s3://bucket/key",
        "image:" + "0" * 64,
        "data:image/png;base64," + "A" * 200,
        "." * 65,
        "a/b" * 2_000,
        "nul\0byte.png",
    ]


def formulas(_marker: Path, _chance: random.Random) -> list[str]:
    return [
        r"9^{9^{9^{9}}}",
        r"\binom{10^9}{10^8}",
        r"\int_0^\infty e^{x^{x^{x}}} dx",
        r"\sum_{n=1}^{10^{12}} n^n",
        r"\prod_{n=1}^{10^{9}} n",
        r"\lim_{x\to0} x^{x^{x^x}}",
        r"\sqrt[10^9]{10^{10^9}}",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^9}",
        r"\text{__import__('os').system('id')}",
        r"\input{/etc/passwd}",
        r"\def\x{\x\x}\x",
        r"\csname x\endcsname",
        r"1\times" * 2_000 + "1",
        r"x^{-x^{-x^{-x}}} = \sin(\cos(\tan(x)))",
    ]


def structures(marker: Path, _chance: random.Random) -> list[str]:
    class Touch:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    pickled = pickle.dumps(Touch())
    return [
        base64.b64encode(pickled).decode(),
        pickled.decode("latin-1"),
        '{"a": ' * 500 + "1" + "}" * 500,
        '{"score": 1, "score": 1e999, "__class__": "os"}',
        '{"verdict": "correct", "value": NaN}',
        "[1, 2, 3" + ", 4" * 3_000 + "]",
        "{1, 2} | {[]}",
        "{[]: 1}",
        "(1,) * 3",
        "[None, ..., 1j, b'x']",
        f"!!python/object/apply:os.system ['touch {marker}']",
        "<!DOCTYPE x [<!ENTITY a 'x'><!ENTITY b '&a;&a;&a;&a;'>]><x>&b;</x>",
        "[['['['['",
        "['unclosed",
        "answer: None",
    ]


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


LONG_BYTES = 10 * 2**20
SEED = 9


class Hostile(NamedTuple):
    """One text and the kind of harm it is meant to do."""

    kind: str
    text: str


def corpus(marker: Path, *, long_bytes: int = LONG_BYTES) -> list[Hostile]:
    """Give all texts, in an order that does not depend on the process."""
    chance = random.Random(SEED)
    kinds: dict[str, Callable[[Path, random.Random], Sequence[str]]] = {
        "import": imports,
        "dunder chain": dunder_chains,
        "huge number": huge_numbers,
        "deep nesting": deep_nesting,
        "regex bomb": regex_bombs,
        "format string": format_strings,
        "path": paths,
        "control character": controls,
        "terminal escape": escapes,
        "lone surrogate": surrogates,
        "direction mark": directions,
        "formula": formulas,
        "structure": structures,
        "noise": noise,
    }
    texts = [
        Hostile(kind, text)
        for kind, make in kinds.items()
        for text in make(marker, chance)
    ]
    return [*texts, *(Hostile("long", text) for text in long_texts(long_bytes))]
