"""What comes over the network: certificates, and names of files."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.hub import bring_repository
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.environment import LIGHT, VIDEO
from pytest_vlmeval.settings.groups import choose_hubs
from tests.support.certificates import Certificate
from tests.support.certificates import certificate as certificate
from tests.support.download_calls import CONTENT, MD5, fail, fetch, table
from tests.support.file_server import run_file_server
from tests.support.hub_server import HubServer, run_hub_server
from tests.support.run_fixtures import environment_with

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Role
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

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
