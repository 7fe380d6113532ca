"""Every command of the README works as pasted; every file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pasted import POLICY_FAILED, run_line

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)


def test_the_three_jobs_are_there() -> None:
    assert len(BLOCKS) == 3
    assert all(line.startswith("medvlm-probe ") for block in BLOCKS for line in block.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=["researcher", "author", "hospital"])
def test_commands_work_as_pasted(
    number: int,
    tmp_path: Path,
    pasted_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(pasted_cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    for line in BLOCKS[number].splitlines():
        code = run_line(line, monkeypatch)
        printed = capsys.readouterr()
        expected = POLICY_FAILED if line.startswith("medvlm-probe audit") else 0
        assert code == expected, f"{line}\n{printed.err}"
        assert (printed.out + printed.err).strip()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (PROJECT / target).exists(), target


def test_make_does_what_the_readme_says() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    assert "medvlm-probe embed-dist --label cardiomegaly" in makefile
    assert "make demo" in README
    assert "make test" in README


def test_ci_runs_demo_checks_and_tests() -> None:
    ci = (PROJECT / ".ci" / "run").read_text()
    assert all(f"make {target}" in ci for target in ("demo", "check", "test"))


def test_benchmarks_named_in_the_readme_exist() -> None:
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        assert (PROJECT / f"{module.replace('.', '/')}.py").is_file()
