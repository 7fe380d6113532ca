"""The console script itself: help, version, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medvlm_probe import __version__, runs

from .conftest import Run

COMMANDS = [
    [],
    ["embed-dist"],
    ["zero-shot"],
    ["calibration"],
    ["figures"],
    ["project"],
    ["fine-tune"],
    ["label-reports"],
    ["label-agreement"],
    ["linear-probe"],
    ["embed"],
    ["export"],
    ["cohort"],
    ["cohort", "check"],
    ["cohort", "import"],
    ["cohort", "split"],
    ["models"],
    ["prompts"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.code == 0
    assert "Usage" in done.out


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
