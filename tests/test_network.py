"""What comes over the network: certificates, archives, names of files."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_vlmeval.datasets.hub import HubAccess, SnapshotRequest
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.hub_settings import choose_hubs
from pytest_vlmeval.sandbox.addons import LIGHT, VIDEO
from tests.file_server import run_file_server
from tests.hub_server import HubServer, run_hub_server
from tests.run_fixtures import environment_with
from tests.test_containment import run_inside

if TYPE_CHECKING:
    from pytest_vlmeval.models.server_check import Role
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

NOT_TRUSTED = (
    r"\(its certificate is not trusted: self-signed certificate; SSL_CERT_FILE names "
    r"the file of one that is\)"
)


class Certificate(NamedTuple):
    """A certificate that nobody but its maker trusts, and a server's use of it."""

    file: Path
    context: ssl.SSLContext


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """Make a certificate of this machine's own, valid for two days."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(file)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return Certificate(file, context)


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
        server.files["models"] = json.dumps({"data": [{"id": "tiny"}]}).encode()
        with pytest.raises(VlmEvalError, match=NOT_TRUSTED):
            check(server.url)
        assert not server.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        check(server.url)
        assert server.asked() == ["/v1/models"]


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
    access = HubAccess(
        python=python,
        hubs=choose_hubs(variables),
        cache_dir=folder / "cache",
        offline=False,
        mirror=None,
        announce=lambda line: None,
    )
    return access.bring(SnapshotRequest(kind, "org/set", None, None, None), "Set")


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


def hostile_tar() -> bytes:
    """Pack what would lie outside of the folder it is unpacked into."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name in ("../escaped", "/tmp/vlmeval-escaped", "a/../../escaped"):
            packed.addfile(_member(name, size=1), io.BytesIO(b"x"))
    return out.getvalue()


def good_tar() -> bytes:
    """Pack a file in a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        packed.addfile(_member("good/file", size=1), io.BytesIO(b"x"))
    return out.getvalue()


def linked_tar(kind: bytes, target: str) -> bytes:
    """Pack a link to the outside, and a file that would be written through it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        link = _member("link")
        link.type, link.linkname = kind, target
        packed.addfile(link)
        packed.addfile(_member("link/escaped", size=1), io.BytesIO(b"x"))
    return out.getvalue()


def _member(name: str, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def hostile_zip() -> bytes:
    """Pack the same for zip, and a symbolic link."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name in ("../escaped", "/tmp/vlmeval-escaped", "a/../../escaped"):
            packed.writestr(name, "x")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "..")
    return out.getvalue()


def declaring(size: int) -> bytes:
    """Pack a megabyte of zeros, and say that it is `size` bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(2**20))
    return out.getvalue().replace(struct.pack("<I", 2**20), struct.pack("<I", size))


def bomb_tar() -> bytes:
    """Pack the start of a file of 100 GB, which need not be there to be refused."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        packed.addfile(_member("zeros", size=100), io.BytesIO(bytes(100)))
        packed.fileobj.write(_member("more", size=10**11).tobuf())
        packed.fileobj.write(bytes(10_240))
    return out.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "bomb.zip": lambda: declaring(4 * 10**9),
    "bomb.tar.gz": bomb_tar,
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_holds_far_more_than_it_is(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    (tmp_path / "lie.zip").write_bytes(declaring(9))
    (tmp_path / "good.zip").write_bytes(declaring(2**20))
    found = run_inside(sandbox_environment, UNPACK.format(name=name), tmp_path)
    size = (tmp_path / name).stat().st_size
    said = f"the sandbox does not unpack {tmp_path}/{name}: of {size:,} bytes it would"
    assert said.replace(f"{tmp_path}/", "") in found[0].replace(f"{tmp_path}/", "")
    assert "over 200 times as many" in found[0]
    assert "over 200 times as many" in found[1]
    # One that says less than it holds makes no more than it says.
    assert "BadZipFile" in found[2]
    assert found[3] == "nothing"
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("inside*/*")}
    assert sizes.pop("zeros") == 2**20
    assert not sizes


UNPACK = """
import shutil, tarfile, zipfile
def unpack(name, into):
    opened = zipfile.ZipFile(name) if name.endswith("zip") else tarfile.open(name)
    with opened:
        opened.extractall(into)
print(json.dumps([
    attempt(lambda: unpack("{name}", "inside")),
    attempt(lambda: shutil.unpack_archive("{name}", "inside")),
    attempt(lambda: unpack("lie.zip", "inside")),
    attempt(lambda: unpack("good.zip", "inside-good")),
]))
"""
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "slip.tar.gz": hostile_tar,
    "symlink.tar": lambda: linked_tar(tarfile.SYMTYPE, ".."),
    "absolute.tar": lambda: linked_tar(tarfile.SYMTYPE, "/tmp"),
    "hardlink.tar": lambda: linked_tar(tarfile.LNKTYPE, "../escaped"),
    "device.tar": lambda: linked_tar(tarfile.CHRTYPE, ""),
    "slip.zip": hostile_zip,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_stays_in_its_folder(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    (tmp_path / "good.tar").write_bytes(good_tar())
    # The ways in which ms-vlmeval's classes unpack.
    code = f"""
import shutil, tarfile, zipfile
from pathlib import Path
name = {name!r}
def unpack(name):
    opened = zipfile.ZipFile(name) if name.endswith("zip") else tarfile.open(name)
    with opened:
        opened.extractall("inside")
print(json.dumps([
    attempt(lambda: unpack(name)),
    attempt(lambda: shutil.unpack_archive(name, "inside")),
    attempt(lambda: unpack("good.tar")),
]))
"""
    found = run_inside(sandbox_environment, code, tmp_path)
    if name.endswith("zip"):
        assert found[0] == "nothing"
    else:
        assert "Error: " in found[0], found
        assert "Error: " in found[1], found
    assert found[2] == "nothing"
    assert (tmp_path / "inside" / "good" / "file").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {name, "good.tar", "inside"}
    )
    assert not Path("/tmp/vlmeval-escaped").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
