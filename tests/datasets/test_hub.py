"""What hubs and servers send: repositories, certificates, and names of files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_vlmeval.datasets.download import FileAccess, unpacking
from pytest_vlmeval.datasets.hub import bring_repository, is_cached, repository_size
from pytest_vlmeval.datasets.library import (
    DataPlaces,
    PlannedDownload,
    plan_downloads,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, Hub
from pytest_vlmeval.sandbox.environment import LIGHT, VIDEO
from pytest_vlmeval.settings.groups import choose_hubs
from tests.support.certificates import Certificate
from tests.support.certificates import certificate as certificate
from tests.support.download_calls import CONTENT, MD5, fail, fetch, table
from tests.support.file_server import run_file_server
from tests.support.hub_server import COMMIT, HubServer, run_hub_server
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.run_fixtures import environment_with
from tests.support.video_sets import write_files

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Role
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

FILES = {"a.tsv": b"index\n1\n", "video/x.mp4": b"film" * 1_000, "y.zip": b"zip"}


def hubs(server: HubServer, folder: Path) -> list[Hub]:
    """Give both hubs at one server, with caches of their own."""
    return [
        Hub(kind="huggingface", endpoint=server.url, cache=folder / "hf"),
        Hub(kind="modelscope", endpoint=server.url, cache=folder / "ms"),
    ]


class User(NamedTuple):
    """One user's way to the hubs, with the interpreter that has their clients."""

    python: Path
    files: FileAccess

    def bring(self, hub: str = "huggingface", allow: list[str] | None = None) -> Path:
        """Bring the repository."""
        wanted = {
            "hub": hub,
            "repository": "org/set",
            "revision": None,
            "allow": allow,
            "ignore": None,
        }
        return bring_repository(wanted, "Set", self.python, self.files)

    def other(self, **changes: Any) -> User:
        """Give the same user with other settings."""
        return self._replace(files=self.files._replace(**changes))


def access(
    server: HubServer, folder: Path, python: Path, *, offline: bool = False
) -> User:
    """Give one user's way to the hubs, Hugging Face first."""
    files = FileAccess(
        data_root=folder / "LMUData",
        cache_dir=folder / "cache",
        hubs=hubs(server, folder),
        offline=offline,
    )
    return User(python, files)


def test_a_repository_comes_into_the_client_s_own_cache(
    hub_environment: HubServer, tmp_path: Path, sandbox_environment: SandboxEnvironment
) -> None:
    hub_environment.repositories["org/set"] = FILES
    user = access(hub_environment, tmp_path, sandbox_environment.python)
    folder = user.bring()
    assert folder == tmp_path / "hf" / "datasets--org--set" / "snapshots" / COMMIT
    assert (folder / "video" / "x.mp4").read_bytes() == FILES["video/x.mp4"]
    assert sorted(hub_environment.downloads()) == sorted(FILES)
    # What is there is not downloaded again, and offline nothing is asked.
    hub_environment.requests.clear()
    assert user.bring() == folder
    assert not hub_environment.downloads()
    hub_environment.requests.clear()
    alone = access(hub_environment, tmp_path, sandbox_environment.python, offline=True)
    assert alone.bring() == folder
    assert not hub_environment.requests


def test_only_the_files_of_a_pattern_come(
    hub_environment: HubServer, tmp_path: Path, sandbox_environment: SandboxEnvironment
) -> None:
    hub_environment.repositories["org/set"] = FILES
    user = access(hub_environment, tmp_path, sandbox_environment.python)
    folder = user.bring(allow=["*.tsv"])
    assert [path.name for path in folder.iterdir()] == ["a.tsv"]


@pytest.fixture
def advised(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return what brings a repository by options and variables of a message."""

    def bring(user: User, *arguments: str, **environ: str) -> Path:
        names = ("HF_ENDPOINT", "HF_HUB_CACHE", "MODELSCOPE_ENDPOINT")
        own = {name: os.environ[name] for name in (*names, "MODELSCOPE_CACHE")}
        environ = {"VLMEVALKIT_USE_MODELSCOPE": "0", **own, **environ}
        settings = load(*arguments, environ=environ)
        user = user.other(hubs=settings.hubs, mirror=settings.data_mirror)
        with monkeypatch.context() as patch:
            # The clients read the variables themselves.
            for name, value in environ.items():
                patch.setenv(name, value)
            found = user.bring(settings.hubs[0].kind)
        assert all((found / name).read_bytes() == FILES[name] for name in FILES)
        return found

    return bring


def test_a_repository_that_is_not_there(
    hub_environment: HubServer,
    tmp_path: Path,
    sandbox_environment: SandboxEnvironment,
    advised: Callable[..., Path],
) -> None:
    user = access(hub_environment, tmp_path, sandbox_environment.python)
    with pytest.raises(VlmEvalError) as caught:
        user.bring()
    message = str(caught.value)
    assert message.startswith(
        "Set: the repository org/set cannot be downloaded from Hugging Face, "
        f"{hub_environment.url} (LocalEntryNotFoundError: Got: HfHubHTTPError: "
        "Client error '404 Not Found'"
    )
    assert message.endswith(
        "). HF_ENDPOINT takes another address of the hub, VLMEVALKIT_USE_MODELSCOPE=1 "
        "ModelScope instead; --vlm-data-mirror=FOLDER takes its files from "
        "FOLDER/org/set; with --vlm-offline what is on disk is used."
    )
    with run_hub_server() as other:
        other.repositories["org/set"] = FILES
        found = advised(user, HF_ENDPOINT=other.url)
    # What was brought by another way is on disk now.
    assert advised(user.other(offline=True)) == found
    mirror = tmp_path / "mirror"
    write_files(mirror / "org" / "set", FILES)
    advised(user, f"--vlm-data-mirror={mirror}")


@pytest.mark.addons
def test_the_other_hub_is_asked_where_a_message_advises_it(
    hub_environment: HubServer,
    tmp_path: Path,
    video_environment: SandboxEnvironment,
    advised: Callable[..., Path],
) -> None:
    user = access(hub_environment, tmp_path, video_environment.python)
    with pytest.raises(VlmEvalError, match="VLMEVALKIT_USE_MODELSCOPE=1"):
        user.bring()
    with run_hub_server() as other:
        other.repositories["org/set"] = FILES
        given = {"VLMEVALKIT_USE_MODELSCOPE": "1", "MODELSCOPE_ENDPOINT": other.url}
        found = advised(user, **given)
    offline = user.other(offline=True)
    with pytest.raises(VlmEvalError, match="to look into that of ModelScope"):
        offline.bring()
    assert advised(offline, **given) == found


def test_offline_says_what_is_missing_and_where(
    hub_environment: HubServer,
    tmp_path: Path,
    sandbox_environment: SandboxEnvironment,
    advised: Callable[..., Path],
) -> None:
    user = access(hub_environment, tmp_path, sandbox_environment.python, offline=True)
    with pytest.raises(VlmEvalError) as caught:
        user.bring()
    message = str(caught.value)
    assert message.startswith(
        "Set: --vlm-offline is set, and the repository org/set is not complete in the "
        f"cache of Hugging Face, {tmp_path / 'hf'} (LocalEntryNotFoundError: "
    )
    assert message.endswith(
        "). Run once without --vlm-offline, set HF_HUB_CACHE to the cache that has it, "
        "or VLMEVALKIT_USE_MODELSCOPE=1 to look into that of ModelScope; "
        "--vlm-data-mirror=FOLDER takes its files from FOLDER/org/set."
    )
    assert not hub_environment.requests
    mirror = tmp_path / "mirror"
    write_files(mirror / "org" / "set", FILES)
    advised(user, f"--vlm-data-mirror={mirror}")
    assert not hub_environment.requests
    hub_environment.repositories["org/set"] = FILES
    elsewhere = str(tmp_path / "elsewhere")
    advised(user.other(offline=False), HF_HUB_CACHE=elsewhere)
    hub_environment.requests.clear()
    advised(user, HF_HUB_CACHE=elsewhere)
    assert not hub_environment.requests
    advised(user.other(offline=False))


def test_a_client_that_says_nothing(hub_server: HubServer, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(VlmEvalError, match="client ended without an answer: it broke"):
        access(hub_server, tmp_path, python).bring()


@pytest.mark.parametrize("kind", [0, 1])
def test_the_size_of_a_repository(
    hub_server: HubServer, tmp_path: Path, kind: int
) -> None:
    hub = hubs(hub_server, tmp_path)[kind]
    hub_server.repositories["org/set"] = FILES
    assert repository_size("org/set", hub, 5) == sum(map(len, FILES.values()))
    assert repository_size("org/other", hub, 5) is None
    hub_server.status = 503
    assert repository_size("org/set", hub, 5) is None


def test_repositories_are_part_of_what_is_to_be_downloaded(
    hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.repositories["org/set"] = FILES
    known = hubs(hub_server, tmp_path)
    infos = [
        DatasetInfo(
            name=name,
            class_name="VideoMME",
            module="videomme",
            kind="multiple_choice",
            modality="video",
            repository="org/set",
        )
        for name in ("Set", "Set_8frame")
    ]
    size = sum(map(len, FILES.values()))
    # Only the second hub has it.
    known[0] = replace(known[0], endpoint="http://127.0.0.1:9")
    plan = plan_downloads(infos, DataPlaces(data_root=tmp_path, hubs=known))
    assert plan.downloads == (PlannedDownload("Set", "org/set", size),)
    assert not plan_downloads(
        infos, DataPlaces(data_root=tmp_path, hubs=known, offline=True)
    ).downloads
    (tmp_path / "hf" / "datasets--org--set" / "snapshots" / COMMIT).mkdir(parents=True)
    assert not plan_downloads(
        infos, DataPlaces(data_root=tmp_path, hubs=known)
    ).downloads


@pytest.mark.parametrize(
    "folder",
    [
        "hf/datasets--org--a.b/snapshots/123",
        "ms/datasets/org--a.b/snapshots/master",
        "ms/datasets/org/a___b/x",
        "ms/hub/datasets/org/a___b/x",
    ],
)
def test_where_the_clients_keep_a_repository(
    hub_server: HubServer, tmp_path: Path, folder: str
) -> None:
    known = hubs(hub_server, tmp_path)
    assert not is_cached("org/a.b", known)
    (tmp_path / folder).mkdir(parents=True)
    assert is_cached("org/a.b", known)


def _write_and_fail(folder: Path) -> None:
    write_files(folder, {"video/x.mp4": b"", "table.tsv": b""})
    raise RuntimeError


def test_what_a_failure_unpacked_is_taken_away(tmp_path: Path) -> None:
    folder, note = tmp_path / "snapshot", tmp_path / "note"
    write_files(folder, {"a.zip": b"", "kept/b": b""})
    with pytest.raises(RuntimeError), unpacking([str(folder)], note):
        _write_and_fail(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.zip", "kept"]
    with unpacking([str(folder)], note):
        write_files(folder, {"video/x.mp4": b""})
    assert (folder / "video" / "x.mp4").exists()
    assert not note.exists()


def test_what_a_killed_process_unpacked_is_taken_away(tmp_path: Path) -> None:
    folder, note = tmp_path / "snapshot", tmp_path / "note"
    write_files(folder, {"a.zip": b""})
    code = (
        "import os, signal, sys, pathlib\n"
        "from pytest_vlmeval.datasets.download import unpacking\n"
        "with unpacking([sys.argv[1]], pathlib.Path(sys.argv[2])):\n"
        "    pathlib.Path(sys.argv[1], 'video').mkdir()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder), str(note)])
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "video").exists()
    with unpacking([str(folder)], note):
        assert [path.name for path in folder.iterdir()] == ["a.zip"]
    assert not note.exists()


NOT_TRUSTED = (
    r"\(its certificate is not trusted: self-signed certificate; SSL_CERT_FILE names "
    r"the file of one that is\)"
)


@pytest.mark.parametrize("role", ["model", "judge"])
def test_an_endpoint_s_certificate_is_verified(
    certificate: Certificate, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_vlmeval.models.endpoint import EndpointClient

    def check(url: str) -> None:
        client = EndpointClient(
            model="tiny",
            api_base=f"{url}/v1",
            api_key="sk-never-sent-to-a-stranger",
            max_tokens=1,
            temperature=0,
            timeout_s=30,
            concurrency=1,
            role=role,
        )
        asyncio.run(client.check())

    with run_file_server(certificate.context) as server:
        server.files["v1/models"] = json.dumps({"data": [{"id": "tiny"}]}).encode()
        with pytest.raises(VlmEvalError, match=NOT_TRUSTED):
            check(server.url)
        assert not server.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        check(server.url)
        assert server.asked() == ["/v1/models"]


def test_a_file_server_s_certificate_is_verified(
    certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_file_server(certificate.context) as server:
        server.files["Table.tsv"] = CONTENT
        text = fail(table(f"{server.url}/Table.tsv"), tmp_path)
        assert "CERTIFICATE_VERIFY_FAILED" in text
        assert "tried" not in text
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        # From Python 3.12 on, a process keeps what it trusted at first.
        urllib.request.install_opener(None)
        assert fetch(table(f"{server.url}/Table.tsv"), tmp_path).checksum == MD5


def bring(
    hub: HubServer, kind: str, python: Path, folder: Path, patch: pytest.MonkeyPatch
) -> Path:
    """Bring a repository as a run does, with the hub's own client."""
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(folder / "hub" / "hf"),
        "MODELSCOPE_ENDPOINT": hub.url,
        "MODELSCOPE_DOMAIN": hub.url,
        "MODELSCOPE_CACHE": str(folder / "hub" / "ms"),
        "HF_HUB_ETAG_TIMEOUT": "30",
    }
    for name, value in variables.items():
        patch.setenv(name, value)
    access = FileAccess(
        data_root=folder / "LMUData",
        cache_dir=folder / "cache",
        hubs=choose_hubs(variables),
    )
    wanted = {"hub": kind, "repository": "org/set", "revision": None}
    wanted |= {"allow": None, "ignore": None}
    return bring_repository(wanted, "Set", python, access)


@pytest.mark.parametrize(
    ("kind", "said", "addons"),
    [
        ("huggingface", "Hugging Face", LIGHT),
        pytest.param("modelscope", "ModelScope", VIDEO, marks=pytest.mark.addons),
    ],
)
def test_a_hub_s_certificate_is_verified(
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    said: str,
    addons: frozenset[str],
) -> None:
    python = environment_with(addons).python
    with run_hub_server(certificate.context) as hub:
        hub.repositories["org/set"] = {"a.tsv": b"index\n1\n"}
        with pytest.raises(VlmEvalError, match=f"cannot be downloaded from {said}"):
            bring(hub, kind, python, tmp_path, monkeypatch)
        assert not hub.requests
        # ModelScope's client is one of requests.
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(certificate.file))
        folder = bring(hub, kind, python, tmp_path, monkeypatch)
        assert (folder / "a.tsv").read_bytes() == b"index\n1\n"


def test_a_hub_s_file_stays_in_the_cache(
    hub_server: HubServer,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub_server.repositories["org/set"] = {
        "../../../../../../escaped.txt": b"x",
        "a.tsv": b"index\n1\n",
        f"{tmp_path}/absolute.txt": b"x",
    }
    with suppress(VlmEvalError):
        bring(
            hub_server, "huggingface", sandbox_environment.python, tmp_path, monkeypatch
        )
    inside = tmp_path / "hub"
    outside = [path for path in tmp_path.rglob("*.txt") if inside not in path.parents]
    assert not outside
    assert not list(tmp_path.parent.glob("escaped*"))
