"""Hostile texts that would run, load or open something where they are evaluated."""

from __future__ import annotations

import base64
import pickle
import random
from pathlib import Path

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
