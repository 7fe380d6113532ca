"""`medvlm-probe doctor`: each check by itself, and the command, which ends with 2 where something fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from medvlm_probe.cli import doctor_checks as machine
from medvlm_probe.cli import doctor_inputs as inputs
from medvlm_probe.errors import ModelError

from .conftest import Run


def test_python() -> None:
    assert machine.python_check((3, 11, 0)).status == "PASS"
    old = machine.python_check((3, 10, 9))
    assert old.status == "FAIL"
    assert "3.10.9" in old.found
    assert "3.11" in old.mend


def test_torch_and_torchvision_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.torch_check().status == "PASS"

    def missing(*arguments: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("torchvision.ops.nms", missing)
    broken = machine.torch_check()
    assert broken.status == "FAIL"
    assert "operator torchvision::nms does not exist" in broken.found
    assert "more" not in broken.found
    assert "torchvision" in broken.mend


def test_device() -> None:
    assert machine.device_check("cpu").status == "PASS"
    assert machine.device_check("cuda:97").status == "FAIL"


def test_dicom_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(uid: str) -> SimpleNamespace:
        return SimpleNamespace(is_available=uid not in machine.SYNTAXES["JPEG lossless"])

    monkeypatch.setattr("pydicom.pixels.decoders.base.get_decoder", decoder)
    found = machine.dicom_check()
    assert found.status == "WARN"
    assert found.found.endswith("not JPEG lossless")
    assert "medvlm-probe[dicom]" in found.mend


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    good = machine.cache_check(folder, n_bytes=1 << 16)
    assert "GB free" in good.found
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_text("")
    broken = machine.cache_check(tmp_path / "file" / "cache", n_bytes=16)
    assert broken.status == "FAIL"
    assert "MEDVLM_PROBE_CACHE" in broken.mend
    for free, status in ((1e12, "PASS"), (1e9, "WARN"), (1e8, "FAIL")):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=int(free)))
        monkeypatch.setattr(machine, "SLOW_DISK", 0.0)
        assert machine.cache_check(folder, n_bytes=1 << 16).status == status


@pytest.mark.parametrize(
    ("environment", "cores", "load", "status"),
    [
        ({}, 4, 0.5, "PASS"),
        ({}, 4, 9.0, "WARN"),
        ({"OMP_WAIT_POLICY": "passive"}, 4, 9.0, "PASS"),
        ({"OMP_NUM_THREADS": "8"}, 4, 0.5, "WARN"),
        ({"OMP_NUM_THREADS": "4,2"}, 4, None, "PASS"),
    ],
)
def test_threads(environment: dict[str, str], cores: int, load: float | None, status: str) -> None:
    check = machine.threads_check(environment, cores, load)
    assert check.status == status
    assert bool(check.mend) == (status != "PASS")


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for limit, status in ((256, "WARN"), (4096, "PASS"), (resource.RLIM_INFINITY, "PASS")):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert machine.open_files_check().status == status


def test_files_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert inputs.files_check("phantom-clip", offline=True).status == "PASS"
    assert inputs.files_check("local:anywhere", offline=True).status == "PASS"
    online = inputs.files_check("biomedclip", offline=False)
    assert (online.status, "784 MB" in online.found) == ("WARN", True)
    offline = inputs.files_check("biomedclip", offline=True)
    assert offline.status == "FAIL"
    assert "models vendor biomedclip" in offline.mend
    assert inputs.files_check("hf:owner/name", offline=True).status == "FAIL"
    assert inputs.files_check("biomedclp", offline=False).status == "FAIL"


def test_a_model_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ModelError("weights do not fit")

    monkeypatch.setattr("medvlm_probe.models.zoo.load_model", broken)
    (check,) = inputs.model_check("phantom-clip", "cpu", offline=True)
    assert check.status == "FAIL"
    assert check.found == "weights do not fit"


def write_cohort(folder: Path, broken: int) -> Path:
    folder.mkdir()
    rows = ["image,patient,cardiomegaly"]
    for number in range(4):
        name = f"MUSTERMANN_{number}.png"
        if number < broken:
            (folder / name).write_bytes(b"no image")
        else:
            Image.new("L", (64, 64), 10 * number).save(folder / name)
        rows.append(f"{name},MUSTERMANN^ERIKA,1")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


@pytest.mark.parametrize(("broken", "status"), [(0, "PASS"), (1, "WARN"), (4, "FAIL")])
def test_a_cohort_is_told_without_any_name(tmp_path: Path, broken: int, status: str) -> None:
    check = inputs.cohort_check(str(write_cohort(tmp_path / "cohort", broken)))
    assert check.status == status
    assert "4 images" in check.found
    assert "MUSTERMANN" not in f"{check}"


def test_a_manifest_that_cannot_be_read_names_no_cell(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,MUSTERMANN\na.png,MUSTERMANN\nb.png,MUSTERMANN,MUSTERMANN\n")
    check = inputs.cohort_check(str(tmp_path / "manifest.csv"))
    assert check.status == "FAIL"
    assert "MUSTERMANN" not in f"{check}"


def test_the_command(run: Run, tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "cohort", 1)
    done = run("doctor", "--device", "cpu", "--cohort", manifest)
    assert done.code == 0, done.out
    for name in ("Python", "torch", "DICOM", "cache", "offline", "precision", "cohort", "threads", "open files"):
        assert name in done.out
    assert "MUSTERMANN" not in done.out + done.err
    found = run("doctor", "--device", "cpu", "--json").json
    statuses = {check["name"]: check["status"] for check in found["checks"]}
    assert statuses["model"] == "PASS"
    assert all(bool(check["mend"]) == (check["status"] != "PASS") for check in found["checks"])


def test_the_command_fails_with_2(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    done = run("doctor", "--model", "biomedclip", "--offline", "--json")
    assert done.code == 2
    assert done.json["failed"] == 1


def test_the_command_on_a_changed_copy(run: Run, tmp_path: Path) -> None:
    assert run("models", "vendor", "phantom-clip", "--to", tmp_path / "copy").code == 0
    sound = run("doctor", "--model", f"local:{tmp_path / 'copy'}", "--device", "cpu", "--json")
    assert sound.code == 0
    assert "as locked" in next(c["found"] for c in sound.json["checks"] if c["name"] == "model files")
    with (tmp_path / "copy" / "open_clip_config.json").open("a") as file:
        file.write("\n")
    done = run("doctor", "--model", f"local:{tmp_path / 'copy'}", "--device", "cpu", "--json")
    assert done.code == 2
    assert [check["name"] for check in done.json["checks"] if check["status"] == "FAIL"] == ["model files"]
