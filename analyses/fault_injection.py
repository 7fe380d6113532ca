"""Commands that are killed, that may not write, that run twice at once, and whose clock jumps: does anything get lost?

    nice -n 10 python analyses/fault_injection.py [--kills 18] [--only COMMAND] [--seed 0]

A process with everything imported parts into one for each command, on cohorts of 20 phantoms. For each command, first a
run that nothing disturbs; then, each in a folder of its own (half of them with a cache that holds the embeddings):

- `SIGTERM`, `SIGKILL`: a signal at a random moment of the run, by the processor's time; `in_time` counts those that
  ended it.
- `file size limit`: no file may grow beyond a random size, as on a full disk.
- `no space`: the folder is a file system of its own with little room (needs root; else left out).
- `read-only`: the folder is such a file system that takes nothing.
- `two at once`: two processes with one cache.
- `clock`: killed, then every file's time is set to 1980 or 2100.

After each, the same command runs again undisturbed. It has to end as the first did, with the same bytes in every file
but run.json, PNGs and pages; before that, a file under its final name is absent or whole, SIGTERM ends with 143 and one
line, and nothing prints a traceback. Writes figures/hardening/kills.csv: for each command and fault how many were
`injected`, how many `in_time`, and how many `failed`; prints why.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import importlib
import io
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

PROJECT = Path(__file__).resolve().parents[1]
OUT = PROJECT / "figures" / "hardening" / "kills.csv"
COLUMNS = ("command", "fault", "injected", "in_time", "failed")
PATIENCE = 120.0
UNEQUAL = {"run.json", "report.html", "audit.html", "monitor.json"}
"""Files with times in them, and the one that says whether a batch was counted by an earlier run."""

FILES = "../files/manifest.csv"
BALANCED = "phantom:prevalence=balanced,sites=reference,n=20,size=64"
AUDIT = ("--permutations", "99", "--opened", "4", "--precision", "float32")
COMMANDS: dict[str, tuple[str, ...]] = {
    "import": (
        "cohort", "import", "dicom", "../dicom", "--pseudonym-key", "../key", "--copy-images", "--out", "out/m.csv"
    ),
    "export": ("cohort", "export", "phantom:sites=reference,n=6,size=64", "--out", "out"),
    "embed": ("embed", "--cohort", FILES, "--out", "out"),
    "zero-shot": ("zero-shot", "--cohort", FILES, "--out", "out"),
    "report": ("report", "../zero-shot/out", "--out", "out/report.html"),
    "sketch": ("sketch", "--cohort", FILES, "--features", "64", "--out", "out/a.sketch"),
    "calibration": ("calibration", "--cohort", FILES, "--fit-from", "calib", "--method", "temperature", "--out", "out"),
    "tune": (
        "tune", "--cohort", BALANCED, "--train-from", "calib", "--label", "cardiomegaly", "--shots", "2",
        "--epochs", "3", "--context", "2", "--views", "1", "--seeds", "2", "--out", "out",
    ),
    "fine-tune": (
        "fine-tune", "--cohort", BALANCED, "--train-from", "calib", "--split", "test", "--epochs", "2",
        "--last-blocks", "1", "--out", "out",
    ),
    "grad-cam": (
        "grad-cam", "--cohort", BALANCED, "--label", "cardiomegaly", "--sample", "2", "--reference", "6",
        "--panels", "1", "--out", "out",
    ),
    "monitor": (
        "monitor", "--state", "out/state.jsonl", "--reference", FILES, "--batch", BALANCED, "--pseudonym-key", "../key",
        "--out", "out",
    ),
    "audit": (
        "audit", "--cohort", BALANCED.replace("reference", "community"), "--reference", FILES, *AUDIT,
        "--pseudonym-key", "../key", "--out", "out",
    ),
    "figures": ("figures", "radiology", "--cohort", FILES, "--no-fine-tune", "--out", "out"),
}  # fmt: skip
"""Each in a folder beside the inputs; `zero-shot` runs before `report` reads it."""


LATE = (
    "captum.attr", "matplotlib.pyplot", "matplotlib.backends.backend_svg", "matplotlib.backends.backend_agg", "seaborn",
    "open_clip", "pyarrow.parquet", "pyarrow.csv", "sklearn.metrics", "sklearn.linear_model", "transformers", "jinja2",
    "pydicom.encoders", "torch._dynamo", "scipy.stats", "transformers.models.bert.modeling_bert",
)  # fmt: skip
SHARES = {"report": 1.5, "calibration": 0.6, "monitor": 0.6, "tune": 0.6, "grad-cam": 0.6}
"""Kills against the others': fewer where a run is long."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (128 + signal where one killed it), what it printed, its processor seconds."""

    code: int
    printed: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Whole:
    """What an undisturbed run left: exit code, file to hash, and the processor seconds that it took."""

    code: int
    same: dict[str, str]
    seconds: float


def start(arguments: Sequence[str], folder: Path, before: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Run a command in a folder, with its cache there, in a child; return it, and where its words can be read."""
    folder.mkdir(exist_ok=True)
    words, own = os.pipe()
    child = os.fork()
    if child:
        os.close(own)
        return child, words
    code = 1
    try:
        os.dup2(own, 1)
        os.dup2(own, 2)
        os.chdir(folder)
        os.environ["MEDVLM_PROBE_CACHE"] = str(folder / "cache")
        before()
        sys.argv = ["medvlm-probe", *arguments]
        from medvlm_probe.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_of(started: tuple[int, int], kill: tuple[float, int] | None = None) -> Ended:
    """Wait for a child, send it a signal after some seconds of the processor, and return how it ended."""
    child, words = started
    began = time.monotonic()
    sent = False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if kill is not None and not sent and _processor_seconds(child) >= kill[0]:
            os.kill(child, kill[1])
            sent = True
        if time.monotonic() - began > PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    with os.fdopen(words, errors="replace") as file:
        printed = file.read()
    code = os.waitstatus_to_exitcode(status)
    return Ended(128 - code if code < 0 else code, printed, used.ru_utime + used.ru_stime)


def _processor_seconds(child: int) -> float:
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(name: str, folder: Path, *, kill: tuple[float, int] | None = None, **options: Callable[[], None]) -> Ended:
    return end_of(start(COMMANDS[name], folder, **options), kill)


def hashes(folder: Path) -> dict[str, str]:
    """Return file to hash, without files written aside, and those with times or pictures' own notes in them."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    kept = (path for path in files if path.name not in UNEQUAL and path.suffix != ".png")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def faults_of(again: Ended, whole: Whole, folder: Path) -> Iterator[str]:
    """Yield what is wrong after the undisturbed rerun; that a cohort exists is right where it is whole."""
    if again.code != whole.code and not (
        again.code == 2 and ("exists." in again.printed or "already" in again.printed)
    ):
        yield f"the rerun ended with {again.code}: {again.printed[-300:]}"
    if "Traceback" in again.printed:
        yield "the rerun printed a traceback"
    found = hashes(folder)
    unequal = sorted(name for name, digest in whole.same.items() if found.get(name) != digest)
    if unequal:
        yield f"other bytes after the rerun: {', '.join(unequal[:4])}"


def half_written(folder: Path, whole: Whole) -> Iterator[str]:
    """Yield files under a name of the undisturbed run with other bytes; a monitor's state may end early."""
    for name, digest in hashes(folder).items():
        if whole.same.get(name, digest) != digest and not name.endswith(".jsonl"):
            yield f"half-written: {name}"


def signalled(name: str, folder: Path, whole: Whole, chance: random.Random, signum: int) -> tuple[bool, list[str]]:
    ended = run(name, folder, kill=(chance.uniform(0, whole.seconds), signum))
    in_time = ended.code == 128 + signum
    wrong = list(half_written(folder, whole))
    if not in_time and ended.code != whole.code:
        wrong.append(f"ended with {ended.code}: {ended.printed[-300:]}")
    if in_time and signum == signal.SIGTERM and ended.printed.count("Terminated.") > 1:
        wrong.append("more than one line at the end")
    if "Traceback" in ended.printed or "Exception ignored" in ended.printed:
        wrong.append(f"a traceback: {ended.printed[-600:]}")
    return in_time, wrong + list(faults_of(run(name, folder), whole, folder))


def limited(name: str, folder: Path, whole: Whole, chance: random.Random) -> tuple[bool, list[str]]:
    most = int(2 ** chance.uniform(4, 17))

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    ended = run(name, folder, before=before)
    wrong = [] if ended.code in (whole.code, 2) else [f"ended with {ended.code}: {ended.printed[-300:]}"]
    wrong += ["a traceback"] if "Traceback" in ended.printed else []
    wrong += half_written(folder, whole)
    return ended.code == 2, wrong + list(faults_of(run(name, folder), whole, folder))


def without_space(
    name: str, folder: Path, whole: Whole, chance: random.Random, options: str = ""
) -> tuple[bool, list[str]]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    options = options or f"size={int(2 ** chance.uniform(2, 7))}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        ended = run(name, folder)
        wrong = [] if ended.code in (whole.code, 2) else [f"ended with {ended.code}: {ended.printed[-300:]}"]
        wrong += ["a traceback"] if "Traceback" in ended.printed else []
        wrong += half_written(folder, whole)
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(folder)], check=True)
        return ended.code == 2, wrong + list(faults_of(run(name, folder), whole, folder))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def read_only(name: str, folder: Path, whole: Whole, chance: random.Random) -> tuple[bool, list[str]]:
    return without_space(name, folder, whole, chance, "ro")


def two_at_once(name: str, folder: Path, whole: Whole, chance: random.Random) -> tuple[bool, list[str]]:
    other = folder.with_name(f"{folder.name}-other")
    other.mkdir()
    folder.mkdir(exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    (other / "cache").symlink_to(folder / "cache")
    children = [start(COMMANDS[name], place) for place in (folder, other)]
    wrong = [fault for child in children for fault in faults_of(end_of(child), whole, folder)]
    found = {name: digest for name, digest in hashes(other).items() if not name.startswith("cache")}
    expected = {name: digest for name, digest in whole.same.items() if not name.startswith("cache")}
    if not expected.items() <= found.items():
        wrong.append("the second process left other bytes")
    shutil.rmtree(other)
    return True, wrong


def jumped(name: str, folder: Path, whole: Whole, chance: random.Random) -> tuple[bool, list[str]]:
    ended = run(name, folder, kill=(chance.uniform(0, whole.seconds), signal.SIGKILL))
    when = chance.choice((315_532_800, 4_102_444_800))
    for path in folder.rglob("*"):
        os.utime(path, (when, when), follow_symlinks=False)
    return ended.code == 137, list(faults_of(run(name, folder), whole, folder))


Fault = Callable[[str, Path, Whole, random.Random], tuple[bool, list[str]]]


def undisturbed(name: str, home: Path) -> tuple[Whole, Path]:
    """Run a command twice; what differs between the two is left out of what has to be equal."""
    first, second = home / name, home / f"{name}-again"
    ended = run(name, first)
    again = run(name, second)
    if ended.code not in (0, 3) or again.code != ended.code:
        raise SystemExit(f"{name} ended with {ended.code} and {again.code}: {ended.printed[-1500:]}")
    a, b = hashes(first), hashes(second)
    unequal = sorted(path for path in a.keys() | b.keys() if a.get(path) != b.get(path))
    if unequal:
        print(f"    two undisturbed runs of {name} differ in {', '.join(unequal)}", flush=True)
    same = {path: digest for path, digest in a.items() if path not in unequal}
    shutil.rmtree(second)
    return Whole(ended.code, same, max(ended.seconds, again.seconds)), first / "cache"


def prepare(home: Path) -> None:
    """Write the inputs of all commands beside their folders."""
    for arguments in (
        ("cohort", "export", "phantom:sites=reference,n=20,prevalence=balanced,seed=5,size=64", "--out", "files"),
        ("cohort", "export", "phantom:n=4,sites=reference,size=64", "--format", "dicom", "--out", "dicom"),
    ):
        ended = end_of(start(arguments, home))
        if ended.code:
            raise SystemExit(ended.printed)
    (home / "key").write_text("ab" * 32 + "\n")
    (home / "key").chmod(0o644)


def import_everything() -> None:
    """Import what commands import late, so that a child begins with its work."""
    import medvlm_probe

    ours = [found.name for found in pkgutil.walk_packages(medvlm_probe.__path__, "medvlm_probe.")]
    for name in (*LATE, *ours):
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.freeze()


def keep(rows: Sequence[tuple[str, str, int, int, int]]) -> None:
    """Write the rows, beside those that the file has of other commands."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open(newline="") if OUT.exists() else io.StringIO() as file:
        others = [row for row in list(csv.reader(file))[1:] if row[0] not in {row[0] for row in rows}]
    order = list(COMMANDS)
    with OUT.open("w", newline="") as file:
        table = sorted([*others, *rows], key=lambda row: order.index(str(row[0])))
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=18, help="for most commands, half of them SIGTERM; see SHARES")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, help="these commands; others keep their rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mount", action="store_true")
    parser.add_argument("--only-kills", action="store_true")
    given = parser.parse_args()
    import_everything()
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    prepare(home)
    rows: list[tuple[str, str, int, int, int]] = []
    for name in COMMANDS:
        if given.only and name not in given.only:
            if name == "zero-shot" and "report" in given.only:
                undisturbed(name, home)
            continue
        whole, cache = undisturbed(name, home)
        kills = round(given.kills * SHARES.get(name, 0.3 if name in ("fine-tune", "audit", "figures") else 1))
        half = kills // 2
        plan: list[tuple[str, int, Fault]] = [
            ("SIGTERM", half, lambda *a: signalled(*a, signal.SIGTERM)),
            ("SIGKILL", kills - half, lambda *a: signalled(*a, signal.SIGKILL)),
            ("file size limit", max(1, kills // 8), limited),
            ("no space", 0 if given.no_mount or os.getuid() else max(1, kills // 12), without_space),
            ("read-only", 0 if given.no_mount or os.getuid() else 1, read_only),
            ("two at once", 0 if name == "monitor" else max(1, kills // 12), two_at_once),
            ("clock", max(1, kills // 12), jumped),
        ]
        for fault, n, inject in plan[:2] if given.only_kills else plan:
            chance = random.Random(f"{given.seed} {name} {fault}")
            in_time = failed = 0
            for number in range(n):
                folder = home / f"{name}-{fault.replace(' ', '-')}-{number}"
                if number % 2 and cache.is_dir():
                    shutil.copytree(cache, folder / "cache")
                hit, wrong = inject(name, folder, whole, chance)
                in_time, failed = in_time + hit, failed + bool(wrong)
                for fact in wrong:
                    print(f"    {name}, {fault} {number}: {fact}", flush=True)
                shutil.rmtree(folder)
            rows.append((name, fault, n, in_time, failed))
            print(*rows[-1], f"({whole.seconds:.1f} s a run)", sep=", ", flush=True)
        if name != "zero-shot":
            shutil.rmtree(home / name)
        keep(rows)
    shutil.rmtree(home)
    total, kills = sum(row[2] for row in rows), sum(row[2] for row in rows if row[1].startswith("SIG"))
    print(f"{total} faults, {kills} of them kills; {sum(row[4] for row in rows)} failed")


if __name__ == "__main__":
    main()
