"""The console script itself: help, version, exit codes."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer

from medvlm_probe import __version__, runs
from medvlm_probe.cli import completion
from medvlm_probe.cli.main import app

from .conftest import Run

Words = tuple[str, ...]


def every_command(command: click.Command, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """Yield each command with its words, groups too."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*path, name))


COMMANDS = dict(every_command(typer.main.get_command(app)))
EXAMPLES = [
    (words, line.partition("medvlm-probe ")[2])
    for words, command in COMMANDS.items()
    for line in inspect.cleandoc(command.help or "").splitlines()
    if line.startswith("Example: ")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_every_command_shows_an_example() -> None:
    groups = {words for words, command in COMMANDS.items() if not getattr(command, "invoke_without_command", False)}
    groups = {words for words in groups if hasattr(COMMANDS[words], "commands")}
    assert set(COMMANDS) - groups == {words for words, _ in EXAMPLES}


@pytest.mark.parametrize(("words", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_examples_are_commands_that_there_are(words: Words, example: str) -> None:
    arguments = shlex.split(example)
    assert tuple(arguments[: len(words)]) == words
    command = COMMANDS[words]
    context = click.Context(command, info_name=example)
    if not hasattr(command, "commands"):
        command.parse_args(context, arguments[len(words) :])


def test_the_shell_completes_models_and_labels() -> None:
    assert completion.labels("card") == ["cardiomegaly"]
    assert {"biomedclip", "phantom-clip", "local:"} <= set(completion.models(""))
    assert completion.models("bio") == ["biomedclip"]


def test_the_shells_script_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MEDVLM_PROBE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "medvlm-probe zero-shot --label card")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run().out.split() == ["cardiomegaly"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['medvlm-probe', 'embed-dist', '--help']\n"
        "from medvlm_probe.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'open_clip', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(run: Run) -> None:
    assert run("--version").out.strip() == f"medvlm-probe {__version__}"


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "medvlm_probe", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"medvlm-probe {__version__}")


def test_unknown_command_is_bad_usage(run: Run) -> None:
    assert run("embed-dits").code == 2


def test_our_faults_end_with_1_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(runs, "open_run", broken)
    done = run("embed", "--cohort", "phantom:n=1")
    assert done.code == 1
    assert "RuntimeError" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(RuntimeError):
        run("embed", "--cohort", "phantom:n=1", "--verbose")
