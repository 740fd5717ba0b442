"""Plugins of the project's own tests; pytest takes them only from the root."""

pytest_plugins = [
    "pytester",
    "tests.server_fixtures",
    "tests.run_fixtures",
    "tests.baseline_projects",
    "tests.file_server",
    "tests.hub_server",
    "tests.video_sets",
    "tests.judge_calls",
    "tests.postgres_server",
]
