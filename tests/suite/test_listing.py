"""`pytest --vlm-list`: the table, its filter, JSON, and what it imports."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import CORE, demo_datasets
from pytest_vlmeval.suite.commands import Places, list_datasets
from tests.support.run_fixtures import Project, math_rows, write_table

HEADER = "name modality kind judge scored size disk presets".split()
FOOTER = 5


def test_the_table_fits_and_has_all(project: Project) -> None:
    write_table(project.data_root / "MathVision_MINI.tsv", math_rows(2))
    result = project.run("--vlm-list")
    assert result.ret == pytest.ExitCode.OK
    lines = result.outlines
    assert lines[0].split() == HEADER
    assert max(map(len, lines)) <= 100
    body = lines[1:-FOOTER]
    rows = {line.split()[0]: line.split() for line in body if line[:2] == "  "}
    # Presets stand behind their dataset.
    assert len(rows) > 500
    assert "Video-MME_8frame" not in rows
    assert rows["Video-MME"][-2:] == ["no", "+6"]
    assert rows["MathVision_MINI"][1:] == "image vqa optional yes < 1 MB yes".split()
    # Too long for its column, so on a line of its own.
    long_name = "  CCOCR_DocParsing_FormulaHandwriting"
    assert body[body.index(long_name) + 1].split()[0] == "image"
    assert rows["DocVQA_TEST"][3:6] == ["unused", "no", "refs"]
    assert rows["MMMU_TEST"][3:6] == ["optional", "no", "refs"]
    assert rows["MMMB"][3:5] == ["?", "yes"]
    assert rows["MUIRBench"][3:6] == ["?", "not", "yet"]
    assert rows["MMT-Bench_ALL"][5:8] == ["6.2", "GB", "no"]
    assert rows["DemoChoice"][-1] == "yes"
    core = {line.split()[1]: line.split() for line in body if line[:2] == "* "}
    assert core.keys() == CORE
    assert core["MMVet"][4:7] == ["required", "by", "judge"]
    assert lines[-4:] == [
        "523 datasets, 4 on disk. *: one of the core eight "
        "(-m core). presets: names that fix",
        "frames and more, as Video-MME_8frame does; --vlm-list=presets lists them too. "
        "scored: by judge:",
        "with --vlm-judge only; no refs: no reference answers; not yet: no scoring "
        "here. Those two are",
        "only asked with --vlm-mode=infer. ?: unknown before a download. "
        "--vlm-list=json has more.",
    ]
    # A family stands together, below its name, and all are in the order of letters.
    start = body.index("MMBench")
    family = [line[2:].split()[0] for line in body[start + 1 : start + 13]]
    assert family[0] == "MMBench_DEV_EN"
    assert {name[:7] for name in family} == {"MMBench"}
    titles = [line for line in body if not line.startswith((" ", "*"))]
    assert titles == sorted(titles, key=str.casefold)
    assert len(titles) == len(set(titles))


def test_words_filter(project: Project) -> None:
    result = project.run("--vlm-list=video,mme,MULTIPLE")
    names = [line[2:].split()[0] for line in result.outlines[1:-FOOTER]]
    assert "Video-MME" in names
    assert "MME" not in names
    alone = project.run("--vlm-list=DemoOpen")
    assert alone.outlines[-4].startswith("1 dataset, 1 on disk. ")


def test_presets_are_listed_on_demand(project: Project) -> None:
    def names(words: str) -> list[str]:
        lines = project.run(f"--vlm-list={words}").outlines
        assert max(map(len, lines)) <= 100
        return [line[2:].split()[0] for line in lines[1:-FOOTER] if line[:1] == " "]

    assert "TempCompass_8frame" not in names("tempcompass")
    found = names("presets,tempcompass")
    assert {"TempCompass", "TempCompass_8frame", "TempCompass_0.5fps"} <= set(found)
    # What is named itself is not hidden.
    assert names("TempCompass_8frame") == ["TempCompass_8frame"]
    # JSON has all of them, and says what they are.
    entries = {each["name"]: each for each in json.loads(listed(project))}
    assert len(entries) == 728
    assert entries["TempCompass_8frame"]["preset_of"] == "TempCompass"
    assert entries["TempCompass"]["preset_of"] is None
    assert {name for name, each in entries.items() if each["core"]} == CORE


def test_nothing_fits(project: Project) -> None:
    result = project.run("--vlm-list=image,nothing-like-it")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-list=image,nothing-like-it: no dataset has all of these "
            "words in its name, family, kind or modality. Kinds are multiple_choice, "
            "yes_no, vqa, caption and other; modalities image, video and text."
        ]
    )


def test_json_has_everything(project: Project) -> None:
    result = project.run("--vlm-list=json,MMT-Bench_VAL")
    (first, second) = json.loads(result.stdout.str())
    assert {first["name"], second["name"]} == {"MMT-Bench_VAL", "MMT-Bench_VAL_MI"}
    entry = first if first["name"] == "MMT-Bench_VAL" else second
    assert len(entry.pop("md5")) == 32
    assert entry.pop("versions") == []
    assert entry == {
        "name": "MMT-Bench_VAL",
        "core": False,
        "preset_of": None,
        "family": "MMT-Bench",
        "modality": "image",
        "kind": "multiple_choice",
        "judge": "optional",
        "has_references": True,
        "scored": "yes",
        "not_scored_because": None,
        "size_bytes": 631_000_000,
        "on_disk": False,
        "source": "opencompass.openxlab.space",
        "url": "https://opencompass.openxlab.space/utils/benchmarks/"
        "MMT-Bench/MMT-Bench_VAL.tsv",
        "homepage": "https://mmt-bench.github.io",
        "licence": "CC-BY-4.0",
    }


def test_json_says_why_there_is_no_score(project: Project) -> None:
    words = {"MUIRBench": "not yet", "DocVQA_TEST": "no refs", "MMVet": "by judge"}
    found = {each["name"]: each for each in json.loads(listed(project))}
    assert {name: found[name]["scored"] for name in words} == words
    assert {name: found[name]["not_scored_because"] for name in words} == {
        "MUIRBench": "the scoring of ms-vlmeval's MUIRDataset cannot be used here yet",
        "DocVQA_TEST": "no reference answers",
        "MMVet": None,
    }


def listed(project: Project) -> str:
    return project.run("--vlm-list=json").stdout.str()


def test_json_of_nothing_is_an_empty_list(project: Project) -> None:
    infos = demo_datasets().values()
    places = Places(project.data_root)
    assert list_datasets(infos, ["json", "nothing"], places) == "[]"
    (open_one,) = json.loads(list_datasets(infos, ["vqa", "JSON"], places))
    assert open_one["on_disk"]
    assert open_one["url"] is None


def test_it_imports_nothing_heavy(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE_DIR", str(tmp_path))
    project.run("--vlm-list=demo")
    result = project.pytester.run(
        sys.executable, "-X", "importtime", "-m", "pytest", "--vlm-list=demo"
    )
    imported = {line.rpartition("|")[2].strip() for line in result.errlines}
    assert "pytest_vlmeval.suite.commands" in imported
    assert not imported & {"pandas", "pyarrow", "openai", "sqlalchemy", "numpy"}
    # What ms-vlmeval says of its datasets is in a file, and no sandbox was asked.
    assert "pytest_vlmeval.datasets.catalog" in imported
    assert "pytest_vlmeval.sandbox.calls" in imported
    assert not list(tmp_path.iterdir())
