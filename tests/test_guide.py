"""Every command of the guide works as pasted, page by page; every link and picture is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from pasted import POLICY_FAILED, run_line

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDE = sorted((DOCS / "guide").glob("*.md"))
STEP = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<body>.*?)```", flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_commands_work_as_pasted(
    page: Path,
    tmp_path: Path,
    pasted_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDVLM_PROBE_CACHE", str(pasted_cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    for step in STEP.finditer(page.read_text()):
        body = step["body"]
        if step["file"]:
            Path(step["file"]).write_text(body)
        elif step["kind"] == "console":
            for line in body.splitlines():
                allowed = {0, POLICY_FAILED} if line.startswith("medvlm-probe audit") else {0}
                code = run_line(line, monkeypatch)
                printed = capsys.readouterr()
                assert code in allowed, f"{line}\n{printed.err}"
                assert (printed.out + printed.err).strip()
        elif step["kind"] == "python":
            Path("script.py").write_text(body)
            runpy.run_path("script.py")
            assert capsys.readouterr().out.strip()


def test_every_page_is_linked() -> None:
    linked = set(re.findall(r"\]\((guide/\w+\.md|\w+\.md)\)", (DOCS / "README.md").read_text()))
    assert {str(page.relative_to(DOCS)) for page in PAGES} - {"README.md"} == linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_commands_named_in_passing_exist() -> None:
    import typer

    from medvlm_probe.cli.main import app

    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for page in PAGES:
        for name in re.findall(r"(?:^|`)medvlm-probe ([a-z][a-z-]*)", page.read_text(), flags=re.MULTILINE):
            assert name in names, f"{page.name}: {name}"
