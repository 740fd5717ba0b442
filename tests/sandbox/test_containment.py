"""Containment: no network, no programs, no pickles, and an eval of values alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.sandbox.inside.expressions import (
    MAX_LENGTH,
    RefusedExpressionError,
    calculate,
    confined_eval,
    evaluate,
    refuse_code,
)
from tests.support.sandbox_calls import run_inside

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


def test_the_process_has_no_network_and_starts_no_programs(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
import os, socket, subprocess, urllib.request
print(json.dumps([attempt(action) for action in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.socket().connect(("127.0.0.1", 9)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    lambda: urllib.request.urlopen("http://127.0.0.1:9"),
    lambda: socket.socket(socket.AF_UNIX).connect("/run/docker.sock"),
    lambda: socket.socket(socket.AF_UNIX).connect("nothing-here"),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
)]))
"""
    *refused, local, program, shell = run_inside(sandbox_environment, code, tmp_path)
    assert all("ContainedError: the sandbox allows no socket." in it for it in refused)
    assert local.startswith("FileNotFoundError")
    assert program.startswith("ContainedError: the sandbox allows no subprocess.Popen")
    assert shell.startswith("ContainedError: the sandbox allows no os.system")


def test_a_pickle_holds_data_and_nothing_that_is_called(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
import pathlib, pickle
from collections import defaultdict
import numpy as np
import pandas as pd
from pytest_vlmeval.sandbox.inside.job import Job, running
from vlmeval.smp import load

class Touch:
    def __reduce__(self):
        return (open, ("marker", "w"))

for name, value in (("plain", {"a": [1, "x", None]}), ("numbers", np.arange(3.0)),
                    ("number", np.float64(2)), ("foreign", Touch()),
                    ("path", pathlib.PurePosixPath("x"))):
    pathlib.Path(name + ".pkl").write_bytes(pickle.dumps(value))
job = Job(rows=pd.DataFrame(), folder=pathlib.Path.cwd(), on_progress=print)
with running(job):
  print(json.dumps([
    load("plain.pkl"), load("numbers.pkl").tolist(), float(load("number.pkl")),
    attempt(lambda: load("foreign.pkl")), attempt(lambda: load("path.pkl")),
    attempt(lambda: pd.read_pickle("foreign.pkl")),
    attempt(lambda: pickle._loads(pathlib.Path("foreign.pkl").read_bytes())),
  ]))
"""
    *plain, foreign, path, table, slow = run_inside(sandbox_environment, code, tmp_path)
    assert plain == [{"a": [1, "x", None]}, [0, 1, 2], 2]
    refused = "ContainedError: the sandbox allows no pickle.find_class"
    assert all(it.startswith(refused) for it in (foreign, path, table, slow))
    assert not (tmp_path / "marker").exists()


def test_entering_loads_no_torch_and_changes_nothing_in_the_process(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
import logging, os, ssl
before = dict(os.environ)
from vlmeval.dataset import image_caption, image_mcq, image_vqa, image_yorn
print(json.dumps({
    "torch": "torch" in sys.modules,
    "tls": ssl._create_default_https_context is ssl.create_default_context,
    "handlers": len(logging.getLogger().handlers),
    "environment": dict(os.environ) == before,
}))
"""
    assert run_inside(sandbox_environment, code, tmp_path) == {
        "torch": False,
        "tls": True,
        "handlers": 0,
        "environment": True,
    }


def test_every_module_has_the_confined_eval(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
import types
from pathlib import Path
import pandas as pd
from pytest_vlmeval.sandbox.inside import expressions
from pytest_vlmeval.sandbox.inside.job import Job, running
from vlmeval.dataset import image_mcq, image_vqa, image_yorn
from vlmeval.dataset.utils import mathv, vqa_eval
from vlmeval.smp import istype, toliststr
modules = [m for n, m in sys.modules.items()
           if n.startswith("vlmeval.") and getattr(m, "__file__", None)]
hostile = "[__import__('pathlib').Path('marker').touch()]"
job = Job(rows=pd.DataFrame(), folder=Path.cwd(), on_progress=print)
with running(job):
    equal = [mathv.is_equal(a, b) for a, b in (
        ("1/2", "0.5"), ("a", "42"), (r"\\\\frac{1}{2}", "0.5"), ("3", "4"),
        ("__import__('pathlib').Path('marker').touch()", "1"))]
print(json.dumps({
    "modules": len(modules),
    "confined": all(m.eval is expressions.confined_eval and
                    m.exec is m.compile is expressions.refuse_code for m in modules),
    "istype": [istype("[1, 2]", list), istype(hostile, list), istype("7", int)],
    "toliststr": [toliststr("['a', 'b']"), attempt(lambda: toliststr(hostile))],
    "is_equal": equal,
}))
"""
    found = run_inside(sandbox_environment, code, tmp_path)
    assert found.pop("modules") > 15
    assert found == {
        "confined": True,
        "istype": [True, False, True],
        "toliststr": [["a", "b"], "RefusedExpressionError: Call is not allowed here"],
        "is_equal": [True, True, True, False, False],
    }
    assert not list(tmp_path.iterdir())


def test_tables_come_back_as_they_were(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
from pathlib import Path
import pandas as pd
from pytest_vlmeval.sandbox.inside.job import Job, running
from vlmeval.smp import dump, load, download_file
texts = ["NA", "None", "", "007", "=B", "{=1+1}", "x" * 40_000, "a\\r\\nb\\tc", "null"]
table = pd.DataFrame({"index": range(len(texts)), "prediction": texts,
                      "lists": [["a", 1]] * len(texts)}, index=range(9, 0, -1))
job = Job(rows=table, folder=Path.cwd(), on_progress=print)
back = []
with running(job):
    for suffix in ("xlsx", "csv", "tsv", "json"):
        dump(table, f"{Path.cwd()}/table.{suffix}")
        again = load(f"{Path.cwd()}/table.{suffix}")
        back.append([list(again["prediction"]) == texts, list(again.index) ==
                     list(range(len(texts))), again["lists"][0]])
    dump(table, "/tmp/20250101000000.xlsx")
    dump({"a": 1}, "plain.json")
    plain = load("plain.json")
    refused = attempt(lambda: download_file("https://example.org/x.tsv"))
print(json.dumps([back, Path("/tmp/20250101000000.xlsx").exists(), plain, refused]))
"""
    back, left_behind, plain, download = run_inside(sandbox_environment, code, tmp_path)
    assert back == [[True, True, "['a', 1]"]] * 4
    assert not left_behind
    assert plain == {"a": 1}
    assert download == (
        "ContainedError: the sandbox allows no download of https://example.org/x.tsv"
    )


def test_the_serial_stand_ins_give_the_same_results(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
from pathlib import Path
import pandas as pd
from pytest_vlmeval.sandbox.inside.job import Job, running
from vlmeval.dataset import image_vqa
from vlmeval.dataset.utils import build_judge
from vlmeval.smp import load
from vlmeval.utils import track_progress_rich
seen = []
job = Job(rows=pd.DataFrame(), folder=Path.cwd(),
          on_progress=lambda *counts: seen.append(counts))
with running(job):
    results = track_progress_rich(lambda a, b: a * b, [(2, 3), dict(a=4, b=5)],
                                  nproc=4, save="save.pkl", keys=["x", "y"])
    judge = build_judge(model="gpt-4o", max_tokens=9)
    found = [results, load("save.pkl"), seen, image_vqa.mp.Pool(16).map(str, [1, 2]),
             judge.working(), judge.generate("?", temperature=0.5)]
print(json.dumps(found))
"""
    assert run_inside(sandbox_environment, code, tmp_path) == [
        [6, 20],
        {"x": 6, "y": 20},
        [[1, 2], [2, 2]],
        ["1", "2"],
        True,
        "Failed to obtain answer via API.",
    ]


ALLOWED = """
    1  -1  +2.5  1e3  0x10  1_000  1j  .5  007.5  True  None  ...  'text'  "a"  b'x'
    1/2  2**10  2^3  7//2  7%4  1-2*3  (1+2)*3  ~3  1<<4  6&3  6|3  -(2)**2  2**-1
    1<2  2<3<5  3==3.0  4!=4  not(0)  [1,2]  [1,'a',[2.5]]  (1,)  {1,2}  {'a':1}  []
    ['x','y']  {}  ()  'a''b'
""".split()
SENTENCES = ["3 or 4", "5 and 7", "0 or 2", " 12", "3, 4", "1\n", "not 1", "1 #note"]
REFUSED = [
    "__import__('os')",
    "().__class__",
    "abs(-3)",
    "[1, 2][0]",
    "[x for x in (1, 2)]",
    "lambda: 1",
    "f'{1}'",
    "1 if 1 else 2",
    "(y := 1)",
    "[*(1, 2)]",
    "{**{}}",
    "'a' * 3",
    "[1] * 3",
    "'%s' % 1",
    "1 in (1, 2)",
    "1 is 1",
    "1 @ 2",
    "await 1",
    "9**9**9",
    "10**-99999999",
    "1 << 99999999",
    "+".join(["1"] * 300),
    "[" * 150 + "]" * 150 + "+0",
]


@pytest.mark.parametrize("source", [*ALLOWED, *SENTENCES])
def test_it_gives_what_python_gives(source: str) -> None:
    expected = eval(source)
    found = evaluate(source)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("source", REFUSED)
def test_it_refuses_what_is_more_than_arithmetic(source: str) -> None:
    with pytest.raises(RefusedExpressionError):
        evaluate(source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("", SyntaxError),
        ("2^{3}x", SyntaxError),
        ("The answer is 3", SyntaxError),
        ("pi", NameError),
        ("abs", NameError),
        ("1/0", ZeroDivisionError),
        ("10.0**999", OverflowError),
        ("1\0", SyntaxError),
        ("(" * 5_000, SyntaxError),
        ("9" * 5_000, SyntaxError),
    ],
)
def test_it_fails_as_python_does(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        evaluate(source)


@pytest.mark.parametrize("source", [1, 1.5, None, ["1"]])
def test_what_is_no_text_is_a_type_error_as_in_python(source: object) -> None:
    with pytest.raises(TypeError, match=r"^eval\(\) arg 1 must be a string"):
        evaluate(source)


def test_a_name_is_a_local_variable_of_the_caller() -> None:
    # In mathv.is_equal an answer "a" is the reference, which it therefore equals.
    a = 42
    text = "words"
    assert confined_eval("a") == a
    assert confined_eval("2*a + 1") == 85
    assert confined_eval("text") == text
    assert confined_eval("b", {"b": 7}) == 7


@pytest.mark.parametrize("value", [object(), print, [1], type])
def test_other_locals_are_not_seen(value: object) -> None:
    with pytest.raises(NameError, match="name 'value' is not defined"):
        confined_eval("value")


def test_a_cell_with_many_images_is_read() -> None:
    images = ["A" * 2_000_000, "B" * 1_000_000, ""]
    start = time.process_time()
    assert evaluate(str(images)) == images
    assert time.process_time() - start < 2


@pytest.mark.parametrize("text", ["1+" * MAX_LENGTH + "1", "['a'," + "1," * MAX_LENGTH])
def test_other_long_texts_are_refused_unread(text: str) -> None:
    with pytest.raises(RefusedExpressionError, match="characters, 100000 are allowed"):
        evaluate(text)


@pytest.mark.parametrize(
    "source",
    ["2**19999*" * 900 + "1", "((((9**99)**99)**99)**99)", "1<<(1<<(1<<30))"],
)
def test_sizes_and_so_time_are_bounded(source: str) -> None:
    start = time.process_time()
    with pytest.raises((RefusedExpressionError, RecursionError)):
        evaluate(source)
    assert time.process_time() - start < 2


def test_code_is_refused() -> None:
    with pytest.raises(RefusedExpressionError, match="runs no code from data"):
        refuse_code("import os")


def test_a_long_list_of_any_texts_is_a_literal() -> None:
    texts = ["a 'quote'\n" * MAX_LENGTH, "both ' and \"\\", "夜\x00", ""]
    assert evaluate(str(texts)) == texts
    with pytest.raises(RefusedExpressionError):
        evaluate(str([*texts, 1]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" -1.5e3 ", -1500),
        ("2^3", 8),
        ("2**3", 8),
        ("(1 + 2) * 3 / 4", 2.25),
        ("+7", 7),
    ],
)
def test_a_number_is_calculated(text: str, value: float) -> None:
    assert calculate(text) == value


NAMES_AND_WORDS = ["a", "+a", "(a)", "a or b", "3 or 4", "5 and 7", "not 1"]
NAMES_AND_WORDS += ["1 if 1 else 2", "len", "asw", "True", "None", "...", "'5'"]
OTHER_OPERATORS = ["1 < 2", "[5]", "(5,)", "{5}", "~5", "6 & 3", "6 | 3", "5 << 1"]
OTHER_OPERATORS += ["7 // 2", "7 % 4", "abs(-3)", "9^9^9", "1+" * MAX_LENGTH]


@pytest.mark.parametrize(
    "text",
    [*NAMES_AND_WORDS, *OTHER_OPERATORS],
)
def test_what_is_more_than_a_number_is_not_calculated(text: str) -> None:
    with pytest.raises((RefusedExpressionError, SyntaxError)):
        calculate(text)


@pytest.mark.parametrize("text", ["", "1 2", "the answer is 3", "2x"])
def test_what_is_no_expression_is_not_calculated(text: str) -> None:
    with pytest.raises(SyntaxError):
        calculate(text)
