"""What messages advise: each command and option is known, and tests follow it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.table import COMMANDS, OPTIONS
from tests.support.option_calls import Load
from tests.support.option_calls import load as load

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pytest_vlmeval"
ADVICE = re.compile(r"--vlm-[a-z]|pytest --|swift deploy|pip install|--snapshot-update")
# Texts that are the help of options, the names of commands, or what a field
# of a task file stands for.
HELP = {
    "models/endpoint:option_prefix",
    "settings/groups:BaselineSettings.gate_samples",
    "settings/groups:GateSettings.max_cut_off",
    "settings/groups:GateSettings.stop_early",
    "settings/groups:LocalModel.path",
    "settings/groups:LocalModel.python",
    "settings/groups:Serving.model",
    "settings/groups:Serving.replicas",
    "settings/table:COMMANDS",
    "settings/table:Settings.backend",
    "settings/table:Settings.cluster",
    "settings/table:Settings.fps",
    "settings/table:Settings.max_tokens",
    "settings/table:Settings.predictions",
    "settings/table:Settings.run",
    "settings/table:Settings.seed",
    "settings/table:Settings.store",
    "settings/table:_WORDS",
    "settings/task_fields:API_MODEL",
    "settings/task_fields:BASE_URL",
    "settings/task_fields:DATASET",
    "settings/task_fields:EVALSCOPE",
    "settings/task_fields:EVAL_CONFIG",
    "settings/task_fields:FOLLOWS",
    "settings/task_fields:IN_BODY",
    "settings/task_fields:LOCAL_MODEL",
    "settings/task_fields:VLMEVALKIT",
    "suite/commands:COMMANDS",
    "suite/commands:run_list",
    "plugin:pytest_collection",
    "plugin:pytest_runtestloop",
}
# The texts, by where they are made, and the test that does what they advise in the
# situation that they are about.
FOLLOWED_IN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "test_scoring.py": {
        "test_captions_are_scored_together": (
            "sandbox/inside/families/common:need_package",
        ),
    },
    "test_advice.py": {
        "test_what_a_refusal_of_options_advises_is_accepted": (
            "settings/__init__:_check_address",
            "settings/groups:choose_judges",
            "settings/table:check_together",
            "settings/table:_check_repeat",
            "settings/table:_check_servers",
            "settings/table:_check_stop_early",
            "settings/presets:_special_cases",
        ),
    },
    "test_bad_input.py": {
        "test_a_name_in_vlm_data_that_no_benchmark_has": ("run/plan:Choice.check",),
        "test_an_address_that_lists_models_and_answers_nothing": (
            "models/refusals:NOT_THERE",
        ),
        "test_an_option_that_is_misspelt": ("settings/table:explain_unknown",),
        "test_a_keyword_that_matches_nothing": ("suite/selection:explain_no_match",),
    },
    "test_baselines.py": {
        "test_the_first_score_passes_without_a_baseline": (
            "reports/terminal:format_gates",
        ),
        "test_a_missing_baseline_fails_with_the_command_that_makes_it": (
            "gates/baseline:BaselineGate.missing",
        ),
        "test_a_baseline_of_an_earlier_version_says_how_it_is_written_anew": (
            "gates/baseline_file:_check_format",
            "gates/baseline:BaselineGate.unreadable",
        ),
        "test_unlike_runs_and_broken_baselines_are_not_compared": (
            "gates/baseline_file:read_baseline",
            "gates/baseline:BaselineGate._refused",
        ),
        "test_what_cannot_be_compared_is_said": ("run/store/runs:Runs.find_other_run",),
    },
    "test_preparation.py": {
        "test_an_environment_that_has_what_lacked_is_taken": (
            "sandbox/inside/preparation:why_not_built",
        ),
    },
    "test_server_check.py": {
        "test_what_is_lacking_stops_the_run_before_it": ("models/check:explain_lack",),
    },
    "test_catalog.py": {
        "test_an_environment_without_ms_vlmeval": ("datasets/catalog:_ask",),
        "test_an_unknown_file_is_downloaded_asked_and_marked": (
            "datasets/download:_bring_locked",
        ),
    },
    "test_open.py": {
        "test_no_model": ("settings/__init__:NO_MODEL",),
        "test_a_folder_without_a_checkpoint_is_told": ("models/local:order_of",),
        "test_a_name_that_ms_vlmeval_has_not_is_told": ("models/local:find_model",),
        "test_more_replicas_than_devices": ("models/server:ServerKeeper._start_all",),
        "test_one_that_is_slow_is_given_more_time": (
            "models/server:Server.wait_ready",
        ),
        "test_workers_of_xdist_are_refused": ("run/engine:ONE_PROCESS",),
    },
    "test_constant_answers.py": {
        "test_a_baseline_is_no_worse_by_defects_alone_until_it_is_made_anew": (
            "gates/baseline:BaselineGate._sound",
        ),
        "test_a_server_that_says_a_to_everything_is_not_green": (
            "gates/completeness:describe_defects",
        ),
    },
    "test_demo.py": {
        "test_video": ("models/demo:DemoClient._generate",),
    },
    "test_download.py": {
        "test_another_checksum_is_refused_unless_allowed": (
            "sandbox/own_files:not_published",
        ),
    },
    "test_evaluation.py": {
        "test_what_a_refused_call_advises_works": (
            "settings/sources:OF_SESSIONS",
            "settings/sources:_option",
            "evaluation:_names",
        ),
    },
    "test_faults.py": {
        "test_a_server_that_stays_away_stops_the_run_and_keeps_what_it_gave": (
            "models/pool:Pool._look_for_outage",
        ),
    },
    "test_followed_advice.py": {
        "test_a_key_is_given_in_either_way": ("models/endpoint:key_advice",),
        "test_a_server_that_is_not_there": ("models/endpoint:ServerCheck.no_server",),
        "test_an_answer_that_was_cut_off": ("reports/wording:describe_cut_off",),
        "test_an_answer_that_cannot_be_used": (
            "models/refusals:CAUSES",
            "models/refusals:SMALLER",
            "reports/wording:_why_empty",
            "reports/wording:_why_unusable",
        ),
        "test_a_member_that_a_server_does_not_take": (
            "models/refusals:FEWER_TOKENS",
            "models/refusals:OTHER_TEMPERATURE",
            "models/refusals:find_fix",
        ),
        "test_another_judge_decides_what_one_did_not": (
            "reports/wording:why_undecided",
        ),
        "test_names_in_a_task_are_those_of_the_lists": (
            "settings/task_file:check_names",
            "settings/task_file:list_entries",
        ),
        "test_reports_are_written_as_refusals_say": (
            "suite/commands:_find_store",
            "suite/commands:run_report",
            "reports/html:write_whole",
            "reports/export:NEEDS_OPENPYXL",
        ),
        "test_several_models_are_run_by_the_loop_of_the_message": (
            "settings/task_file:choose_entry",
        ),
        "test_what_cannot_be_scored_is_collected": (
            "sandbox/inside/families/__init__:find_family",
        ),
    },
    "test_forecast.py": {
        "test_a_word_with_a_digit_is_no_reason_to_download": (
            "suite/selection:explain_guess",
            "suite/selection:_explain_words",
        ),
        "test_download_only": ("suite/session:register_reports",),
        "test_what_is_too_much_fits_by_what_the_message_advises": (
            "datasets/library:check_plan",
        ),
    },
    "test_hub.py": {
        "test_offline_says_what_is_missing_and_where": ("datasets/hub:_failure",),
    },
    "test_sent_alike.py": {
        "test_what_ms_vlmeval_cannot_send": ("models/chat:_fit",),
        "test_judges_are_asked_by_the_same_rule": ("settings/presets:fill_in",),
    },
    "test_benchmarks.py": {
        "test_benchmarks_that_are_not_there": ("suite/installed:_check_paths",),
        "test_a_starter_project": (
            "suite/installed:BENCHMARKS",
            "suite/installed:NEXT",
        ),
        "test_a_starter_project_that_cannot_be_written": ("suite/installed:run_init",),
    },
    "test_items.py": {
        "test_infer_then_score": (
            "run/__init__:ONLY_ASKS",
            "suite/views:ScoreView._skip_where_only_asked",
        ),
        "test_score_mode_without_answers_says_what_to_do": (
            "run/execution:NOT_STORED",
        ),
    },
    "test_judges.py": {
        "test_two_judges_and_their_majority": ("reports/terminal:SCORES",),
        "test_the_fixture": ("suite/fixtures:vlm_judge",),
    },
    "test_judge_runs.py": {
        "test_a_dataset_that_needs_a_judge": (
            "reports/progress:Watch._why_no_score",
            "sandbox/inside/scoring:NEEDS_JUDGE",
        ),
    },
    "test_groups.py": {
        "test_what_names_no_judge_costs_nothing": ("settings/groups:describe_judges",),
    },
    "test_library.py": {
        "test_vlmevalkits_scoring_wants_the_ms_vlmeval_that_it_is_made_of": (
            "datasets/library:Library.scorer",
        ),
    },
    "test_real_models.py": {
        "test_a_process_that_dies_is_started_again_but_not_for_ever": (
            "models/local:LocalClient._start",
        ),
        "test_the_python_of_another_environment_has_what_this_one_lacks": (
            "models/local:check_model",
        ),
    },
    "test_own_formats.py": {
        "test_the_columns_that_a_message_advises_are_taken": (
            "datasets/own:_take",
            "datasets/own:_Reading._missing",
            "datasets/own:_Reading._faults_of",
            "sandbox/own_columns:OwnTable._source_of",
            "sandbox/own_columns:OwnTable._letter",
        ),
        "test_a_system_message_goes_where_the_message_says": (
            "sandbox/own_columns:NO_SYSTEM",
        ),
        "test_a_folder_of_images": ("datasets/own:table_in",),
    },
    "test_own_hub.py": {
        "test_what_is_larger_than_allowed_is_not_downloaded": (
            "datasets/own_hub:_check_size",
        ),
    },
    "test_own_table.py": {
        "test_a_table_of_one_s_own_may_name_images_anywhere_and_says_so": (
            "datasets/own:INSIDE_ONLY",
        ),
    },
    "test_postgres.py": {
        "test_without_the_driver": ("run/store/database:_open_postgresql",),
    },
    "test_prepare.py": {
        "test_a_cache_that_cannot_be_written": ("datasets/prepare:_fill",),
    },
    "test_same_server.py": {
        "test_the_judge_sees_what_was_cut_off_and_what_stands_for_an_empty_reply": (
            "gates/completeness:_but_for_empty",
        ),
    },
    "test_ray.py": {
        "test_an_address_without_a_cluster_is_told": (
            "models/cluster/__init__:connect",
        ),
        "test_too_little_room_is_told": ("models/cluster/__init__:place_replicas",),
    },
    "test_formats.py": {
        "test_excel_keeps_what_looks_like_a_formula": (
            "reports/export:write_predictions",
        ),
    },
    "test_resume.py": {
        "test_a_model_that_is_loaded_here_is_checked_alike": ("run/reuse:REMEDY_HERE",),
        "test_a_server_that_fails_tells_nothing": ("run/reuse:_check_failures",),
        "test_another_model_behind_the_name_stops_the_run": ("run/reuse:REMEDY",),
        "test_without_a_server_stored_answers_are_used_where_it_is_said": (
            "run/reuse:ReuseCheck._look",
        ),
    },
    "test_environment.py": {
        "test_an_own_python_is_given_ms_vlmeval_as_the_message_says": (
            "sandbox/environment:OWN_ENVIRONMENT",
            "sandbox/environment:_probe",
        ),
    },
    "test_commands.py": {
        "test_a_setup_builds_the_add_ons_of_the_datasets_that_are_named": (
            "suite/commands:SETUP",
            "sandbox/environment:ensure_built",
        ),
        "test_an_environment_that_does_not_work_is_built_anew": (
            "sandbox/environment:_run",
            "sandbox/process:Helper.__init__",
            "sandbox/inside/server:_load_methods",
        ),
        "test_folders": ("suite/commands:examine_folders",),
    },
    "test_store.py": {
        "test_a_foreign_file_is_never_overwritten": (
            "run/store/database:Location.explain",
        ),
        "test_another_schema_version_is_named": (
            "run/store/database:_explain_version",
        ),
    },
    "test_reports.py": {
        "test_two_runs_are_compared": ("suite/commands:run_compare",),
    },
    "test_table_names.py": {
        "test_a_file_in_lmudata_is_taken_by_the_name_that_the_message_gives": (
            "datasets/own:check_exists",
        ),
    },
    "test_task_file.py": {
        "test_a_class_that_is_not_there": ("models/local:find_class",),
        "test_what_refusals_of_a_task_advise_is_accepted": (
            "settings/task_file:Task._check_further",
            "settings/task_file:_parse",
        ),
    },
    "test_task_runs.py": {
        "test_a_class_that_is_another": ("datasets/library:Library.check_classes",),
    },
    "test_many_datasets.py": {
        "test_failures_of_many_datasets_fit_a_screen": ("reports/terminal:MORE",),
    },
    "test_gates.py": {
        "test_rules_decide_and_every_message_is_one_block": ("gates/message:see_line",),
        "test_modified_data_are_refused_or_accepted_and_said": (
            "gates/completeness:check_completeness",
        ),
        "test_what_cannot_be_read_is_not_said_to_be_asked_again": (
            "gates/completeness:_what_to_do",
        ),
    },
    "test_gate_files.py": {
        "test_what_a_refusal_advises_is_accepted": (
            "gates/thresholds:Thresholds._check_dataset",
            "gates/thresholds:_read",
            "gates/thresholds:load_thresholds",
        ),
    },
    "test_own_questions.py": {
        "test_images_in_archives_of_a_repository": (
            "datasets/own_hub:HubTable.bring_archive",
            "datasets/own_questions:_Images._bring_later",
        ),
    },
    "test_own_scoring.py": {
        "test_a_score_may_ask_the_judge": ("run/own_scorer:OwnScorer.attempt",),
    },
    "test_unscored.py": {
        "test_evaluate_refuses_likewise": (
            "datasets/own:ANSWERLESS",
            "sandbox/inside/scoring:_predictions",
        ),
        "test_what_is_left_out_has_no_threshold_and_no_baseline": (
            "datasets/unscored:explain_gated",
        ),
        "test_the_advice_of_the_refusal_works": (
            "suite/commands:_table",
            "datasets/unscored:explain_left_out",
            "datasets/unscored:explain_refusal",
        ),
    },
    "test_video_datasets.py": {
        "test_all_questions_about_a_video_in_one_prompt": (
            "sandbox/inside/videos:_samples",
        ),
        "test_a_folder_as_mirror": ("datasets/hub:_link_mirror",),
    },
    "test_video_runs.py": {
        "test_a_server_without_videos_is_told_before_the_run": (
            "models/check:REMEDIES",
        ),
    },
}
FOLLOWED = [
    site for tests in FOLLOWED_IN.values() for sites in tests.values() for site in sites
]
# These name what was given, or what an option did, and advise nothing.
GIVEN = (
    "datasets/own_questions:OUTSIDE_TABLE",
    "sandbox/own_columns:OwnTable._find_sources",
    "suite/session:name_command",
    "datasets/catalog:_files_like",
    "datasets/download:_bring",
    "suite/commands:list_datasets",
    "datasets/prepare:check_frames_apply",
    "gates/baseline_file:find_differences",
    "gates/message:title_of",
    "records:Stop.reason",
    "records:Whole.reason",
    "run/gating:Gatekeeper._why_whole",
    "run/gating:Gatekeeper.why_gated",
    "run/plan:tell_apart",
    "models/endpoint:EndpointClient._post",
    "run/reuse:ReuseCheck._find_out",
    "sandbox/calls:score_in_sandbox",
    "suite/views:SampleView.check",
)
# Those that no test can follow, and why.
CANNOT = {
    "sandbox/inside/judging:_parts_of": "no class of sandbox/inside/families shows its "
    "judge more than texts and images",
    "sandbox/inside/families/general:_explain": "no class of sandbox/inside/families "
    "fails on some of the rows of its dataset, or lacks a package",
    "sandbox/inside/families/general:_rank": "each class of sandbox/inside/families "
    "gives its main metric for some of the rows of its dataset too",
}


def _strings(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _without_docstrings(tree: ast.Module) -> ast.Module:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else node
    target = target.target if isinstance(target, ast.AnnAssign) else target
    return target.id if isinstance(target, ast.Name) else "?"


def _sites(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _sites(node.body, f"{prefix}{node.name}.")
        elif any(map(ADVICE.search, _strings(node))):
            yield prefix + _name(node)


def _all_sites() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        tree = _without_docstrings(ast.parse(path.read_text(encoding="utf-8")))
        for name in _sites(tree.body):
            site = f"{module}:{name}"
            if site not in HELP:
                yield site


def test_each_text_with_advice_is_accounted_for() -> None:
    """A new message says here which test follows it, before it is merged."""
    assert set(_all_sites()) == {*FOLLOWED, *GIVEN, *CANNOT}
    all_of_them = [*FOLLOWED, *GIVEN, *CANNOT]
    assert len(all_of_them) == len(set(all_of_them))


def test_the_tests_that_follow_advice_are_there() -> None:
    for file, tests in FOLLOWED_IN.items():
        tree = ast.parse(next((ROOT / "tests").rglob(file)).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert tests.keys() <= there, file


def test_every_option_that_a_message_names_is_there() -> None:
    known = {option.flag for option in OPTIONS} | set(COMMANDS)
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for text in _strings(tree):
            # What goes on is put together: --vlm-judge- and a name.
            named = re.findall(r"--vlm-[a-z]+(?:-[a-z]+)*(?![a-z-]*-$|[a-z-])", text)
            assert set(named) <= known, (path.name, text)


def test_what_pip_is_to_install_is_declared() -> None:
    """An extra of this project, or a package that an extra brings."""
    written = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(written)["project"]
    extras = project["optional-dependencies"]
    brought = {
        re.split(r"[\[<>=]", each)[0] for some in extras.values() for each in some
    }
    pages = [*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    found = set()
    for path in pages:
        # Texts go on in the next line.
        text = re.sub(r'"\n\s*f?"', "", path.read_text(encoding="utf-8"))
        found |= set(re.findall(r"pip install (?:-U )?['\"]?([\w\[\],.-]*\w\]?)", text))
    assert {"openpyxl", "ms-vlmeval", "pytest-vlmeval[postgresql]"} <= found
    for each in found - {"pytest-vlmeval"}:
        name, _, extra = each.removesuffix("]").partition("[")
        if extra:
            assert name in ("pytest-vlmeval", "."), each
            assert set(extra.split(",")) <= extras.keys(), each
        else:
            assert name in brought, each
    assert {"psycopg", "openpyxl", "ray", "ms-vlmeval"} <= brought


URL, OTHER = "http://one/v1", "http://two/v1"
AT_ONE = ["--vlm-judge=a", f"--vlm-judge-api-base={URL}"]
JUDGES = ["--vlm-judge=a", "--vlm-judge=b", "--vlm-judge=c"]
# What is given, what is said of it, and what that advises.
REFUSED = [
    (
        ["--vlm-model=m", "--vlm-images=as-ms-vlmeval", "--vlm-max-pixels=9999"],
        "Give --vlm-image-size, which is its img_size, or leave one of them out.",
        [
            ["--vlm-model=m", "--vlm-images=as-ms-vlmeval", "--vlm-image-size=99"],
            ["--vlm-model=m", "--vlm-images=as-ms-vlmeval"],
            ["--vlm-model=m", "--vlm-max-pixels=9999"],
        ],
    ),
    (
        ["--vlm-model=demo", "--vlm-preset=evalscope"],
        "Leave it out, or name another model.",
        [
            ["--vlm-model=m", "--vlm-preset=evalscope"],
            ["--vlm-model=demo"],
        ],
    ),
    (
        ["--vlm-model=demo", f"--vlm-api-base={URL}"],
        "Leave one of them out, or give --vlm-backend=endpoint if that server has a "
        "model of this name.",
        [
            ["--vlm-model=demo"],
            [f"--vlm-api-base={URL}"],
            ["--vlm-model=demo", f"--vlm-api-base={URL}", "--vlm-backend=endpoint"],
        ],
    ),
    (
        ["--vlm-model=m", "--vlm-backend=local", f"--vlm-api-base={URL}"],
        "--vlm-api-base is the address of a server. Leave one of them out.",
        [
            ["--vlm-model=m", "--vlm-backend=local"],
            ["--vlm-model=m", f"--vlm-api-base={URL}"],
        ],
    ),
    (
        ["--vlm-model=o1-gemini", "--vlm-preset=evalscope"],
        "--vlm-preset=none, and --vlm-images=as-ms-vlmeval --vlm-image-detail=high",
        [
            [
                "--vlm-model=o1-gemini",
                "--vlm-preset=none",
                "--vlm-images=as-ms-vlmeval",
                "--vlm-image-detail=high",
            ]
        ],
    ),
    (
        ["--vlm-model=m", "--vlm-repeat=2", "--vlm-temperature=0"],
        "for example --vlm-temperature=0.7, or leave --vlm-repeat out.",
        [
            ["--vlm-model=m", "--vlm-repeat=2", "--vlm-temperature=0.7"],
            ["--vlm-model=m", "--vlm-temperature=0"],
        ],
    ),
    (
        ["--vlm-model=demo", "--vlm-repeat=2"],
        "Leave --vlm-repeat out.",
        [["--vlm-model=demo"]],
    ),
    (
        ["--vlm-stop-early", "--vlm-mode=infer"],
        "Give --vlm-mode=all, or leave --vlm-stop-early out.",
        [["--vlm-stop-early", "--vlm-mode=all"], ["--vlm-mode=infer"]],
    ),
    (
        ["--vlm-model=demo", "--vlm-max-tokens=none"],
        "Give a number, or leave it out.",
        [["--vlm-model=demo", "--vlm-max-tokens=9"], ["--vlm-model=demo"]],
    ),
    (
        ["--vlm-max-tokens=5", '--vlm-extra-body={"max_tokens": null}'],
        "Leave one of them out.",
        [["--vlm-max-tokens=5"], ['--vlm-extra-body={"max_tokens": null}']],
    ),
    (
        [
            *("--vlm-judge=a", f"--vlm-judge-api-base={URL}"),
            *(
                "--vlm-judge-max-tokens=5",
                '--vlm-judge-extra-body={"max_tokens": null}',
            ),
        ],
        "exclude each other. Leave one of them out.",
        [
            [*AT_ONE, "--vlm-judge-max-tokens=5"],
            [*AT_ONE, '--vlm-judge-extra-body={"max_tokens": null}'],
        ],
    ),
    (
        ["--vlm-replicas=3"],
        "Give --vlm-engine=ray too, or leave it out",
        [["--vlm-replicas=3", "--vlm-engine=ray"], []],
    ),
    (
        ["--vlm-serve=x {port}", "--vlm-engine=ray"],
        "give its URL with --vlm-api-base, or leave --vlm-engine out.",
        [[f"--vlm-api-base={URL}", "--vlm-engine=ray"], ["--vlm-serve=x {port}"]],
    ),
    (
        ["--vlm-judge=a", "--vlm-judge-serve=x {port}", "--vlm-engine=ray"],
        "give its URL with --vlm-judge-api-base, or leave --vlm-engine out.",
        [
            [*AT_ONE, "--vlm-engine=ray"],
            ["--vlm-judge=a", "--vlm-judge-serve=x {port}"],
        ],
    ),
    (
        ["--vlm-model=m", "--vlm-model-path=y"],
        "Give --vlm-backend=local too, or leave it out.",
        [["--vlm-model=m", "--vlm-model-path=y", "--vlm-backend=local"], []],
    ),
    *(
        (
            ["--vlm-model=m", "--vlm-backend=local", about_requests],
            "Leave it out: parameters of a local model go with --vlm-model-args, for "
            "example max_pixels=1003520.",
            [
                [
                    *("--vlm-model=m", "--vlm-backend=local"),
                    "--vlm-model-args=max_pixels=1003520",
                ]
            ],
        )
        for about_requests in (
            "--vlm-image-size=448",
            "--vlm-max-pixels=1003520",
            "--vlm-image-detail=low",
            '--vlm-extra-body={"top_p": 1}',
            "--vlm-serve=x {port}",
        )
    ),
    (
        ["--vlm-judge=exact_matching", "--vlm-judge=a"],
        "stands alone.",
        [["--vlm-judge=exact_matching"]],
    ),
    (
        [
            *JUDGES,
            f"--vlm-judge-api-base={URL}",
            f"--vlm-judge-api-base={OTHER}",
        ],
        "Give one URL for all, or one for each in this order.",
        [
            [*JUDGES, f"--vlm-judge-api-base={URL}"],
            [*JUDGES, *(f"--vlm-judge-api-base=http://{n}/v1" for n in range(3))],
        ],
    ),
    (
        ["--vlm-judge=a"],
        "Give its URL with --vlm-judge-api-base or OPENAI_API_BASE",
        [
            ["--vlm-judge=a", f"--vlm-judge-api-base={URL}"],
            ["--vlm-judge=exact_matching"],
        ],
    ),
    (
        ["--vlm-serve=x {port}", f"--vlm-api-base={URL}"],
        "Leave one of them out.",
        [["--vlm-serve=x {port}"], [f"--vlm-api-base={URL}"]],
    ),
    (
        ["--vlm-judge-serve=x {port}"],
        "Give --vlm-judge=NAME too",
        [["--vlm-judge-serve=x {port}", "--vlm-judge=NAME"]],
    ),
    (
        ["--vlm-judge=a", "--vlm-judge-serve=x {port}", f"--vlm-judge-api-base={URL}"],
        "Leave one of them out.",
        [
            ["--vlm-judge=a", "--vlm-judge-serve=x {port}"],
            ["--vlm-judge=a", f"--vlm-judge-api-base={URL}"],
        ],
    ),
]


def test_what_a_refusal_of_options_advises_is_accepted(load: Load) -> None:
    for given, said, advised in REFUSED:
        with pytest.raises(VlmEvalError) as caught:
            load(*given)
        assert said in str(caught.value), given
        for arguments in advised:
            assert isinstance(load(*arguments), Settings), arguments
    assert load("--vlm-judge=a", environ={"OPENAI_API_BASE": URL}).judges
