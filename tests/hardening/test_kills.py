"""Commands that are killed while they write: nothing half-written, and the rerun ends with the same bytes.

`analyses/fault_injection.py` does this to all commands at random moments.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medvlm_probe import runs
from medvlm_probe.cli.main import main

COMMANDS: dict[str, tuple[str, ...]] = {
    "export": ("cohort", "export", "phantom:sites=reference,n=2,size=32", "--out", "out"),
    "import": ("cohort", "import", "../files", "--copy-images", "--out", "out/manifest.csv"),
}
LATE = (
    "medvlm_probe.cohort.phantom_export",
    "medvlm_probe.cohort.write_manifest",
    "medvlm_probe.cohort.phantom.render",
    "pyarrow.csv",
)
Ended = tuple[int, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    for name in LATE:  # once here, not in every child
        importlib.import_module(name)
    arguments = ("cohort", "export", "phantom:sites=reference,n=2,size=32,prevalence=balanced", "--out", "files")
    assert ended(arguments, folder)[0] == 0
    for name, command in COMMANDS.items():
        assert ended(command, folder / f"{name}-whole")[0] == 0
    return folder


def ended(arguments: tuple[str, ...], folder: Path, before: Callable[[], None] = lambda: None) -> Ended:
    """Run a command in a child of this process; return its exit code (minus a signal) and what it printed."""
    folder.mkdir(exist_ok=True)
    words, own = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(own, 1)
            os.dup2(own, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(folder)
            before()
            sys.argv = ["medvlm-probe", *arguments]
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(own)
    with os.fdopen(words) as file:
        printed = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed


def content(folder: Path, *, hidden: bool = False) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and (hidden or not path.name.startswith(".")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def at_sync(n: int, act: Callable[[], None]) -> Callable[[], None]:
    """Do something in place of the nth sync: odd ones are of a file before its name, even ones of its folder after."""

    def patch() -> None:
        done = 0
        real = os.fsync

        def fsync(descriptor: int) -> None:
            nonlocal done
            done += 1
            if done == n:
                act()
            real(descriptor)

        os.fsync = fsync

    return patch


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("n", [1, 4, -3])
def test_a_killed_command_goes_on_to_the_same_bytes(command: str, n: int, signum: signal.Signals, home: Path) -> None:
    place = home / f"{command}-{n}-{signum.name}"
    whole = content(home / f"{command}-whole")
    n_syncs = 2 * len(whole) + 1 if n < 0 else 0
    code, printed = ended(COMMANDS[command], place, at_sync(n_syncs + n, lambda: os.kill(os.getpid(), signum)))
    assert code == (143 if signum == signal.SIGTERM else -signal.SIGKILL)
    assert "Traceback" not in printed
    assert printed.count("Terminated. What was finished is kept") == (signum == signal.SIGTERM)
    left = content(place)
    assert left.items() <= whole.items()
    assert "out/manifest.csv" not in left or len(left) == len(whole)
    if signum == signal.SIGTERM:
        assert content(place, hidden=True) == left
    again, said = ended(COMMANDS[command], place)
    assert again == 0 or ("out/manifest.csv" in left and again == 2), said
    assert content(place) == whole


def test_a_full_disk_ends_in_words(home: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    code, printed = ended(COMMANDS["export"], home / "full", at_sync(5, full))
    assert code == 2
    assert "No space left on device. Free space" in printed
    assert content(home / "full", hidden=True) == content(home / "full")


def test_sigterm_is_as_before_after_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["medvlm-probe", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert signal.getsignal(signal.SIGTERM) is before


def test_clocks_that_jump_change_nothing(tmp_path: Path) -> None:
    for when in (315_532_800, 4_102_444_800):
        runs.write_json(tmp_path / "a.json", {"a": 1})
        os.utime(tmp_path / "a.json", (when, when))
        runs.write_json(tmp_path / "a.json", {"a": 2})
        assert (tmp_path / "a.json").read_text() == '{\n  "a": 2\n}\n'
