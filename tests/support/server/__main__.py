"""The command line of the test server."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by path
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.server.http_server import Server
from tests.support.server.records import Recorder
from tests.support.server.script import Script


def main() -> None:
    """Print the base URL, then serve until killed."""
    parser = argparse.ArgumentParser(prog="tests.support.server")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--script", type=Path, help="JSON file of the script")
    parser.add_argument("--requests", type=Path, help="file of the records to write")
    parser.add_argument("--model", choices=["demo"], help="a model that answers")
    parser.add_argument("--log", action="store_true", help="say it as uvicorn does")
    arguments = parser.parse_args()
    given = json.loads(arguments.script.read_text()) if arguments.script else {}
    server = Server(
        arguments.port,
        Script.from_json(given),
        Recorder(arguments.requests),
        with_demo_model=arguments.model == "demo",
    )
    url = server.url
    if arguments.log:
        url = f"INFO:     Uvicorn running on {url.removesuffix('/v1')} (Press CTRL+C)"
    sys.stdout.write(url + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
