"""A real PostgreSQL server for tests: in a folder of its own, on a free port."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

START_LIMIT_S = 60
# Never printed: what tests look for in everything that a run leaves behind.
PASSWORD = "canary/pass@word-4711"
QUOTED = "canary%2Fpass%40word-4711"


class PostgresServer:
    """A server whose superuser `vlm` has the password `PASSWORD`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # PostgreSQL does not run as root, and others cannot enter pytest's folders.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="vlmeval-postgres-"))
        self._data = self.folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._make()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _make(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            shutil.chown(password, self._user)
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "vlm"]
        command += ["--auth=scram-sha-256", f"--pwfile={password}"]
        command += ["-E", "UTF8", "--no-sync"]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self.folder,
        )

    def start(self) -> None:
        """Start the server and wait until it lets one in."""
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, user=self._user, stdout=log, stderr=log, cwd=self.folder
            )
        engine = sa.create_engine(self._url("postgres", "postgresql+psycopg"))
        end = time.monotonic() + START_LIMIT_S
        while True:
            try:
                engine.connect().close()
                break
            except sa.exc.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.1)
        engine.dispose()

    def stop(self) -> None:
        """End the server at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_LIMIT_S)
            self._process = None

    def _url(self, database: str, scheme: str = "postgresql") -> str:
        return f"{scheme}://vlm:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def make_database(self) -> str:
        """Make a database and return its URL."""
        name = f"vlm_{secrets.token_hex(8)}"
        engine = sa.create_engine(
            self._url("postgres", "postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)


class Proxy:
    """A server in front of a PostgreSQL server, whose connections it can cut.

    `cut_at` chooses the next COMMIT: "before" it arrives, or "after" it was done but
    before the client hears of it.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self.cut_at = ""
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        behind = socket.create_connection(("127.0.0.1", self._behind))
        with client, behind:
            while True:
                ready, _, _ = select.select([client, behind], [], [])
                try:
                    if client in ready and not self._forward(client, behind):
                        return
                    if behind in ready:
                        if not (data := behind.recv(1 << 16)):
                            return
                        client.sendall(data)
                except OSError:
                    return

    def _forward(self, client: socket.socket, behind: socket.socket) -> bool:
        """Send on what the client says; return whether the connection goes on."""
        data = client.recv(1 << 16)
        if b"COMMIT" in data and self.cut_at:
            when, self.cut_at = self.cut_at, ""
            self.cuts += 1
            if when == "after":
                behind.sendall(data)
                behind.recv(1 << 16)
            return False
        behind.sendall(data)
        return bool(data)


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, if they are installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a running server; skips where PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        missing = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = PostgresServer(programs)
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Give the URL of an empty database."""
    return postgres_server.make_database()


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Read from a database."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]
    finally:
        engine.dispose()
