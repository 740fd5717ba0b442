"""The plugin as such: registered, cheap, and out of the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_vlmeval.sandbox.environment import SandboxEnvironment

# What a session without benchmarks imports of us, and what it must not bring along;
# bench/start_up.py measures what that costs.
IMPORTS = """
import sys
import pytest
import pytest_vlmeval.plugin, pytest_vlmeval.suite.fixtures
import pytest_vlmeval.settings, pytest_vlmeval.suite.session
heavy = (
    "aiohttp", "jinja2", "numpy", "onnxruntime", "openai", "pandas", "PIL", "pyarrow",
    "pydantic", "rich", "scipy", "sqlalchemy", "syrupy", "vlmeval",
)
# Records are many data classes, which cost a millisecond each.
ours = ("records", "reports.record", "run", "run.store")
heavy += tuple(f"pytest_vlmeval.{name}" for name in ours)
print([name for name in heavy if name in sys.modules])
"""


def test_registered_as_vlmeval(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(): pass")
    result = pytester.runpytest_subprocess("--trace-config")
    result.stdout.fnmatch_lines(["*vlmeval *: *plugin.py"])


def test_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(vlm_run): pass")
    result = pytester.runpytest_subprocess("-p", "no:vlmeval")
    result.stdout.fnmatch_lines(["*fixture 'vlm_run' not found*"])
    assert pytester.runpytest_subprocess("-p", "no:vlmeval", "--vlm-model=x").ret == 4


def test_sessions_without_benchmarks_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_one():
            loaded = {name.split(".")[0] for name in sys.modules}
            assert not loaded & {"sqlalchemy", "openai", "pyarrow", "onnxruntime"}
            assert "pytest_vlmeval.run" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:syrupy")
    result.assert_outcomes(passed=1)
    assert "vlmeval:" not in result.stdout.str()
    assert not (pytester.path / ".vlmeval").exists()


def test_what_every_session_imports_is_light() -> None:
    assert subprocess.check_output([sys.executable, "-c", IMPORTS]).split() == [b"[]"]


def test_setup_builds_or_finds_the_sandbox(
    pytester: pytest.Pytester,
    sandbox_environment: SandboxEnvironment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLM_SANDBOX_PYTHON", str(sandbox_environment.python))
    result = pytester.runpytest_subprocess("--vlm-setup")
    assert result.ret == 0
    assert result.outlines == [
        f"sandbox environment ready: {sandbox_environment.python}"
    ]


def test_setup_with_a_wrong_interpreter(pytester: pytest.Pytester) -> None:
    missing = Path("/no/such/python")
    result = pytester.runpytest_subprocess(
        "--vlm-setup", f"--vlm-sandbox-python={missing}"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --vlm-sandbox-python={missing} cannot be run" in result.stderr.str()


def test_under_xdist_the_sandbox_is_built_before_the_workers_start(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_one(): pass")
    result = pytester.runpytest_subprocess(
        "-n2", "--vlm-model=demo", "--vlm-sandbox-python=/no/such/python"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("--vlm-sandbox-python=/no/such/python") == 1
    assert "workers" not in result.stdout.str()


def test_a_checkout_names_its_benchmarks(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    nothing = pytester.runpytest_subprocess("--vlm-model=demo")
    assert nothing.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    line = (
        "vlmeval: no path is given and no tests are here. The benchmarks of this "
        f"checkout run if their path is given: {benchmarks}"
    )
    assert nothing.outlines.count(line) == 1
    pytester.makepyfile("def test_it():\n    pass\n")
    own = pytester.runpytest_subprocess("--vlm-model=demo")
    own.assert_outcomes(passed=1)
    assert line not in own.outlines
    # What it says.
    result = pytester.runpytest_subprocess(
        "--vlm-model=demo", f"--vlm-work-dir={tmp_path}", benchmarks, "-k", "DemoOpen"
    )
    assert result.ret == pytest.ExitCode.OK
