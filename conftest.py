"""Plugins of the project's own tests; pytest takes them only from the root."""

pytest_plugins = [
    "pytester",
    "tests.support.server_fixtures",
    "tests.support.run_fixtures",
    "tests.support.baseline_projects",
    "tests.support.file_server",
    "tests.support.hub_server",
    "tests.support.video_sets",
    "tests.support.judge_calls",
    "tests.support.postgres_server",
]
