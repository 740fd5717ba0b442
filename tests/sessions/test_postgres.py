"""Runs whose store is a PostgreSQL database: shared by machines, which may vanish."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.store import Store
from tests.support.postgres_server import PASSWORD, QUOTED, PostgresServer, Proxy, query
from tests.support.run_fixtures import Project, endpoint
from tests.support.running import asked, wait_for
from tests.support.server_fixtures import ServerProcess
from tests.support.store_calls import answer, claim

pytestmark = pytest.mark.postgres
SAMPLES = 24
# Half of the answers are free, and wrong; B is right in the other half.
RESULT = {"passed": SAMPLES // 2 + 1, "xfailed": SAMPLES // 2}
SUMMARY = f"{RESULT['passed']} passed, 1 deselected, {RESULT['xfailed']} xfailed"


class Machine:
    """Another machine: its name, processes, data, caches and work dir are its own."""

    def __init__(self, project: Project, name: str) -> None:
        self._name = name
        self.folder = project.pytester.path / name
        for each in ("LMUData", "cache"):
            (self.folder / each).mkdir(parents=True)
        shutil.copy(project.pytester.path / "test_math.py", self.folder)
        table = project.data_root / "MathVision_MINI.tsv"
        shutil.copy(table, self.folder / "LMUData")
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        """Start pytest, in namespaces of its own for names and processes."""
        run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        script = f'hostname {self._name} && exec "$@"'
        command = ["unshare", "--uts", "--pid", "--fork", "--kill-child"]
        command += ["--mount-proc", "sh", "-c", script, "sh", *run]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "LMUData": str(self.folder / "LMUData"),
                "VLM_CACHE_DIR": str(self.folder / "cache"),
            },
        )

    def vanish(self) -> None:
        """End all of its processes at once, as a power cut does."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        # Of one that has vanished or finished all was read.
        if not self.process.stdout.closed:
            self.process.communicate()

    def finish(self) -> str:
        """Wait for pytest and return what it printed."""
        assert self.process is not None
        output, _ = self.process.communicate(timeout=300)
        return output


@pytest.fixture
def machines(project: Project) -> Iterator[tuple[Machine, Machine]]:
    """Give two machines with the same benchmark and data."""
    found = subprocess.run(
        ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"], check=False
    )
    if found.returncode:
        pytest.skip("namespaces of one's own take root")
    project.write_math(SAMPLES)
    pair = Machine(project, "north"), Machine(project, "south")
    yield pair
    for machine in pair:
        if machine.process is not None:
            machine.vanish()


def test_two_machines_join_one_run_and_both_report_all(
    machines: tuple[Machine, Machine], server: ServerProcess, postgres_url: str
) -> None:
    server.control(default="B", latency_s=0.3)
    arguments = [*endpoint(server.url), f"--vlm-store={postgres_url}"]
    for machine in machines:
        machine.start(*arguments, "--vlm-concurrency=2")
    for machine in machines:
        output = machine.finish()
        assert SUMMARY in output
        assert machine.process is not None
        assert machine.process.returncode == 0
    assert set(asked(server).values()) == {1}
    assert len(asked(server)) == SAMPLES
    shares = Counter(query(postgres_url, "SELECT session_id FROM answers"))
    assert len(shares) == 2
    assert query(postgres_url, "SELECT count(*) FROM scores") == [(1,)]
    assert query(postgres_url, "SELECT count(*) FROM runs") == [(1,)]
    assert query(postgres_url, "SELECT count(*) FROM claims") == [(0,)]


@pytest.mark.slow
def test_a_machine_that_vanishes_is_survived(
    machines: tuple[Machine, Machine], server: ServerProcess, postgres_url: str
) -> None:
    north, south = machines
    server.control(default="B", latency_s=0.5)
    arguments = [*endpoint(server.url), f"--vlm-store={postgres_url}"]
    north.start(*arguments, "--vlm-concurrency=4")
    count = "SELECT count(*) FROM answers"
    wait_for(lambda: len(server.requests()) > 8)
    north.vanish()
    [(kept,)] = query(postgres_url, count)
    [(held,)] = query(postgres_url, "SELECT count(*) FROM claims")
    assert isinstance(kept, int)
    assert isinstance(held, int)
    assert held > 0
    south.start(*arguments, "--vlm-concurrency=4")
    assert SUMMARY in south.finish()
    # What was answered is not asked again, what was under way is.
    assert query(postgres_url, count) == [(SAMPLES,)]
    repeated = [text for text, times in asked(server).items() if times > 1]
    assert len(repeated) <= held
    assert query(postgres_url, "SELECT count(*) FROM claims") == [(0,)]


def test_unlike_settings_are_runs_of_their_own_and_said(
    machines: tuple[Machine, Machine], server: ServerProcess, postgres_url: str
) -> None:
    north, south = machines
    server.control(default="B", latency_s=3)
    arguments = [*endpoint(server.url), f"--vlm-store={postgres_url}"]
    north.start(*arguments, "--vlm-concurrency=1")
    wait_for(lambda: len(server.requests()) > 1)
    south.start(*arguments, "--vlm-max-tokens=16")
    output = south.finish()
    assert SUMMARY in output
    assert (
        "vlmeval: another command works in this store at a run of its own, which "
        "shares no answers with this one: its max_tokens is 2048, here it is 16"
    ) in output
    assert SUMMARY in north.finish()
    assert query(postgres_url, "SELECT count(*) FROM runs") == [(2,)]


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_the_password_is_printed_nowhere(
    project: Project,
    server: ServerProcess,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    workers: list[str],
) -> None:
    project.write_math(4)
    monkeypatch.setenv("VLM_STORE", postgres_url)
    result, _ = project.junit(*endpoint(server.url), "-vv", "-rA", *workers)
    assert result.ret == 0
    shown = postgres_url.replace(QUOTED, "***")
    result.stdout.fnmatch_lines([f"vlmeval: *, store {shown}", "MathVision_MINI *"])
    _assert_secret(project, result)
    assert not project.store.exists()


def _assert_secret(project: Project, result: pytest.RunResult) -> None:
    everything = (result.stdout.str() + result.stderr.str()).encode()
    for file in project.pytester.path.rglob("*"):
        if file.is_file():
            everything += file.read_bytes()
    for secret in (PASSWORD, QUOTED):
        assert secret.encode() not in everything


def test_a_database_that_does_not_let_one_in(
    project: Project, server: ServerProcess, postgres_url: str
) -> None:
    project.write_math(2)
    wrong = postgres_url.replace(QUOTED, QUOTED + "x")
    result = project.ask(server.url, f"--vlm-store={wrong}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str()
    shown = postgres_url.replace(QUOTED, "***")
    assert f"The run store {shown} cannot be used: " in text
    assert "password authentication failed" in text
    assert "See that its server runs and lets you in, then run the same" in text
    _assert_secret(project, result)
    assert server.requests() == []


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_a_server_that_is_restarted_is_waited_for(
    project: Project,
    server: ServerProcess,
    postgres_server: PostgresServer,
    postgres_url: str,
    workers: list[str],
    figure: Callable[[str], None],
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.3)
    arguments = [*endpoint(server.url), f"--vlm-store={postgres_url}", *workers]
    process = project.start(*arguments, "--vlm-concurrency=2")
    wait_for(lambda: len(server.requests()) > 6)
    postgres_server.stop()
    time.sleep(4)
    postgres_server.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    passed = f"{RESULT['passed']} passed"
    assert passed in output
    shown = postgres_url.replace(QUOTED, "***")
    line = (
        f"vlmeval: the run store {shown} does not answer; waits for it, 120 s at most."
    )
    assert output.count(line) == 1
    asked_again = len(server.requests()) - SAMPLES
    figure(f"PostgreSQL away for 4 s: {asked_again} of {SAMPLES} asked again")
    # Nothing was lost, not even what was in flight.
    assert set(asked(server).values()) == {1}
    assert query(postgres_url, "SELECT count(*) FROM answers") == [(SAMPLES,)]
    assert query(postgres_url, "SELECT count(*) FROM claims") == [(0,)]


def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(
    project: Project,
    server: ServerProcess,
    postgres_server: PostgresServer,
    postgres_url: str,
) -> None:
    project.write_math(SAMPLES)
    project.pytester.makeconftest(
        "from pytest_vlmeval.run.store import database\ndatabase.STORE_OUTAGE_S = 3"
    )
    server.control(default="B", latency_s=0.3)
    arguments = [*endpoint(server.url), f"--vlm-store={postgres_url}"]
    process = project.start(*arguments, "--vlm-concurrency=2")
    wait_for(lambda: len(server.requests()) > 6)
    postgres_server.stop()
    output, _ = process.communicate(timeout=120)
    postgres_server.start()
    assert process.returncode == 1
    assert "See that its server runs and lets you in" in output
    assert "During handling" not in output
    [(kept,)] = query(postgres_url, "SELECT count(*) FROM answers")
    assert isinstance(kept, int)
    assert kept > 0
    before = len(server.requests())
    project.run(*arguments).assert_outcomes(**RESULT)
    assert len(server.requests()) - before == SAMPLES - kept


@pytest.mark.parametrize("cut_at", ["before", "after"])
def test_a_commit_whose_end_is_unknown_is_done_once(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, cut_at: str
) -> None:
    proxy = Proxy(postgres_server.port)
    url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
    said: list[str] = []
    store = Store(tmp_path, url, said.append)
    # A claim that was made must not be taken for that of another process.
    proxy.cut_at = cut_at
    assert claim(store, "s", "me", ["1", "2"]) == ["1", "2"]
    proxy.cut_at = cut_at
    kept = store.record("r", "s", [answer("1"), answer("2")])
    assert proxy.cuts == 2
    assert query(postgres_url, "SELECT seq FROM answers ORDER BY 1") == [
        (each.seq,) for each in kept
    ]
    assert query(postgres_url, "SELECT count(*) FROM claims") == [(0,)]
    proxy.cut_at = cut_at
    assert store.claim_score("score", "r", "Data-1", "s", "me") == "mine"
    assert said[0] == (
        f"the run store {url.replace(QUOTED, '***')} does not answer; waits for it, "
        "120 s at most."
    )
    store.close()
    proxy.close()


def test_every_method_of_a_store_waits_out_restarts() -> None:
    methods = [
        method
        for name, method in inspect.getmembers(Store, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    ]
    assert len(methods) >= 40
    for method in methods:
        assert hasattr(method, "__wrapped__"), method


def test_without_the_driver(
    project: Project,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
) -> None:
    project.write_math(2)
    hidden = project.pytester.mkdir("hidden")
    (hidden / "psycopg.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    result = project.ask(server.url, "--vlm-store=postgresql://a:b@localhost/c")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "--vlm-store=postgresql://a:***@localhost/c needs psycopg, which is not "
        "installed. Run pip install 'pytest-vlmeval[postgresql]'."
    ) in result.stderr.str()
    # Once it is installed.
    monkeypatch.delenv("PYTHONPATH")
    assert project.ask(server.url, f"--vlm-store={postgres_url}").ret == 0
    assert query(postgres_url, "SELECT count(*) FROM answers") == [(2,)]


def test_a_store_of_another_version_names_another_database(
    tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    Store(tmp_path, postgres_url).close()
    engine = sa.create_engine(
        sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET schema_version = 99")
    engine.dispose()
    with pytest.raises(VlmEvalError, match="Choose another database with --vlm-store"):
        Store(tmp_path, postgres_url)
    Store(tmp_path, postgres_server.make_database()).close()


def test_a_url_that_is_no_database(project: Project, server: ServerProcess) -> None:
    project.write_math(2)
    result = project.ask(server.url, "--vlm-store=mysql://me:secret-9@host/db")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "--vlm-store=mysql://me:***@host/db is not accepted: --vlm-store takes "
        "postgresql://USER@HOST:PORT/DATABASE."
    ) in result.stderr.str()
