"""Containment, seen from inside a process that entered the real ms-vlmeval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
