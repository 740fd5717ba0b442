"""A small OpenAI-compatible server, run as a process, that misbehaves on demand.

`python -m tests.support.server --port 0` (or by path: `python tests/support/server`)
prints its base URL on the first line and serves until it is killed. It listens on
127.0.0.1 and speaks GET /v1/models, GET /health and POST /v1/chat/completions; POST
/control changes its script and reads its counters. `script.py` says what a script may
hold.
"""
