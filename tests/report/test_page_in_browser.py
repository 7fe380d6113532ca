"""The page in a real browser: no console message, no request, nothing wider than a phone, and paper to print on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from audit_result import SVG, audit_result

from medvlm_probe.report.audit_page import audit_page

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip
OUTSIDE = "http://outside.invalid/x.png"


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("needs a browser (Debian's chromium), which is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "audit.html"
    path.write_text(audit_page(audit_result(), {"shift": SVG, "performance": SVG}, title="Audit"), encoding="utf-8")
    return path


def run(browser: str, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    profile = page.parent / "profile"
    command = [browser, *QUIET, f"--user-data-dir={profile}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def console_and_requests(browser: str, page: Path) -> tuple[list[str], list[str]]:
    log = page.with_suffix(".netlog.json")
    done = run(browser, page, "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    urls = re.findall(r'"url":\s*"(https?://[^"]+)"', json.dumps(json.loads(log.read_text())))
    return console, sorted({url for url in urls if "outside.invalid" in url or page.name in url})


def test_no_console_message_and_no_request(browser: str, page: Path) -> None:
    assert console_and_requests(browser, page) == ([], [])


def test_the_policy_stops_what_a_page_would_load_or_run(browser: str, page: Path) -> None:
    """The check above sees what it looks for: planted content is stopped by the policy, and loads without it."""
    planted = f'<img alt="" src="{OUTSIDE}"><script>console.log("ran")</script>'
    held = page.with_name("held.html")
    held.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{planted}</main>"), encoding="utf-8")
    console, requests = console_and_requests(browser, held)
    assert requests == []
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
    free = page.with_name("free.html")
    free.write_text(f"<!DOCTYPE html><title>x</title>{planted}", encoding="utf-8")
    console, requests = console_and_requests(browser, free)
    assert requests == [OUTSIDE]
    assert any("ran" in line for line in console)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: str, page: Path, width: int) -> None:
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(
        f"<!DOCTYPE html><title>x</title><iframe src='{page.name}' style='width: {width}px; height: 800px; border: 0'"
        " onload='const e = this.contentDocument.documentElement; document.title = `${e.clientWidth} "
        "${e.scrollWidth} ${this.contentDocument.querySelectorAll(`table`).length}`'></iframe>",
        encoding="utf-8",
    )
    dom = run(browser, frame, "--allow-file-access-from-files", "--virtual-time-budget=2000", "--dump-dom").stdout
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom)
    assert found
    client, scroll, tables = map(int, found.groups())
    assert width - 20 <= client <= width
    assert scroll <= client
    assert tables > 5


def test_it_prints(browser: str, page: Path) -> None:
    pdf = page.with_suffix(".pdf")
    run(browser, page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    pages = re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())
    assert 3 <= len(pages) <= 20
