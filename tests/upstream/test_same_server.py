"""The same server through ms-vlmeval and through us: what it receives, and the scores.

ms-vlmeval's own client, loop and evaluation ask one server (`upstream_path.py`), and
then a session here does; `docs/fidelity.md` lists every difference, and is read. White
space, cut-off and empty replies give the same numbers.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.models.chat import as_ms_vlmeval
from pytest_vlmeval.records import NO_REPLY, DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment, addons_for
from pytest_vlmeval.sandbox.inside.metrics import flatten
from tests.support.conformance import Served, card, repository_folder, serve
from tests.support.documentation import ROOT, read
from tests.support.run_fixtures import (
    CACHE_DIR,
    Project,
    endpoint,
    environment_with,
    math_rows,
    properties,
)
from tests.support.sandbox_tables import (
    CLASSES,
    FIXTURES,
    Row,
    cell,
    draw,
    shared_file,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

PATH_SCRIPT = Path(__file__).parents[1] / "support" / "upstream_path.py"
MODEL = "tiny-vlm"
FRAMES = 8
# No exact matching there: dataset/image_vqa.py, mmvet.py ... assert that a judge works.
PAGE = ROOT / "docs" / "fidelity.md"
# What a table, a file of answers or a reader may take for something else.
ODD = [
    "",
    "None",
    "NA",
    "nan",
    "=B",
    "007",
    "B or C",
    "\r\n  B \n",
    "(B)",
    "The answer is B.",
    "A cat and two dogs",
    "yes or no",
    "No.",
    "1e3",
    "<think>It is A, or is it?</think>\n\nB",
    "Sorry, I can't help with images of people yet.",
]
# An answer that a file makes a missing cell ends ms-vlmeval's evaluation of the first
# in an error, and that of the second never.
AS_THEY_ARE = {"ImageCaptionDataset", "VCRDataset", "MMLongBench"}
# Their references are not published.
SECRET = {"DocVQA_TEST", "InfoVQA_TEST", "MLLMGuard_DS", "MMMU_TEST"}
JUDGED_ONLY = {"MathVista", "MathVision", "MMVet", "LLaVABench", "MMBenchVideo"}


class Side(NamedTuple):
    """What came of one way: the requests to the model and the judge, and metrics.

    `metrics` are by dataset and mode ("exact" or "judged"); a text is why there is
    none.
    """

    asked: dict[str, dict[str, object]]
    judged: set[str]
    metrics: dict[str, dict[str, dict[str, float] | str]]


def canonical(record: Mapping[str, object]) -> str:
    """Write down what a server received, but for how it came."""
    names = ("path", "model", "params", "content", "system", "order", "images", "text")
    told = {name: record[name] for name in names}
    params = cast("dict[str, object]", told["params"])
    # 0 and 0.0 are one number.
    told["params"] = {
        name: float(value) if isinstance(value, int) else value
        for name, value in params.items()
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def received(server: ServerProcess) -> dict[str, dict[str, object]]:
    """Return the requests for answers by what they hold; a repeated one is one."""
    return {canonical(each): each for each in server.requests()}


def answers_of(served: Served) -> dict[str, str]:
    """Return what a server answers by: tags in texts, and images as they are sent.

    An image is known by the JPEG that ms-vlmeval makes of it, however it keeps it.
    """
    found = dict(served.answers)
    if not any(len(key) == 64 for key in found):
        return found
    reader = csv.DictReader(io.StringIO(served.content.decode()), delimiter="\t")
    for row in reader:
        data = base64.b64decode(row["image"])
        said = found.pop(hashlib.sha256(data).hexdigest())
        for suffix in (".png", ".jpg"):
            sent = as_ms_vlmeval(data, suffix, None)
            found[hashlib.sha256(sent).hexdigest()] = said
    return found


class Bench:
    """One server, one judge, and the datasets that both sides evaluate."""

    def __init__(
        self,
        folder: Path,
        served: Mapping[str, Served],
        server: ServerProcess,
        judge: ServerProcess,
    ) -> None:
        self.folder = folder
        self.served = served
        self.server = server
        self.judge = judge
        self.root = folder / "LMUData"
        self.root.mkdir(parents=True)
        self.hub = folder / "hub"
        for each in served.values():
            self._lay(each)

    def _lay(self, each: Served) -> None:
        """Put a table where both sides look for it."""
        if not each.info.repository:
            (self.root / f"{each.info.name}.tsv").write_bytes(each.content)
            return
        theirs = repository_folder(each.info)
        ours = self.hub / theirs.parents[1].name
        shutil.copytree(theirs.parents[1], ours, symlinks=True)
        (ours / "snapshots" / theirs.name / each.file).write_bytes(each.content)

    def _table(self, each: Served) -> Path:
        if not each.info.repository:
            return self.root / f"{each.info.name}.tsv"
        (folder,) = (
            self.hub / repository_folder(each.info).parents[1].name / "snapshots"
        ).iterdir()
        return folder / each.file

    def _restart(self) -> None:
        answers: dict[str, str] = {}
        for each in self.served.values():
            answers |= answers_of(each)
        self.server.control(answers=answers, default="B")
        self.judge.control(judge="good", models=["judge"])

    def _environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VLM_")}
        return kept | {
            "LMUData": str(self.root),
            "HF_HUB_CACHE": str(self.hub),
            "HF_HUB_OFFLINE": "1",
            "VLMEVALKIT_USE_MODELSCOPE": "0",
        }

    def upstream(self) -> Side:
        """Evaluate with ms-vlmeval."""
        self._restart()
        groups: dict[Path, list[Served]] = {}
        for each in self.served.values():
            python = environment_with(addons_for(each.info)).python
            groups.setdefault(python, []).append(each)
        found: dict[str, Any] = {}
        for number, (python, group) in enumerate(groups.items()):
            found |= self._run_upstream(python, group, self.folder / f"up{number}")
        metrics = {name: _upstream_metrics(each) for name, each in found.items()}
        judged = self._judged()
        return Side(received(self.server), judged, metrics)

    def _run_upstream(
        self, python: Path, group: Sequence[Served], folder: Path
    ) -> dict[str, Any]:
        folder.mkdir()
        (folder / "LMUData").mkdir()
        for each in group:
            if not each.info.repository:
                shutil.copy(self._table(each), folder / "LMUData")
        job = {
            "model": MODEL,
            "url": self.server.url,
            "nproc": 16,
            "work": str(folder / "outputs"),
            "environ": {
                "LMUData": str(folder / "LMUData"),
                "LOCAL_LLM": "judge",
                "OPENAI_API_BASE": f"{self.judge.url}/chat/completions",
                "OPENAI_API_KEY": "EMPTY",
            },
            "datasets": [self._describe(each) for each in group],
        }
        (folder / "job.json").write_text(json.dumps(job))
        command = [str(python), str(PATH_SCRIPT), str(folder / "job.json")]
        done = subprocess.run(
            [*command, str(folder / "result.json")],
            cwd=folder,
            env=self._environ(),
            capture_output=True,
            text=True,
        )
        (folder / "log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr[-3000:]
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result

    def _describe(self, each: Served) -> dict[str, object]:
        modes = {"exact": "exact_matching", "judged": "gpt-4o-mini"}
        if each.info.class_name in JUDGED_ONLY:
            del modes["exact"]
        return {
            "name": each.info.name,
            "module": each.info.module,
            "class_name": each.info.class_name,
            "table": str(self._table(each)),
            "nframe": FRAMES,
            "judges": modes,
        }

    def ours(self) -> Side:
        """Evaluate with sessions here, without and with the judge."""
        self._restart()
        asked_only = SECRET & self.served.keys()
        scored = self.served.keys() - asked_only
        if asked_only:
            self._session("asked", asked_only, "--vlm-mode=infer")
        exact = self._session("exact", scored)
        asked = received(self.server)
        judge = ["--vlm-judge=judge", f"--vlm-judge-api-base={self.judge.url}"]
        judged = self._session("judged", scored, *judge)
        assert received(self.server).keys() == asked.keys()
        metrics: dict[str, dict[str, dict[str, float] | str]] = {}
        for mode, found in (("exact", exact), ("judged", judged)):
            for name, each in found.items():
                metrics.setdefault(name, {})[mode] = each
        return Side(asked, self._judged(), metrics)

    def _judged(self) -> set[str]:
        """Return what the judge was asked, but whether it works."""
        asked = [each for each in self.judge.requests() if each["text"] != "hello"]
        return set(map(canonical, asked))

    def _session(
        self, mode: str, names: Iterable[str], *arguments: str
    ) -> dict[str, dict[str, float] | str]:
        out = self.folder / mode
        command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p"]
        command += ["no:cacheprovider", "-k", "not test_no_regression"]
        command += [*endpoint(self.server.url), *arguments]
        command += [
            "--vlm-preset=evalscope",
            "--vlm-scoring=published",
            "--vlm-think-tags=none",
            f"--vlm-data={','.join(sorted(names))}",
            f"--vlm-work-dir={self.folder / 'work'}",
            f"--vlm-cache-dir={CACHE_DIR}",
            f"--vlm-export={out}",
            "--vlm-media-check=off",
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environ(), capture_output=True, text=True
        )
        (self.folder / f"{mode}.log").write_text(done.stdout + done.stderr)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        results = json.loads((out / "results.json").read_text())
        return {
            each["name"]: each["score"]["metrics"]
            if each["score"]
            else each["no_score"]
            for each in results["datasets"]
        }


def _upstream_metrics(found: Mapping[str, Any]) -> dict[str, dict[str, float] | str]:
    if "crash" in found:
        return {"exact": found["crash"], "judged": found["crash"]}
    metrics: dict[str, dict[str, float] | str] = {}
    for mode, scored in found.items():
        if "crash" in scored:
            metrics[mode] = scored["crash"]
        elif "table" in scored:
            metrics[mode] = flatten(pd.DataFrame(**scored["table"]))
        else:
            metrics[mode] = flatten(scored["dict"])
    return metrics


# With "A" for a letter that may be right, and TEXT for the reference.
STYLES = [
    "TEXT",
    "(TEXT)",
    "The answer is TEXT.",
    "Answer: TEXT, because of A and B",
    "A",
    "B or C",
    "I do not know",
    "=TEXT",
    "007",
    "None",
    "NA",
    "1e3",
    "\\boxed{TEXT}",
    "  TEXT\r\n",
    "TEXT TEXT",
    "\\frac{1}{2}",
    "0.5",
    "x=TEXT",
    "<think>It is A, or is it?</think>TEXT",
    "Sorry, I can't help with images of people yet.",
    "The options are A, B, C, D and E; TEXT!",
]


def serve_real(info: DatasetInfo, table: Path) -> Served:
    """Mark the rows of a published table; answers are drawn by what marks them."""
    csv.field_size_limit(sys.maxsize)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    answers = {}
    for row in rows:
        tag = f"[{info.name}/{row['index']}]"
        row["question"] += f" {tag}"
        said = random.Random(tag).choice(STYLES).replace("TEXT", row["answer"])
        answers[tag] = said
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
    return Served(info, table.name, out.getvalue().encode(), answers, {}, {})


def vary(served: Served) -> Served:
    """Let a third of the rows be answered oddly."""
    if served.info.class_name in AS_THEY_ARE:
        return served
    answers = {}
    for tag, said in served.answers.items():
        draw = random.Random(tag)
        answers[tag] = draw.choice(ODD) if draw.random() < 1 / 3 else said
    return served._replace(answers=answers)


def listed(heading: str, *columns: int) -> set[tuple[str, ...]]:
    """Return cells of the rows of a table of the page, without their quotes."""
    section = read(PAGE).partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        line.strip("| ").split(" | ")
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    return {tuple(row[column].strip("`") for column in columns) for row in rows}


def presence(theirs: Side, ours: Side) -> dict[str, tuple[str, str]]:
    """Say of each dataset which side scores it, without and with a judge."""
    words = {
        (True, True): "both",
        (True, False): "only ms-vlmeval",
        (False, True): "only here",
        (False, False): "neither",
    }
    return {
        name: tuple(  # type: ignore[misc]
            words[
                isinstance(theirs.metrics.get(name, {}).get(mode), dict),
                isinstance(ours.metrics.get(name, {}).get(mode), dict),
            ]
            for mode in ("exact", "judged")
        )
        for name in theirs.metrics
    }


def compare_metrics(theirs: Side, ours: Side) -> set[tuple[str, ...]]:
    """Compare every number that both give; return those that only we have."""
    more: set[tuple[str, ...]] = set()
    for name, modes in theirs.metrics.items():
        for mode, expected in modes.items():
            found = ours.metrics.get(name, {}).get(mode)
            if isinstance(expected, dict) and isinstance(found, dict):
                assert {key: found.get(key) for key in expected} == pytest.approx(
                    expected, rel=1e-9
                ), (name, mode)
                more |= {(name, key) for key in found.keys() - expected.keys()}
    return more


def dataset_of(request: str) -> str:
    """Return the dataset of what was asked, by its mark; else the text."""
    text = json.loads(request)["text"]
    found = re.findall(r"\[([\w-]+)/[\w-]+\]", text)
    return str(found[-1]) if found else text[:200]


def compare_requests(theirs: Side, ours: Side) -> set[tuple[str, ...]]:
    """Return what one side asks and the other does not: dataset, whom, which side."""
    pairs = {
        "the model": (set(theirs.asked), set(ours.asked)),
        "the judge": (theirs.judged, ours.judged),
    }
    return {
        (dataset_of(request), whom, side)
        for whom, (their, our) in pairs.items()
        for side, only in (("ms-vlmeval", their - our), ("here", our - their))
        for request in only
    }


@pytest.fixture
def judge(vlm_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Give a judge of its own."""
    return vlm_server(judge="good", models=["judge"])


@pytest.fixture
def catalog(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> Mapping[str, DatasetInfo]:
    """Give all datasets by name."""
    return load_catalog(sandbox_environment, tmp_path)


@pytest.mark.addons
@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
def test_all_differences_are_on_the_page(
    catalog: Mapping[str, DatasetInfo],
    server: ServerProcess,
    judge: ServerProcess,
    tmp_path: Path,
) -> None:
    served = {name: vary(serve(catalog[name])) for name in card()}
    assert len(served) == 65
    bench = Bench(tmp_path / "bench", served, server, judge)
    theirs, ours = bench.upstream(), bench.ours()
    assert len(theirs.asked) > 500
    assert len(theirs.judged) > 100
    whose = presence(theirs, ours)
    one_sided = {
        (name, *words)
        for name, words in whose.items()
        if any("only" in word for word in words)
    }
    assert one_sided == listed("Scores that one side does not give", 0, 1, 2)
    neither = {name for name, words in whose.items() if set(words) == {"neither"}}
    assert neither == SECRET - {"MMMU_TEST"}
    by_judge = {name for name, words in whose.items() if words == ("neither", "both")}
    assert by_judge == {"MMVet", "MMBench-Video"}
    for name in neither | by_judge:
        assert f"`{name}`" in read(PAGE)
    assert "vlmeval.dataset.smp" in str(theirs.metrics["LLaVABench"]["judged"])
    assert "KeyError: 'model'" in str(theirs.metrics["MMLongBench_DOC"]["judged"])
    more = compare_metrics(theirs, ours)
    assert more == listed("Numbers that only this side has", 0, 1)
    differing = compare_requests(theirs, ours)
    assert differing == listed("Requests that one side does not send", 0, 1, 2)


@pytest.mark.slow
def test_real_questions(
    catalog: Mapping[str, DatasetInfo],
    server: ServerProcess,
    judge: ServerProcess,
    tmp_path: Path,
) -> None:
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    served = serve_real(catalog["MathVision_MINI"], table)
    bench = Bench(tmp_path / "bench", {"MathVision_MINI": served}, server, judge)
    theirs, ours = bench.upstream(), bench.ours()
    assert len(theirs.asked) == 304
    assert len(theirs.judged) > 50
    assert compare_requests(theirs, ours) == set()
    assert compare_metrics(theirs, ours) == set()
    score = ours.metrics["MathVision_MINI"]["judged"]
    assert isinstance(score, dict)
    assert 0 < score["Overall/acc"] < 100


ANSWERS_SCRIPT = Path(__file__).parents[1] / "support" / "upstream_answers.py"
# What the server says of each row, with the row's reference for REF, and how it ended.
REPLIES = [
    ("REF", "stop"),
    ("REF\r\n", "stop"),
    ("\n\n REF", "stop"),
    ("REF\u3000\t", "stop"),
    # Two more characters make a small distance of a large one.
    ("$12.50\r\n", "stop"),
    ("12\n\n", "stop"),
    ("", "stop"),
    (" \n", "stop"),
    ("REF", "length"),
    ("REF, as one can see in the upper le", "length"),
    ("The upper left corner of this", "length"),
    (" ", "length"),
]
REFERENCES = ["red", "12.60", "Paris", "two dogs", "$99.99", "12.9", "A", "no", "x"]


def question(name: str, number: int) -> str:
    return f"<{name} {number}> What is it?"


def rows_of(name: str, class_name: str) -> list[Row]:
    """Give rows in the layout of a dataset, as many as there are replies."""
    rows: list[Row] = []
    for number in range(len(REPLIES)):
        reference = REFERENCES[number % len(REFERENCES)]
        row: Row = {
            "index": number,
            "question": question(name, number),
            "answer": reference,
            "category": "FR",
            "split": "test" if name == "MTVQA_TEST" else "val",
            "image": cell(draw(1)),
        }
        if class_name == "ImageMCQDataset":
            options = {"A": "red", "B": "blue", "C": "12", "D": "Paris"}
            row = {**row, **options, "answer": "ABCD"[number % 4]}
        if class_name == "ImageYORNDataset":
            row = {**row, "answer": ["Yes", "No"][number % 2]}
        if class_name == "OCRBench":
            kind = "Handwritten Mathematical Expression Recognition"
            kinds = ["Regular Text Recognition", kind]
            row = {**row, "answer": str([reference]), "category": kinds[number % 2]}
        if name == "TextVQA_VAL":
            row = {**row, "answer": str([reference] * 10)}
        rows.append(row)
    return rows


DATASETS = {
    "DocVQA_VAL": "ImageVQADataset",
    "ChartQA_TEST": "ImageVQADataset",
    "TextVQA_VAL": "ImageVQADataset",
    "OCRVQA_TEST": "ImageVQADataset",
    "MTVQA_TEST": "MTVQADataset",
    "OCRBench": "OCRBench",
    "MMStar": "ImageMCQDataset",
    "POPE": "ImageYORNDataset",
}


def reply(row: Row, number: int) -> dict[str, object]:
    text, finish_reason = REPLIES[number]
    reference = str(row["answer"]).partition(",")[0].strip("[]'")
    answer = text.replace("REF", reference)
    return {"answer": answer, "finish_reason": finish_reason}


def ask_upstream(
    environment: SandboxEnvironment, job: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Give what ms-vlmeval's client, files and rules make of the same server."""
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [environment.python, "-X", "utf8", ANSWERS_SCRIPT, "job.json", "found.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.slow
def test_the_same_server_has_the_same_score(
    project: Project,
    server: ServerProcess,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    tables = {name: rows_of(name, kind) for name, kind in DATASETS.items()}
    rules: list[dict[str, object]] = []
    asked = []
    for name, rows in tables.items():
        path = write_table(project.data_root / f"{name}.tsv", rows)
        rules += [
            {"contains": f"<{name} {number}>", **reply(row, number)}
            for number, row in enumerate(rows)
        ]
        asked.append(
            {
                "name": name,
                "class_name": DATASETS[name],
                "module": CLASSES[DATASETS[name]][0],
                "tsv": str(path),
                "questions": [(str(n), question(name, n)) for n in range(len(rows))],
            }
        )
    server.control(rules=rules)
    project.pytester.makepyfile(
        "from pytest_vlmeval import Benchmark\n"
        f"class TestAll(Benchmark):\n    datasets = {list(DATASETS)}\n"
    )
    project.run(*endpoint(server.url), "--vlm-export=out", "--vlm-min-answered=0", "-q")
    out = project.pytester.path / "out"
    results = json.loads((out / "results.json").read_text())["datasets"]
    job = {"url": f"{server.url}/chat/completions", "datasets": asked}
    upstream = ask_upstream(sandbox_environment, job, tmp_path)
    assert [each["name"] for each in results] == list(DATASETS)
    for ours in results:
        theirs = upstream[ours["name"]]
        expected = flatten(pd.DataFrame(**theirs["result"]))
        found = ours["score"]["metrics"]
        assert {key: found[key] for key in expected} == pytest.approx(expected), ours
        # Two were empty, and one before its limit; three of the cut off have a text.
        assert (ours["answered"], ours["cut_off"]) == (9, 4)
        assert ours["outcomes"]["empty"] == 3
        file = out / "tiny-vlm" / f"tiny-vlm_{ours['name']}.tsv"
        table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        said = dict(zip(table["index"], table["prediction"], strict=True))
        assert said == theirs["predictions"]
        assert list(said.values()).count(NO_REPLY) == 3
    values = {each["name"]: each["score"]["value"] for each in results}
    # The distance of "$12.50" to "$99.99" is too large, that of "$12.50\r\n" not.
    assert values["DocVQA_VAL"] == pytest.approx(100 * sum(found_anls()) / 12)


def found_anls() -> Sequence[float]:
    """Give what each reply is worth to DocVQA by hand."""
    return [1, 1, 1, 1, 0, 0.5, 0, 0, 1, 0, 0, 0]


def judged(project: Project, sample: str) -> list[str]:
    """Return what the judge was asked about a sample's answer."""
    query = "SELECT prompt FROM exchanges"
    return [str(p) for (p,) in project.stored(query) if f"<{sample}>" in str(p)]


@pytest.mark.slow
def test_the_judge_sees_what_was_cut_off_and_what_stands_for_an_empty_reply(
    project: Project,
    server: ServerProcess,
    vlm_server: Callable[..., ServerProcess],
) -> None:
    """Published scoring counts what it makes of that; corrected an empty one never."""
    project.write_math(6, math_rows(6))
    cut = {"answer": "So it is 3", "finish_reason": "length"}
    rules = [
        {"contains": "<1>", "answer": " "},
        {"contains": "<3>", **cut},
        {"contains": "<5>", "answer": "a secret", "finish_reason": "content_filter"},
    ]
    server.control(default="B\n", rules=rules)
    # A judge that makes up answers: the right ones.
    says = {"Question <1>?": "10", "Question <3>?": "30", "Question <5>?": "50"}
    judge = vlm_server(answers=says, default="no", models=["judge"])
    arguments = [
        *endpoint(server.url),
        "--vlm-judge=judge",
        f"--vlm-judge-api-base={judge.url}",
        "--vlm-max-cut-off=20",
        "--vlm-export=out",
    ]
    result, cases = project.junit(*arguments, "-rx")
    # The empty and the filtered answer, and the score that lacks both.
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI: 2 of 6 samples have no usable answer and count as wrong "
            "in Overall/acc = 83.33, but for 1 empty answers that ms-vlmeval counts "
            "(--vlm-scoring=corrected does not). *",
            "MathVision_MINI * 6 * 4 * 5 *83.33 of 100  2 without a usable answer (1 "
            "empty, 1 filtered), 1 cut off at the token limit, *",
        ]
    )
    (shown,) = judged(project, "1")
    assert NO_REPLY in shown
    (shown,) = judged(project, "3")
    assert "So it is 3" in shown
    assert not judged(project, "5")
    assert "a secret" not in str(judge.requests())
    said = properties(cases["test_sample[MathVision_MINI-3]"])
    assert (said["state"], said["verdict"]) == ("cut_off", "correct")
    (dataset,) = json.loads((project.pytester.path / "out/results.json").read_text())[
        "datasets"
    ]
    # What only the judge made up of an empty answer is marked as a defect.
    score = dataset["score"]
    assert score["without_defects"]["defects"] == 1
    assert score["without_defects"]["value"] == pytest.approx(400 / 6)
    # The same from the store alone: nothing of it is lost, and none is asked.
    requests = len(server.requests())
    scored = project.run(*arguments, "--vlm-mode=score")
    scored.assert_outcomes(passed=4, failed=3)
    scored.stdout.fnmatch_lines(["MathVision_MINI * 6 * 4 * 5 *83.33 of 100*"])
    assert len(server.requests()) == requests
    corrected = project.run(*arguments, "--vlm-mode=score", "--vlm-scoring=corrected")
    corrected.stdout.fnmatch_lines(["MathVision_MINI * 6 * 4 * 4 *66.67 of 100*"])
