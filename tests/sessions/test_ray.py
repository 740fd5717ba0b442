"""Replicas as actors of a Ray cluster of several nodes, on one machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from demo_model.checkpoint import write_checkpoint
from pytest_vlmeval.models.client import Reply, Request
from pytest_vlmeval.records import PromptPart
from tests.support.model_environment import ensure_model_environment
from tests.support.model_servers import ANSWERS, BENCHMARK, DEMO, REACHED, demo_answers
from tests.support.run_fixtures import Project, endpoint
from tests.support.running import answers, asked, finish, wait_for
from tests.support.server_fixtures import ServerProcess

ray = pytest.importorskip("ray", reason="make test-ray installs it")

pytestmark = pytest.mark.ray


# The smallest store that Ray takes, in bytes.
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Nodes:
    """A cluster whose head takes no replica, and as many nodes as a test wants."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self._nodes: list[Any] = []

    def have(self, count: int) -> None:
        """Add or remove nodes until there are so many."""
        while len(self._nodes) > count:
            self._cluster.remove_node(self._nodes.pop())
        while len(self._nodes) < count:
            self.add()
        # Until the head knows of it.
        self._cluster.wait_for_nodes()

    def add(self) -> None:
        """Start a node."""
        self._nodes.append(self._cluster.add_node(**NODE))

    def kill_first(self) -> None:
        """Kill the oldest node with all its processes."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        """End everything."""
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Start a cluster for the tests of this module."""
    nodes = Nodes()
    yield nodes
    ray.shutdown()
    nodes.close()


@pytest.fixture
def nodes(cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Give the cluster, at which runs look for it."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return cluster


@pytest.fixture
def demo(project: Project) -> Project:
    """Give a project with the demo benchmark."""
    project.pytester.makepyfile(test_demo=BENCHMARK)
    return project


def doubled(project: Project) -> list[tuple[object, ...]]:
    """Return samples that have more than one answer."""
    return project.stored(
        "SELECT sample_index FROM answers GROUP BY fingerprint, sample_index "
        "HAVING count(*) > 1"
    )


def test_a_killed_node_loses_and_doubles_nothing(nodes: Nodes, demo: Project) -> None:
    nodes.have(2)
    process = demo.start(*DEMO, "--vlm-model=demo", "--vlm-engine=ray")
    wait_for(lambda: answers(demo) >= 8)
    nodes.kill_first()
    output = finish(process)
    assert "model demo on Ray" in output
    assert f"{REACHED['passed']} passed" in output
    assert len(demo.stored(ANSWERS)) == 120
    assert not doubled(demo)
    # Both have answered, and what the dead one had was asked of the other.
    failed = demo.stored("SELECT DISTINCT kind, endpoint FROM failed_attempts")
    assert [kind for kind, _ in failed] == ["replica"]
    again = demo.stored("SELECT 1 FROM answers WHERE attempts > 1")
    assert again
    assert demo.stored(ANSWERS) == demo_answers(demo)


def test_an_actor_is_replaced_on_another_node(
    nodes: Nodes, project: Project, server: ServerProcess
) -> None:
    nodes.have(1)
    project.write_math(12)
    server.control(default="B", latency_s=0.2)
    process = project.start(
        *endpoint(server.url), "--vlm-engine=ray", "--vlm-concurrency=2"
    )
    wait_for(lambda: answers(project) >= 2)
    # What is asked from here on is under way when its actor dies.
    server.control(default="B", latency_s=60)
    nodes.add()
    nodes.kill_first()
    server.control(default="B")
    output = finish(process)
    assert "7 passed, 1 deselected, 6 xfailed" in output
    assert len(project.stored(ANSWERS)) == 12
    assert not doubled(project)
    kinds = project.stored("SELECT DISTINCT kind FROM failed_attempts")
    assert kinds == [("replica",)]


def test_weights_load_once_per_actor(
    nodes: Nodes, demo: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.have(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checkpoint = tmp_path / "demo-qwen2-vl"
    write_checkpoint(checkpoint)
    python = ensure_model_environment() / "bin" / "python"
    # Stands for the interpreter, and writes down when it is to hold a model.
    counting = tmp_path / "bin" / "python"
    counting.parent.mkdir()
    counting.write_text(
        f'#!/bin/sh\ncase "$*" in *serve.py) echo >> {tmp_path}/loads;; esac\n'
        f'exec {python} "$@"\n'
    )
    counting.chmod(0o755)
    result = demo.run(
        *DEMO,
        "--vlm-model=tiny",
        "--vlm-backend=local",
        "--vlm-engine=ray",
        f"--vlm-model-path={checkpoint}",
        f"--vlm-local-python={counting}",
        "--vlm-batch-size=2",
        "--vlm-limit=4",
        timeout_s=300,
    )
    assert "failed" not in result.parseoutcomes()
    assert len((tmp_path / "loads").read_text().splitlines()) == 2
    assert not demo.stored("SELECT 1 FROM failed_attempts")
    found = demo.stored(ANSWERS)
    assert len(found) >= 8
    assert set(found) <= set(demo_answers(demo))


def test_clients_of_an_endpoint_run_as_actors(
    nodes: Nodes, project: Project, server: ServerProcess
) -> None:
    nodes.have(2)
    project.write_math(12)
    server.control(default="B")
    result = project.run(*endpoint(server.url), "--vlm-engine=ray")
    result.assert_outcomes(passed=7, xfailed=6)
    assert max(asked(server).values()) == 1
    assert len(server.requests()) == 12
    # Each process has connections of its own.
    assert len({request["connection"] for request in server.requests()}) >= 2


@pytest.mark.parametrize("replicas", ["3", "auto"])
def test_too_little_room_is_told(nodes: Nodes, project: Project, replicas: str) -> None:
    count = 2 if replicas == "3" else 0
    nodes.have(count)
    project.write_math(2)
    result = project.run(
        "--vlm-model=demo",
        "--vlm-engine=ray",
        f"--vlm-replicas={replicas}",
        "--vlm-allow-modified-data",
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: --vlm-replicas={replicas}: each replica takes a processor, and "
            f"the Ray cluster has {count} on {count + 1} node*. Give at most as many, "
            "or auto, or add nodes to the cluster."
        ]
    )
    arguments = ("--vlm-model=demo", "--vlm-engine=ray", "--vlm-allow-modified-data")
    if count:
        for fewer in ("2", "auto"):
            result = project.run(*arguments, f"--vlm-replicas={fewer}")
            assert sum(result.parseoutcomes().values()) >= 3, fewer
    nodes.have(count + 1)
    result = project.run(*arguments, f"--vlm-replicas={replicas}")
    assert sum(result.parseoutcomes().values()) >= 3


def test_an_address_without_a_cluster_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    project.write_math(2)
    result = project.run(
        "--vlm-model=demo", "--vlm-engine=ray", "--vlm-allow-modified-data"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: RAY_ADDRESS=127.0.0.1:9: no Ray cluster answers there (*refused). "
            "Give HOST:PORT of its head, *"
        ]
    )
    arguments = ("--vlm-model=demo", "--vlm-engine=ray", "--vlm-allow-modified-data")
    nodes = Nodes()
    try:
        nodes.have(1)
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        assert sum(project.run(*arguments).parseoutcomes().values()) >= 3
    finally:
        nodes.close()
    monkeypatch.delenv("RAY_ADDRESS")
    assert sum(project.run(*arguments).parseoutcomes().values()) >= 3


def requests_in(folder: Path) -> Callable[..., Request]:
    """Write two images and rows; give what asks about images by their names."""
    (folder / "aa.png").write_bytes(b"a" * 10)
    (folder / "bb.png").write_bytes(b"b" * 10)
    rows = folder / "rows.parquet"
    rows.write_text("index\n1\n")

    def request(*names: str) -> Request:
        parts = [PromptPart(kind="image", media=name) for name in names]
        origin = {"dataset": "Mine", "rows": str(rows)}
        return Request(turns=(tuple(parts),), media_folder=folder, origin=origin)

    return request


def test_media_travel_once_and_by_content(nodes: Nodes, tmp_path: Path) -> None:
    from pytest_vlmeval.models.cluster.replica import Copies, SharedMedia

    nodes.have(1)
    ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    request = requests_in(tmp_path)
    shelf = SharedMedia()
    first, media = shelf.pack(request("aa.png"))
    assert str(tmp_path) not in repr(first)
    assert first.origin is not None
    assert set(media) == {"aa.png", first.origin["rows"]}
    shelf.pack(request("aa.png", "bb.png", "bb.png"))
    assert shelf.puts == 3  # two images and the rows
    folder = tmp_path / "copies"
    folder.mkdir()

    async def fetch() -> None:
        copies = Copies(folder, limit=15)
        _, images = shelf.pack(request("aa.png"))
        await copies.bring(images)
        assert (folder / "aa.png").read_bytes() == b"a" * 10
        _, others = shelf.pack(request("bb.png"))
        await copies.bring(others)
        # In use, whatever the limit.
        assert (folder / "aa.png").exists()
        copies.leave(images)
        copies.leave(others)
        await copies.bring(others)
        assert not (folder / "aa.png").exists()
        assert (folder / "bb.png").exists()

    asyncio.run(fetch())
    small = SharedMedia(limit=12)
    small.pack(request("aa.png"))
    small.pack(request("bb.png"))
    small.pack(request("aa.png"))
    assert small.puts == 4  # the oldest was let go, the rows were in use
    ray.shutdown()


def test_an_actor_answers_without_the_asker_s_disk(
    nodes: Nodes, tmp_path: Path
) -> None:
    from pytest_vlmeval.models.cluster.replica import Crew, Replica
    from pytest_vlmeval.models.open import make_demo
    from tests.support.run_fixtures import image_bytes

    nodes.have(1)
    ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    (tmp_path / "aa.png").write_bytes(image_bytes(1))
    parts = (
        PromptPart(kind="image", media="aa.png", media_type="image/png"),
        PromptPart(kind="text", text="What colour is it?"),
    )
    request = Request(turns=(parts,), media_folder=tmp_path)

    async def twice() -> list[Reply]:
        recipe = partial(make_demo, max_tokens=8, concurrency=1)
        replica = Replica("replica 0", recipe, Crew(), on_gpu=False)
        await replica.check()
        found = [await replica.ask(request)]
        # What it has asked once it needs no disk for.
        (tmp_path / "aa.png").unlink()
        found.append(await replica.ask(request))
        await replica.close()
        return found

    one, other = asyncio.run(twice())
    assert one == other
    assert one.text
    ray.shutdown()
