"""Containment, seen from inside a process that entered the real ms-vlmeval."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pytest_vlmeval.sandbox
from pytest_vlmeval.datasets.catalog import locate_package

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

BOOTSTRAP = Path(pytest_vlmeval.sandbox.__file__).with_name("bootstrap.py")
ENTER = f"""
import json, runpy, sys
runpy.run_path({str(BOOTSTRAP)!r})["enter_packages"]()
from pytest_vlmeval.sandbox.inside import containment
containment.install()

def attempt(action):
    try:
        action()
    except BaseException as error:
        return f"{{type(error).__name__}}: {{error}}"
    return "nothing"
"""
# File below vlmeval/, line, and what stands there: where a mend answers ms-vlmeval.
ANSWERED = [
    ("__init__.py", 8, "_create_unverified_context"),
    ("__init__.py", 15, "logging.basicConfig("),
    ("__init__.py", 31, "load_env()"),
    ("smp/file.py", 149, "def dump("),
    ("smp/file.py", 248, "def load("),
    ("smp/file.py", 287, "def download_file("),
    ("smp/misc.py", 58, "eval(s)"),
    ("smp/misc.py", 203, "def load_env("),
    ("smp/misc.py", 255, "eval(s)"),
    ("smp/vlm.py", 9, "Image.MAX_IMAGE_PIXELS = 1e9"),
    ("smp/vlm.py", 150, "base64.b64decode("),
    ("smp/vlm.py", 159, "def decode_base64_to_image_file("),
    ("utils/mp_util.py", 31, "def track_progress_rich("),
    ("dataset/utils/judge_util.py", 8, "def build_judge("),
    ("utils/result_transfer.py", 17, "def MMMU_result_transfer("),
    ("dataset/dude.py", 79, "kwargs['model']"),
    ("dataset/slidevqa.py", 93, "kwargs['model']"),
    ("dataset/image_base.py", 325, "toliststr(line['image_path'])"),
    ("dataset/image_yorn.py", 91, "data['answer'] == data['extracted']"),
    ("dataset/utils/olympiadbench.py", 198, "exit(f'Error parsing"),
    ("dataset/utils/mathv.py", 26, "@timeout_decorator.timeout(30, use_signals=False)"),
    ("dataset/utils/mathv.py", 36, "eval(gt_asw)"),
    ("dataset/utils/multiple_choice.py", 405, "rd.choice(options)"),
    ("dataset/utils/multiple_choice.py", 573, "/tmp/{timestr()}"),
    ("dataset/utils/vqa_eval.py", 233, "def anls_compute("),
    ("dataset/utils/vqa_eval.py", 254, "eval(line['answer'])"),
    ("dataset/utils/multiple_choice.py", 77, "def report_acc("),
    ("dataset/utils/multiple_choice.py", 95, "abilities.sort()"),
    ("dataset/utils/multiple_choice.py", 103, "def report_acc_MMT("),
    ("dataset/utils/multiple_choice.py", 108, "for _, name in MMT_abbrs.items():"),
    ("dataset/utils/yorn.py", 60, "stats[category][image_path] = []"),
    ("dataset/utils/yorn.py", 70, "val[0] * val[1]"),
    ("dataset/utils/yorn.py", 103, "_{line['set_id']}_{line['figure_id']}"),
    ("dataset/image_mt.py", 54, "dlgs.append(dict(role='assistant'"),
    ("dataset/image_mt.py", 81, "int(line[k])"),
    ("dataset/image_mt.py", 90, "all[k] / valid[k]"),
    ("dataset/utils/mmdu.py", 113, "eval(dictionary_str)"),
    ("dataset/utils/mmvet.py", 103, "score[k] / tot[k] * 100"),
    ("dataset/utils/mathvista.py", 96, "res = str(res)"),
    ("dataset/utils/llavabench.py", 6, "from ..smp.log import get_logger"),
    ("dataset/utils/llavabench.py", 39, "return [-1, -1]"),
    ("dataset/mmlongbench.py", 11, "import torchvision.transforms"),
    ("dataset/mmlongbench.py", 379, "/ len(gt_pos_data)"),
    ("dataset/mmlongbench.py", 461, "kwargs['model']"),
    ("dataset/mmlongbench.py", 493, "base64.b64decode("),
    ("dataset/mmlongbench.py", 573, "for model, line in tqdm(tups):"),
    ("dataset/mmlongbench.py", 594, "logger.info(score)"),
    ("dataset/vcr.py", 22, "def initialize("),
    ("dataset/vcr.py", 99, "def find_best_match("),
    ("dataset/vcr.py", 277, "def evaluate("),
    ("dataset/vcr.py", 311, "progress_queue.get()"),
    ("dataset/vcr.py", 343, "logger.info('{}:{}'.format(key, value))"),
    ("dataset/image_base.py", 168, "assert idx in image_map"),
    ("dataset/image_base.py", 218, "def prepare_tsv("),
    ("dataset/image_mcq.py", 268, "'mmbench', 'ccbench', 'circular', 'mmcr'"),
    ("dataset/image_vqa.py", 87, "mp.Pool(16)"),
    ("smp/file.py", 372, "def md5("),
    ("smp/misc.py", 70, "def get_cache_path("),
    ("smp/misc.py", 73, "import create_temporary_directory_and_cache"),
    ("dataset/__init__.py", 393, "if k in init_params"),
    ("dataset/video_base.py", 45, "lmu_root = LMUDataRoot()"),
    ("dataset/video_base.py", 174, "def prepare_tsv("),
    ("dataset/video_concat_dataset.py", 10, "class ConcatVideoDataset("),
    ("dataset/video_concat_dataset.py", 17, "from . import build_dataset"),
    ("dataset/dsrbench.py", 62, 'os.path.join(cache_path, "raw_data")'),
    ("dataset/vdc.py", 173, "if modelscope_flag_set():"),
    ("dataset/mmbench_video.py", 31, "pickle.load(file)"),
    ("dataset/mvbench.py", 9, "import cv2"),
    ("dataset/mvbench.py", 186, "huggingface_hub.login("),
    ("dataset/videomme.py", 264, "for idx in data['index']:"),
    ("dataset/utils/videomme.py", 120, "def extract_option("),
    ("dataset/vladbench.py", 519, "~/.cache/vlmeval/vladbench/"),
    ("dataset/image_vqa.py", 244, "https://huggingface.co/datasets/MLLM-CL/VTCBench"),
    ("dataset/image_vqa.py", 294, "load_dataset("),
    ("dataset/image_vqa.py", 2523, "qspatial_root ="),
    ("dataset/image_vqa.py", 2538, "os.system("),
    ("dataset/image_vqa.py", 2591, "self.qspatial_root"),
    ("dataset/image_vqa.py", 2805, "download_file(url[i], data_path)"),
    ("dataset/image_mcq.py", 961, "mme_realworld_lite.tsv"),
    ("dataset/image_mcq.py", 2091, "localize_df("),
    ("dataset/image_mcq.py", 2292, "localize_df("),
    ("dataset/image_mcq.py", 2634, "num_proc=8"),
    ("dataset/da2k.py", 43, "https://huggingface.co/datasets/depth-anything/DA-2K"),
    ("dataset/da2k.py", 78, "hf_hub_download("),
    ("dataset/da2k.py", 94, "'annotations.json'"),
    ("dataset/da2k.py", 127, "'annotations.json'"),
    ("dataset/chartmimic.py", 494, "wget"),
    ("dataset/chartmimic.py", 507, "tar"),
    ("dataset/matbench.py", 168, "line[2]"),
    ("dataset/worldvqa.py", 239, "/blob/main/"),
    ("dataset/worldvqa.py", 274, "open(path"),
    ("tools.py", 371, "def LOCALIZE("),
    ("dataset/EgoExoBench/egoexobench.py", 245, "return None"),
    ("dataset/moviechat1k.py", 137, "os.path.join(self.video_path, line['video'])"),
    ("dataset/mvu_eval.py", 136, "rows.append(dict("),
    ("dataset/omtgbench.py", 197, "fps=2.0"),
    ("dataset/omtgbench.py", 233, 'os.path.join(self.data_root, line["video"])'),
    ("dataset/v2pbench.py", 118, "root=dataset_path"),
    ("dataset/v2pbench.py", 125, "relative_video_path"),
    ("dataset/vcrbench.py", 25, "os.system("),
    ("dataset/vdc.py", 269, "random.choice("),
    ("dataset/video_base.py", 57, "'video' in self.data"),
    ("dataset/video_base.py", 64, "self.fps > 0 and self.nframe > 0"),
    ("dataset/video_mmlu.py", 198, "random.choice("),
    ("dataset/videommev2.py", 187, "nframe=64"),
    ("dataset/videommmu.py", 499, "if not target_dir.exists():"),
    ("dataset/worldsense.py", 88, "from moviepy.editor import VideoFileClip"),
    ("dataset/worldsense.py", 150, "md5(data_file)"),
]


@pytest.fixture(scope="module")
def package(sandbox_environment: SandboxEnvironment) -> Path:
    """Give ms-vlmeval's folder in the sandbox's environment."""
    return locate_package(sandbox_environment.python).folder


def run_inside(environment: SandboxEnvironment, code: str, folder: Path) -> Any:
    """Run code after containment in the sandbox's Python; it prints JSON last."""
    done = subprocess.run(
        [environment.python, "-I", "-X", "utf8", "-c", ENTER + code],
        capture_output=True,
        cwd=folder,
        env={"HOME": str(folder), "OPENAI_API_KEY": "sk-test", "LANG": "C.UTF-8"},
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("file", "line", "text"), ANSWERED)
def test_what_a_mend_answers_is_still_there(
    package: Path, file: str, line: int, text: str
) -> None:
    lines = (package / file).read_text(encoding="utf-8").splitlines()
    assert text in lines[line - 1], f"{file}:{line} is now: {lines[line - 1]}"


def test_every_place_that_the_sandbox_names_is_checked() -> None:
    named = {
        (file, int(line))
        for source in BOOTSTRAP.parent.rglob("*.py")
        for file, line in re.findall(
            r"\b((?:dataset|smp|utils)/[\w/]+\.py):(\d+)", source.read_text("utf-8")
        )
    }
    assert named <= {(file, line) for file, line, _ in ANSWERED}


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
from pytest_vlmeval.sandbox.inside import expressions
from vlmeval.dataset import image_mcq, image_vqa, image_yorn
from vlmeval.dataset.utils import mathv, vqa_eval
from vlmeval.smp import istype, toliststr
modules = [m for n, m in sys.modules.items()
           if n.startswith("vlmeval.") and getattr(m, "__file__", None)]
hostile = "[__import__('pathlib').Path('marker').touch()]"
print(json.dumps({
    "modules": len(modules),
    "confined": all(m.eval is expressions.confined_eval and
                    m.exec is m.compile is expressions.refuse_code for m in modules),
    "istype": [istype("[1, 2]", list), istype(hostile, list), istype("7", int)],
    "toliststr": [toliststr("['a', 'b']"), attempt(lambda: toliststr(hostile))],
    "is_equal": [mathv.is_equal(a, b) for a, b in (
        ("1/2", "0.5"), ("a", "42"), (r"\\\\frac{1}{2}", "0.5"), ("3", "4"),
        ("__import__('pathlib').Path('marker').touch()", "1"))],
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
