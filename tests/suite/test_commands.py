"""What runs instead of tests: `--vlm-list`, `--vlm-setup` and `--vlm-doctor`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import CORE, demo_datasets, load_catalog
from pytest_vlmeval.sandbox.environment import LIGHT, addons_for
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.sources import pytest_sources
from pytest_vlmeval.suite import commands
from pytest_vlmeval.suite.commands import (
    Diagnosis,
    Places,
    examine_judges,
    examine_model,
    list_datasets,
    write_diagnoses,
)
from tests.support.run_fixtures import Project, environment_with, math_rows, write_table
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

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
    assert rows["MLVU"][3:6] == ["?", "not", "yet"]
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
        "with --vlm-judge only; no refs: no reference answers; refused, not yet: no "
        "scoring here. Those",
        "are only asked with --vlm-mode=infer, and --vlm-list=json says why. ?: "
        "unknown before a download.",
    ]
    # A family stands together, below its name, and all are in the order of letters.
    # Blank lines around it show where it ends.
    start = body.index("MMBench")
    assert body[start - 1] == ""
    family = [line[2:].split()[0] for line in body[start + 1 : start + 13]]
    assert family[0] == "MMBench_DEV_EN"
    assert {name[:7] for name in family} == {"MMBench"}
    titles = [line for line in body if line and not line.startswith((" ", "*"))]
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
    words = {
        "ChartMimic_v1_customized": "refused",
        "DocVQA_TEST": "no refs",
        "MMVet": "by judge",
    }
    found = {each["name"]: each for each in json.loads(listed(project))}
    assert {name: found[name]["scored"] for name in words} == words
    assert {name: found[name]["not_scored_because"] for name in words} == {
        "ChartMimic_v1_customized": "it runs the code that is the answer "
        "(dataset/chartmimic.py:288)",
        "DocVQA_TEST": "no reference answers",
        "MMVet": None,
    }


def listed(project: Project) -> str:
    return project.run("--vlm-list=json").stdout.str()


def test_json_of_nothing_is_an_empty_list(project: Project) -> None:
    infos = demo_datasets().values()
    places = Places(project.data_root)
    assert list_datasets(infos, ["json", "nothing"], places, {}) == "[]"
    (open_one,) = json.loads(list_datasets(infos, ["vqa", "JSON"], places, {}))
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


BENCHMARK = """
import pytest
from pytest_vlmeval import Benchmark

class TestBoth(Benchmark):
    datasets = ["MathVision_MINI", "VCR_EN_EASY_100"]

@pytest.mark.covered
class TestCovered(Benchmark):
    datasets = ["VCR_EN_EASY_100"]
"""


@pytest.fixture
def offline(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache with the light environment, in a project without one of its own."""
    light = environment_with(LIGHT).python.parents[1]
    cache = project.pytester.mkdir("cache")
    (cache / "sandbox").mkdir()
    (cache / "sandbox" / light.name).symlink_to(light)
    monkeypatch.setenv("VLM_CACHE_DIR", str(cache))
    monkeypatch.delenv("VLM_SANDBOX_PYTHON")
    return cache


def test_a_setup_builds_the_add_ons_of_the_datasets_that_are_named(
    project: Project, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of the message that VCR's environment is not built yet."""
    project.pytester.makepyfile(test_both=BENCHMARK)
    addon = environment_with(frozenset({"vcr"})).python.parents[1]
    by_data = ["--vlm-data=VCR_EN_EASY_100"]
    refused = project.run("--vlm-setup", *by_data, "--vlm-offline")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        f"is not built yet ({offline}/sandbox/{addon.name}), and --vlm-offline forbids "
        "downloading it. Build it once while online by the same command with "
        "--vlm-setup and without --vlm-offline"
    ) in refused.stderr.str()
    # What is there once it is built, by whatever installer.
    (offline / "sandbox" / addon.name).symlink_to(addon)
    ready = f"{offline}/sandbox/{addon.name}/bin/python (VCR_EN_EASY_100)"
    for given in (
        by_data,
        ["test_both.py", "-n", "2"],
        [".", "-k", "VCR_EN_EASY_100"],
        ["-k", "VCR_EN_EASY_100"],
        ["-m", "covered", "-W", "ignore"],
    ):
        result = project.run("--vlm-setup", *given, "--vlm-offline")
        assert result.ret == pytest.ExitCode.OK, given
        assert f"vlmeval: sandbox environment ready: {ready}" in result.outlines
        assert "no test" not in result.stdout.str().replace("no tests ran", "")
    alone = project.run("--vlm-setup", "--vlm-offline")
    assert "VCR_EN_EASY_100" not in alone.stdout.str()
    assert len(alone.outlines) == 1


@pytest.mark.addons
def test_the_set_up_of_each_add_on_is_what_its_message_says(
    project: Project, offline: Path
) -> None:
    """A dataset for each set of add-ons, whose message `--vlm-setup` follows."""
    catalog = load_catalog(environment_with(LIGHT), offline)
    by_addons = {addons_for(info): name for name, info in catalog.items()}
    del by_addons[LIGHT]
    assert len(by_addons) > 5
    lines = []
    for addons, name in by_addons.items():
        refused = project.run("--vlm-setup", f"--vlm-data={name}", "--vlm-offline")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        built = environment_with(addons).python.parents[1]
        assert f"is not built yet ({offline}/sandbox/{built.name})" in str(
            refused.stderr
        )
        everything = project.run("--vlm-setup=all", "--vlm-offline")
        assert everything.ret == pytest.ExitCode.USAGE_ERROR
        # What is there once it is built, by whatever installer.
        (offline / "sandbox" / built.name).symlink_to(built)
        result = project.run("--vlm-setup", f"--vlm-data={name}", "--vlm-offline")
        ready = f"{offline}/sandbox/{built.name}/bin/python"
        assert (
            f"vlmeval: sandbox environment ready: {ready} ({name})" in result.outlines
        )
        lines.append(f"sandbox environment ready: {ready} (*dataset*, * among them)")
    everything = project.run("--vlm-setup=all", "--vlm-offline")
    assert everything.ret == pytest.ExitCode.OK
    everything.stdout.fnmatch_lines_random(lines)
    assert len(everything.outlines) == len(by_addons) + 1


def test_an_environment_that_does_not_work_is_built_anew(
    project: Project, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of a sandbox that cannot be started."""
    (works,) = (offline / "sandbox").iterdir()
    good = works.resolve()
    works.unlink()
    broken = works / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    kept = project.run("--vlm-setup", "--vlm-offline")
    assert kept.ret == pytest.ExitCode.USAGE_ERROR
    assert broken.exists()
    # Nothing can be installed without an index, which shows that it is tried.
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(name, "1")
    result = project.run("--vlm-setup")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stdout.str()
    assert "no such module" in told
    assert "It is built anew." in told
    assert "Building the sandbox environment for ms-vlmeval in" in told
    assert not broken.exists()
    works.symlink_to(good)
    again = project.run("--vlm-setup", "--vlm-offline")
    assert again.outlines == [f"sandbox environment ready: {works}/bin/python"]


CANARY = "sk-canary-4d1f"
Load = Callable[..., Settings]


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads settings from arguments and the environment."""

    def load(*arguments: str, **environ: str) -> Settings:
        config = pytester.parseconfig(*arguments)
        return load_from(pytest_sources(config, {"HOME": "/nowhere", **environ}))

    return load


def test_a_run_that_would_go_well(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    """The options are those of the run, from a task file too; no sample is asked."""
    server = vlm_server(models=["qwen-vl-chat"], api_key=CANARY)
    judge = vlm_server(models=["qwen3"], api_key=CANARY)
    model = {"api_base": server.url, "key": CANARY}
    task = swift_task(model=model, judge="qwen3", judge_base_url=judge.url)
    task["eval_config"]["judge_key"] = CANARY
    write_task(project.pytester.path / "task.yaml", task)
    result = project.run("--vlm-doctor", "--vlm-config=task.yaml")
    out = result.stdout.str()
    assert result.ret == 0, out
    result.stdout.fnmatch_lines(
        [
            "ok*versions*Python *, pytest-vlmeval *, pytest *, openai *, pandas *",
            f"ok*model*qwen-vl-chat is served at {server.url}",
            f"ok*media*{server.url} takes several images in one prompt",
            f"ok*media*{server.url} takes images",
            f"ok*judge*qwen3 is served at {judge.url}",
            f"ok*data root*{project.data_root}, * GB free",
            "ok*cache*GB free",
            "ok*work dir*.vlmeval, made when first needed, * GB free",
            "*GPU*",
            "ok*sandbox*ms-vlmeval 0.0.20, Python 3.*, pandas *",
            "ok*store*none yet; the first run makes *.vlmeval/store.sqlite",
            "",
            "All is well.",
        ]
    )
    assert CANARY not in out + result.stderr.str()
    assert not project.store.exists()
    assert not judge.requests()


def test_a_run_that_would_not(project: Project) -> None:
    (project.pytester.path / ".vlmeval").mkdir()
    project.store.write_text("no database", encoding="utf-8")
    result = project.run(
        "--vlm-doctor", "--vlm-model=m", "--vlm-api-base=http://127.0.0.1:9/v1"
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "error*model*No server answers at http://127.0.0.1:9/v1*",
            "*swift deploy --model * --served_model_name m --port 9",
            "ok*judge*exact matching (no judge)",
            "error*store*The run store in * cannot be used: file is not a database*",
            "2 errors to fix.",
        ]
    )
    result = project.run("--vlm-doctor", "--vlm-limit=0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["error*options*--vlm-limit=0 is not accepted*", "1 error to fix."]
    )


def model_diagnoses(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the diagnoses of the model, without their remedies."""
    found = asyncio.run(examine_model(settings))
    return [(each.about, each.state, each.text) for each in found]


def test_models_of_every_kind(load: Load, server: ServerProcess) -> None:
    ((about, state, text),) = model_diagnoses(load())
    assert (about, state) == ("model", "note")
    assert text.startswith("No model was named. Give --vlm-model=NAME")
    assert model_diagnoses(load("--vlm-model=demo")) == [("model", "ok", "demo, here")]
    ((_, state, text),) = model_diagnoses(
        load("--vlm-model=other", f"--vlm-api-base={server.url}")
    )
    assert state == "error"
    assert "does not serve 'other'. It serves: tiny-vlm." in text
    for program, state, said in (
        ("sh", "ok", "/sh is started for the run"),
        ("no-such-server", "error", "is to be started for the run, and is not found"),
    ):
        ((_, found, text),) = model_diagnoses(
            load("--vlm-model=m", f"--vlm-serve={program} {{port}}")
        )
        assert (found, text.endswith(said)) == (state, True)


@pytest.mark.parametrize(
    ("rule", "state", "said"),
    [
        (
            {"status": 400, "images": 2},
            "note",
            "refuses several images in one prompt",
        ),
        ({"status": 503}, "error", "gave no answer to images"),
    ],
)
def test_media_that_are_not_taken(
    load: Load, server: ServerProcess, rule: dict[str, object], state: str, said: str
) -> None:
    server.control(rules=[rule])
    settings = load("--vlm-model=tiny-vlm", f"--vlm-api-base={server.url}")
    found = asyncio.run(examine_model(settings))
    media = [each for each in found if each.state != "ok"]
    assert any(each.state == state and said in each.text for each in media), found
    assert all(each.remedy for each in media)


def test_judges(load: Load, server: ServerProcess) -> None:
    settings = load("--vlm-judge=tiny-vlm,other", f"--vlm-judge-api-base={server.url}")
    first, second = asyncio.run(examine_judges(settings))
    assert (first.state, first.text) == ("ok", f"tiny-vlm is served at {server.url}")
    assert second.state == "error"
    assert "Give one of these with --vlm-judge." in second.text


def test_folders(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    settings = load(f"--vlm-cache-dir={file}/in/it", LMUData=str(tmp_path))
    root, cache, _ = commands.examine_folders(settings)
    assert root.state == "ok"
    assert (cache.state, cache.text) == ("error", f"{file}/in/it cannot be written")
    assert cache.remedy == (
        f"Make {file} a folder that you may write to, or give another with "
        "--vlm-cache-dir."
    )
    monkeypatch.setattr(commands, "LEAST_BYTES", 10**18)
    root = next(commands.examine_folders(settings))
    assert root.state == "error"
    assert root.remedy.endswith("free some, or point LMUData at another folder.")
    monkeypatch.undo()
    settings = load(f"--vlm-work-dir={file}/in/it", LMUData=str(tmp_path))
    *_, work = commands.examine_folders(settings)
    assert (work.state, work.text) == ("error", f"{file}/in/it cannot be written")
    assert work.remedy.endswith("or give another with --vlm-work-dir.")
    options = (f"--vlm-cache-dir={tmp_path}/c", f"--vlm-work-dir={tmp_path}/w")
    advised = load(*options, LMUData=str(tmp_path))
    assert [each.state for each in commands.examine_folders(advised)] == ["ok"] * 3


def test_gpus(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = commands.examine_gpus(load(CUDA_VISIBLE_DEVICES=""))
    assert elsewhere.text == "none here, and this model needs none here"
    local = load("--vlm-backend=local", "--vlm-model=m", CUDA_VISIBLE_DEVICES="")
    assert commands.examine_gpus(local).state == "note"
    local = load("--vlm-backend=local", "--vlm-model=m", CUDA_VISIBLE_DEVICES="0,3")
    found = commands.examine_gpus(local)
    assert (found.state, found.text) == ("ok", "2 (0, 3)")


def test_sandboxes(load: Load, tmp_path: Path) -> None:
    found = commands.examine_sandbox(load(f"--vlm-cache-dir={tmp_path}"))
    assert (found.state, found.remedy) == (
        "note",
        "Build it ahead: pytest --vlm-setup",
    )
    assert not list(tmp_path.iterdir())
    found = commands.examine_sandbox(load("--vlm-sandbox-python=/bin/false"))
    assert found.state == "error"
    assert found.text.startswith("--vlm-sandbox-python=/bin/false is not a working Py")


def test_lines_fit_and_are_told_apart_by_colour_where_there_is_any() -> None:
    found = [
        Diagnosis("model", "error", "word " * 40, "Fix it."),
        Diagnosis("store", "ok", "[bold] is text"),
    ]
    plain = write_diagnoses(found, 60, colour=False)
    assert max(map(len, plain)) <= 60
    assert "\x1b" not in "".join(plain)
    assert [line for line in plain if "Fix it." in line]
    assert [line for line in plain if "[bold] is text" in line]
    assert plain[-1] == "1 error to fix."
    coloured = write_diagnoses(found, 60, colour=True)
    assert "\x1b[1;31merror" in "".join(coloured)
    assert json.dumps(plain)
