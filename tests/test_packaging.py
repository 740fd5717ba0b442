"""The wheel: what it holds, and that it is enough, in clean environments."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.birds import PAGE, write_birds
from tests.support.documentation import DEMO, blocks, read, run_shell
from tests.support.run_fixtures import CACHE_DIR
from tests.support.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
# Newer ones, which are not promised yet.
NEWER = ("3.14",)
SUITE = ("--vlm-model=demo", "--pyargs", "pytest_vlmeval.benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.iterdir()
    return path


def tracked(folder: str) -> set[str]:
    """Return the files below a folder that are part of the project."""
    listed = subprocess.check_output(["git", "ls-files", folder], cwd=ROOT, text=True)
    return set(listed.splitlines())


def test_the_wheel_has_the_package_and_the_benchmarks_and_nothing_else(
    wheel: Path,
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {name for name in names if ".dist-info/" not in name}
    shipped = {f"pytest_vlmeval/{name}" for name in tracked("benchmarks")}
    assert files == tracked("pytest_vlmeval") | shipped
    assert {
        "pytest_vlmeval/py.typed",
        "pytest_vlmeval/benchmarks/thresholds.toml",
        "pytest_vlmeval/benchmarks/__baselines__/demo/DemoChoice.json",
        "pytest_vlmeval/datasets/demo/DemoChoice.tsv",
    } <= files


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {Path(name).name: name for name in archive.namelist()}
        metadata = email.message_from_bytes(archive.read(inside["METADATA"]))
        entry_points = archive.read(inside["entry_points.txt"]).decode()
        assert archive.read(inside["LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    assert "vlmeval = pytest_vlmeval.plugin" in entry_points
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = metadata.get_all("Classifier") or []
    for version in VERSIONS:
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(classifiers)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {metadata['Version']}" in changes


def find_python(version: str) -> Path | None:
    """Return an interpreter of this version, if the machine has one that runs."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [f"python{version}", *map(str, kept.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, map(shutil.which, candidates)):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return Path(candidate)
    return None


@pytest.fixture(scope="module", params=VERSIONS + NEWER)
def installed(
    request: pytest.FixtureRequest,
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """Give the programs of a clean environment in which only the wheel is installed."""
    python = find_python(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} on this machine")
    folder = tmp_path_factory.mktemp("environment")
    # The tutorial installs with pip, which takes a minute.
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", python, folder], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", str(folder)]
    pinned = str(ROOT / "constraints.txt")
    subprocess.run([*install, "--constraint", pinned, str(wheel)], check=True)
    yield folder / "bin"
    shutil.rmtree(folder)


def outside() -> dict[str, str]:
    """Return the environment of a user who has set nothing but where the cache is."""
    ours = ("VLM_", "PYTEST_", "PYTHON", "OPENAI_")
    kept = {name: it for name, it in os.environ.items() if not name.startswith(ours)}
    return {**kept, "VLM_CACHE_DIR": str(CACHE_DIR), "PATH": os.defpath}


def run(
    programs: Path, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the environment's pytest in a folder, as a user of no checkout does."""
    return subprocess.run(
        [programs / "pytest", *arguments],
        cwd=folder,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=600,
    )


def written(package: Path) -> set[Path]:
    """Return all that is in the package, but what Python keeps there compiled."""
    return {path for path in package.rglob("*") if "__pycache__" not in str(path)}


@pytest.mark.packaging
def test_what_datasets_need_is_set_up_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    for selection, names in (
        (["--vlm-data=MMStar"], "MMStar"),
        (["-k", "MMStar"], "MMStar"),
        (["-m", "core", "-k", "OCRBench"], "OCRBench"),
    ):
        done = run(installed, tmp_path, "--vlm-setup", *selection)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(rf"environment ready: \S+ \({names}\)\n", done.stdout)


@pytest.mark.packaging
def test_the_installed_suite_runs_from_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    package = next(installed.parent.rglob("site-packages/pytest_vlmeval"))
    before = written(package)
    done = run(installed, tmp_path, *SUITE, "-k", "TestDemo", "--junitxml=run.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 snapshots passed." in done.stdout
    report = (tmp_path / "run.xml").read_text(encoding="utf-8")
    assert f"No threshold for demo in {package}/benchmarks/thresholds.toml" in report
    updated = run(installed, tmp_path, *DEMO, "--snapshot-update", "-n2")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    baseline = tmp_path / "__baselines__/demo/DemoChoice.json"
    assert baseline.is_file()
    # The project's own baseline counts from now on, and is named when it is broken.
    baseline.write_text("{}", encoding="utf-8")
    broken = run(installed, tmp_path, *DEMO, "-k", "test_no_regression and DemoChoice")
    assert broken.returncode == 1
    assert f"{baseline} is not a baseline that this version can read" in broken.stdout
    assert before == written(package)


@pytest.mark.packaging
def test_the_readme_s_commands_without_a_checkout(
    installed: Path, tmp_path: Path
) -> None:
    done = run(installed, tmp_path, "--vlm-model=demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 snapshots passed." in done.stdout
    written = run(installed, tmp_path, "--vlm-init")
    assert written.returncode == 0, written.stdout + written.stderr
    workflow = tmp_path / ".github/workflows/evaluation.yml"
    assert "pytest benchmarks/" in workflow.read_text(encoding="utf-8")


@pytest.mark.packaging
def test_a_project_has_benchmarks_of_its_own(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nvlm_model = demo\nvlm_limit = 8\n", encoding="utf-8"
    )
    (tmp_path / "test_ours.py").write_text(
        "from pytest_vlmeval import Benchmark\n\n\n"
        "class TestOurs(Benchmark):\n    datasets = ['DemoOpen']\n",
        encoding="utf-8",
    )
    done = run(installed, tmp_path, "--vlm-allow-missing-baseline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_ours.py" in done.stdout


@pytest.mark.packaging
def test_a_package_adds_a_dataset(
    installed: Path, tmp_path: Path, vlm_server: Callable[..., ServerProcess]
) -> None:
    """The package of docs/own-scoring.md, built into a wheel and installed."""
    source, folder = tmp_path / "source", tmp_path / "project"
    source.mkdir()
    folder.mkdir()
    write_birds(source)
    for each in blocks(read(PAGE)):
        if each.heading == "A dataset in a package":
            (source / each.note).write_text(each.code, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = (source / "dist").glob("vlm_birds-1.0-*.whl")
    uv = [sys.executable, "-m", "uv", "pip"]
    into = ["--quiet", "--python", str(installed.parent)]
    subprocess.run([*uv, "install", *into, "--no-deps", str(built)], check=True)
    try:
        listed = run(installed, folder, "--vlm-list=vlm-birds")
        assert "  BirdCount  vlm-birds 1.0\n" in listed.stdout, listed.stderr
        server = vlm_server(answers={"gulls": "13 gulls", "geese": "50"})
        done = run(
            installed,
            folder,
            "--vlm-model=tiny-vlm",
            f"--vlm-api-base={server.url}",
            "--vlm-data=BirdCount",
            "--vlm-allow-missing-baseline",
            "--vlm-media-check=off",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Overall 50.00 of 100  own scoring" in done.stdout
        asked = [str(each["text"]) for each in server.requests() if each["images"]]
        assert sorted(asked) == [
            "How many geese are there? Give a number.",
            "How many gulls are there? Give a number.",
        ]
    finally:
        subprocess.run([*uv, "uninstall", *into, "vlm-birds"], check=True)


@pytest.mark.packaging
def test_the_tutorial(wheel: Path, tmp_path: Path) -> None:
    programs = f"{tmp_path}/.venv/bin{os.pathsep}{os.defpath}"
    environ = {**outside(), "PATH": programs}
    pinned = f"-q -c {ROOT / 'constraints.txt'} {wheel}"
    ran = 0
    for block in blocks(read(ROOT / "docs/tutorial.md")):
        if block.language != "sh":
            (tmp_path / block.note).write_text(block.code, encoding="utf-8")
            continue
        code = block.code.replace("python3 ", f"{sys.executable} ")
        code = code.replace("pytest-vlmeval\n", f"{pinned}\n")
        done = run_shell(f"set -e\n{code}", tmp_path, environ)
        assert done.returncode == (block.note == "exit=1"), done.stdout
        ran += 1
    assert ran == 5
    assert (tmp_path / "__baselines__/demo/DemoOpen.json").is_file()
    assert (tmp_path / "report.html").is_file()
