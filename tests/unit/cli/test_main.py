import subprocess
import sys

import pytest

from tutelage import errors
from tutelage.cli.main import build_app, call, guard, main
from tutelage.cli.stages import STAGE_COMMANDS
from tutelage.pipeline.interrupts import Terminated, TimeLimitReached

COMMANDS = [
    "run",
    "resume",
    "plan",
    *STAGE_COMMANDS,
    "judge",
    "serve-reward",
    "annotate",
    "guard",
    "report",
    "compare",
    "validate",
    "config",
    "reward",
    "feedback",
    "constitution",
    "lab",
]


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TutelageError("x"), 1),
        (errors.GenerationError("x"), 1),
        (errors.ConfigError("x"), 2),
        (errors.DataError("x"), 2),
        (errors.ModelError("x"), 2),
        (errors.TrainingError("x"), 3),
        (errors.CheckpointError("x"), 4),
        (errors.StallError("x"), 5),
        (TimeLimitReached("x"), 124),
        (KeyboardInterrupt("x"), 130),
        (Terminated("x"), 143),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_is_one_message_and_an_exit_code(capsys, error, code):
    assert guard(raising(error)) == code
    assert capsys.readouterr().err == "tutelage: x\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_interrupt_reaches_the_user_through_the_app(capsys, error, code):
    app = build_app()
    app.command(raising(error("stopped here")), name="stop")
    assert guard(lambda: call(app, ["stop"])) == code
    assert capsys.readouterr().err == "tutelage: stopped here\n"


def test_interrupt_while_libraries_are_imported_is_one_line():
    program = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'cyclopts':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from tutelage.cli import main\n"
        "sys.exit(main(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "tutelage: interrupted\n")


def test_success_is_zero_and_a_number_is_passed_on():
    assert guard(lambda: "done") == 0
    assert guard(lambda: 2) == 2


def test_traceback_is_shown_only_where_asked_for(capsys, monkeypatch):
    assert guard(raising(RuntimeError("surprise"))) == 1
    brief = capsys.readouterr().err
    assert (
        brief == "tutelage: unexpected RuntimeError: surprise; TUTELAGE_DEBUG=1 shows the "
        "traceback\n"
    )
    monkeypatch.setenv("TUTELAGE_DEBUG", "1")
    guard(raising(errors.ConfigError("x")))
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_a_sentence_an_example_and_exit_codes(capsys, command):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: tutelage {command}" in shown
    assert f"Example: tutelage {command} " in " ".join(shown.split())
    assert "Exit codes: 0 success" in shown


def test_help_lists_the_commands_in_the_order_of_the_pipeline(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    places = [shown.index(f"│ {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_every_exit_code_is_documented(capsys):
    main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    classes = [getattr(errors, name) for name in errors.__all__]
    for code in {0, 130, 143, *(error.exit_code for error in classes)}:
        assert f" {code} " in shown


def test_version_is_the_package_version(capsys):
    from importlib import metadata

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == metadata.version("tutelage")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], 'Unknown command "runn". Did you mean "run"?'),
        (["sft", "--output", "x", "--epoch", "2"], "Did you mean --epochs?"),
        (["sft", "--output", "x", "--epochs", "two"], "Invalid value for --epochs"),
        (["label", "--output", "x", "--annotator", "judges"], "judge"),
        (["run"], "requires an argument"),
        (["compare"], "no run to compare"),
        (["validate"], "no file to check"),
        (["config"], "no recipe"),
    ],
)
def test_wrong_option_is_one_short_message_and_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 3


@pytest.mark.parametrize("arguments", [["--help"], ["sft", "--help"], ["validate", "{data}"]])
def test_help_and_validation_do_not_import_what_is_heavy(tmp_path, arguments):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"id": "1", "prompt": [{"role": "user", "content": "hello"}]}\n')
    program = (
        "import sys\n"
        "from tutelage.cli import main\n"
        f"code = main({[argument.format(data=data) for argument in arguments]!r})\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "config"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tutelage: no recipe")


def test_reader_that_stops_reading_is_no_error(tmp_path):
    program = f"{sys.executable} -m tutelage config --reference | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True)
    assert done.stdout == "# Configuration reference\n"
    assert done.stderr == ""


def test_commands_of_the_app_are_the_documented_ones():
    assert [name for name in build_app() if not name.startswith("-")] == COMMANDS
