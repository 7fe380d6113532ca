"""Names of models: the table, the schemes, entry points, and what is said of names that do not exist."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from medvlm_probe.errors import DeviceError, ModelError, UnknownNameError
from medvlm_probe.models import ZOO, LoadOptions, ModelSpec, known_models, load_model, zoo


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, medvlm_probe.models as m; m.known_models();"
        "heavy = {'torch', 'open_clip', 'transformers', 'timm', 'numpy', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_table_names_its_rows() -> None:
    assert all(name == spec.name for name, spec in ZOO.items())
    assert {"phantom-clip", "biomedclip"} <= ZOO.keys()
    with pytest.raises(FrozenInstanceError):
        ZOO["biomedclip"].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("biomed-clip", "Did you mean biomedclip"),
        ("phantom", "phantom-clip"),
        ("openclip:ViT-B-32/openai", "open_clip:"),
        ("zzz", "Known: .*biomedclip"),
    ],
)
def test_unknown_names_say_what_was_meant(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown model '{name}'.*{hint}"):
        load_model(name)


def test_unknown_architectures_and_weights_say_what_was_meant() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean .*ViT-B-32"):
        load_model("open_clip:ViT-B32/openai")
    with pytest.raises(UnknownNameError, match=r"Unknown weights for ViT-B-32 'opnai'\. Did you mean openai"):
        load_model("open_clip:ViT-B-32/opnai")
    with pytest.raises(ModelError, match="one of: openai, "):
        load_model("open_clip:ViT-B-32")


def without_weights(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    phantom_clip = replace(ZOO["phantom-clip"], source=f"shipped:{empty}")
    monkeypatch.setattr(zoo, "ZOO", {**ZOO, "phantom-clip": phantom_clip})


def test_missing_phantom_clip_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_weights(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match=r"phantom-clip's weights are missing.*Reinstall"):
        load_model()


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere does not exist"):
        load_model(f"local:{tmp_path / 'nowhere'}")


def test_the_device_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="Unknown device 'gpu'"):
        load_model(f"local:{tmp_path}", device="gpu")


def entry(name: str, loaded: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, value=f"third.party:{name}", load=lambda: loaded)


def with_entries(monkeypatch: pytest.MonkeyPatch, *entries: SimpleNamespace) -> None:
    def entry_points(*, group: str) -> tuple[SimpleNamespace, ...]:
        assert group == "medvlm_probe.models"
        return entries

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_entry_points_add_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[LoadOptions] = []
    made = object()

    def load(options: LoadOptions) -> object:
        asked.append(options)
        return made

    spec = ModelSpec(name="theirs", summary="", licence="", trained_on=(), load=load)  # type: ignore[arg-type]
    with_entries(monkeypatch, entry("theirs", spec))
    assert known_models().keys() == {*ZOO, "theirs"}
    assert load_model("theirs", device="cuda:3", cache_dir=tmp_path, offline=True) is made
    assert asked == [LoadOptions(device="cuda:3", cache_dir=tmp_path, offline=True)]
    with pytest.raises(UnknownNameError, match="Did you mean theirs"):
        load_model("their")


def test_entry_points_of_the_wrong_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entries(monkeypatch, entry("theirs", lambda: None))
    with pytest.raises(ModelError, match=r"theirs = third\.party:theirs is no ModelSpec"):
        load_model("theirs")
    with_entries(monkeypatch, entry("biomedclip", None))
    with pytest.raises(ModelError, match="takes the name 'biomedclip'"):
        load_model("theirs")


def test_a_built_in_model_does_not_need_sound_entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_entries(monkeypatch, entry("broken", None))
    without_weights(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match="phantom-clip's weights are missing"):
        load_model("phantom-clip")
