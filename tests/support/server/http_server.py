"""The HTTP side of the test server: one thread per connection, kept alive."""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.support.server.answers import Outcome, answer, error, failure, models, wrong
from tests.support.server.records import Prompt, Recorder, describe, read_prompt
from tests.support.server.script import Rule, Script

if TYPE_CHECKING:
    from pytest_vlmeval.models.demo import DemoModel

NO_RULE = Rule()


class Server(ThreadingHTTPServer):
    """Serves on 127.0.0.1; the script may be replaced between two requests."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self, port: int, script: Script, recorder: Recorder, *, with_demo_model: bool
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script = script
        self.recorder = recorder
        self.connection_numbers = itertools.count(1)
        self._with_demo_model = with_demo_model
        self._model: DemoModel | None = None
        self._model_lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base URL that is given to clients."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def demo_model(self) -> DemoModel | None:
        """Give the model that answers, loaded when first needed, if there is one."""
        if not self._with_demo_model:
            return None
        with self._model_lock:
            if self._model is None:
                from pytest_vlmeval.models.demo import DemoModel

                self._model = DemoModel()
            return self._model

    def handle_error(
        self,
        request: socket.socket | tuple[bytes, socket.socket],
        client_address: object,
    ) -> None:
        """Report the errors of this server, not connections that clients gave up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection and the requests that come on it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.connection_numbers)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the records say it."""

    def do_GET(self) -> None:
        path = self._route()
        if path == "/health":
            self._send(Outcome(body={"status": "ok"}))
        else:
            self._serve(path, {}, Prompt())

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._route()
        try:
            body = json.loads(data or b"{}")
            if path == "/control":
                self._send(self._control(body))
                return
            prompt = read_prompt(body) if path == "/chat/completions" else Prompt()
        except (ValueError, KeyError, TypeError, AssertionError) as problem:
            self._send(failure(422, "detail", repr(problem)))
            return
        self._serve(path, body, prompt)

    def _route(self) -> str:
        # A path may look like OpenAI's address.
        path = urlsplit(self.path).path.removeprefix("/openai.com")
        return path.removeprefix("/v1")

    def _control(self, body: Mapping[str, Mapping[str, object]]) -> Outcome:
        """Replace the script and start counting anew, or only read the counters."""
        if "script" in body:
            self.server.script = Script.from_json(body["script"])
            self.server.recorder.clear()
        return Outcome(body=self.server.recorder.counters())

    def _serve(self, path: str, body: Mapping[str, object], prompt: Prompt) -> None:
        script, recorder = self.server.script, self.server.recorder
        authorized = self._authorized(script)
        record = describe(body, prompt) | self._describe_headers()
        record |= {"authorized": authorized, "connection": self.number}
        turn = recorder.begin(script, path, prompt.text, record)
        rule = turn.rule or NO_RULE
        try:
            wait_s = script.latency_s if rule.latency_s is None else rule.latency_s
            time.sleep(wait_s + script.latency_per_request_s * (turn.in_flight - 1))
            if self._break(rule):
                return
            if rule.status != HTTPStatus.OK:
                outcome = error(rule)
            elif not authorized:
                outcome = failure(400, "swift", "API key error")
            elif wrong_outcome := wrong(rule):
                outcome = wrong_outcome
            elif path == "/models":
                outcome = models(script)
            elif path != "/chat/completions":
                outcome = failure(404, "detail", "Not Found")
            else:
                outcome = answer(script, rule, body, prompt, self.server.demo_model())
        finally:
            # Before the answer: once it has it, the client may send the next one.
            recorder.end(turn)
        self._send(outcome, rule)

    def _authorized(self, script: Script) -> bool:
        expected = f"Bearer {script.api_key}"
        return script.api_key is None or self.headers["Authorization"] == expected

    def _describe_headers(self) -> dict[str, object]:
        shown = {name.lower(): value for name, value in self.headers.items()}
        return {
            "with_key": shown.pop("authorization", None) is not None,
            "query": urlsplit(self.path).query,
            "headers": shown,
        }

    def _break(self, rule: Rule) -> bool:
        """Do what leaves the client without any answer; whether that was asked for."""
        if rule.fault == "exit":
            os._exit(1)
        if rule.fault == "hang":
            self._hang()
        elif rule.fault == "reset":
            # Closing with a linger time of 0 sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.rfile.close()
            self.connection.close()
            self.close_connection = True
        else:
            return False
        return True

    def _hang(self) -> None:
        """Wait until the client gives the connection up."""
        self.close_connection = True
        self.connection.recv(1)

    def _send(self, outcome: Outcome, rule: Rule = NO_RULE) -> None:
        data = outcome.encoded()
        lines = [
            f"HTTP/1.1 {outcome.status} {HTTPStatus(outcome.status).phrase}",
            f"Content-Type: {outcome.content_type}",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in outcome.headers.items()),
        ]
        # One packet, so that the client wakes up once.
        head = "\r\n".join([*lines, "", ""]).encode()
        if rule.fault not in {"hang_body", "broken_body"}:
            self.wfile.write(head + data)
            return
        self.close_connection = True
        self.wfile.write(head + data[: len(data) // 2])
        if rule.fault == "hang_body":
            self._hang()
