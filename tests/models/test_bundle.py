"""Local folders: what loads, what is refused, and that nothing leaves the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medvlm_probe.errors import ModelError
from medvlm_probe.models import load_model
from medvlm_probe.models.bundle import CONFIG_NAME, inside, read_bundle


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def with_local_towers(bundle: Path) -> None:
    """Name both towers by relative folders, as phantom-clip and dino-minilm do."""
    timm_config = {"architecture": "test_vit", "num_classes": 0, "model_args": {"img_size": 160}, "pretrained_cfg": {}}
    (bundle / "vision").mkdir()
    (bundle / "vision" / "config.json").write_text(json.dumps(timm_config))

    def change(content: dict[str, Any]) -> None:
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = "local-dir:vision"
        content["model_cfg"]["text_cfg"] |= {"hf_model_name": "text", "hf_tokenizer_name": "text"}

    edit_json(bundle / CONFIG_NAME, change)


@pytest.mark.usefixtures("no_network")
def test_published_files_with_a_text_folder_load_with_no_network(biomedclip_bundle: Path) -> None:
    model = load_model(f"local:{biomedclip_bundle}")
    assert model.name == "local:BiomedCLIP"
    assert model.encode_texts(["normal chest x ray"]).shape == (1, 16)


@pytest.mark.usefixtures("no_network")
def test_relative_towers_load_from_any_folder(
    biomedclip_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = load_model(f"local:{biomedclip_bundle}")
    with_local_towers(biomedclip_bundle)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    by_folder = load_model("local:../BiomedCLIP")
    batch = torch.randn(1, 3, 160, 160)
    assert torch.equal(by_name.encode_images(batch), by_folder.encode_images(batch))
    assert by_folder.name == "local:BiomedCLIP"


@pytest.mark.usefixtures("no_network")
def test_a_bert_configuration_in_the_root_is_found(biomedclip_bundle: Path) -> None:
    (biomedclip_bundle / "text" / "config.json").rename(biomedclip_bundle / "config.json")
    assert read_bundle(biomedclip_bundle).tower_configs["text"] == biomedclip_bundle / "config.json"
    load_model(f"local:{biomedclip_bundle}")


@pytest.mark.usefixtures("no_network")
def test_missing_text_configuration_says_which_file_to_add(biomedclip_bundle: Path) -> None:
    shutil.rmtree(biomedclip_bundle / "text")
    with pytest.raises(ModelError, match=r"add text/config\.json \(the config\.json of 'microsoft/BiomedNLP"):
        load_model(f"local:{biomedclip_bundle}")


@pytest.mark.parametrize("where", [".", "text", "tokenizer"])
def test_tokenizer_is_found_in_its_usual_places(biomedclip_bundle: Path, where: str) -> None:
    folder = biomedclip_bundle / where
    folder.mkdir(exist_ok=True)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.move(biomedclip_bundle / name, folder / name)
    assert read_bundle(biomedclip_bundle).tokenizer == folder


def test_missing_tokenizer_says_which_files_to_add(biomedclip_bundle: Path) -> None:
    (biomedclip_bundle / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"No tokenizer in .*: add tokenizer\.json or vocab\.txt"):
        load_model(f"local:{biomedclip_bundle}")


@pytest.mark.parametrize("name", ["/etc", "../other", "text/../../other", "~/other", "C:\\models", "..\\other"])
@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name", "timm_model_name"])
def test_places_outside_the_folder_are_refused(biomedclip_bundle: Path, key: str, name: str) -> None:
    def change(content: dict[str, Any]) -> None:
        section = "vision_cfg" if key.startswith("timm") else "text_cfg"
        content["model_cfg"][section][key] = f"local-dir:{name}" if key.startswith("timm") else name

    edit_json(biomedclip_bundle / CONFIG_NAME, change)
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(f"local:{biomedclip_bundle}")


def test_inside_keeps_relative_paths(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b") == tmp_path / "a" / "b"
    assert inside(tmp_path, ".") == tmp_path


@pytest.mark.usefixtures("no_network")
def test_an_image_tower_on_the_hub_is_refused(biomedclip_bundle: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:timm/test_vit.r160_in1k"

    edit_json(biomedclip_bundle / CONFIG_NAME, change)
    with pytest.raises(ModelError, match=r"elsewhere, 'hf-hub:timm/.*local-dir:vision"):
        load_model(f"local:{biomedclip_bundle}")


@pytest.mark.parametrize("place", ["text/config.json", "tokenizer_config.json"])
def test_code_from_outside_is_refused(biomedclip_bundle: Path, place: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["auto_map"] = {
            "AutoConfig": "evil.Config",
            "AutoModel": "evil.Model",
            "AutoTokenizer": ["evil.T", None],
        }

    (biomedclip_bundle / "text" / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(biomedclip_bundle / place, change)
    with pytest.raises(ModelError, match="auto_map"):
        load_model(f"local:{biomedclip_bundle}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: (folder / CONFIG_NAME).unlink(), r"no model of a known kind\. Expected open_clip_config\.json"),
        (lambda folder: (folder / CONFIG_NAME).write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / CONFIG_NAME).write_text("[]"), "expected a JSON object"),
        (lambda folder: (folder / CONFIG_NAME).write_text('{"model_cfg": {}}'), "no 'model_cfg' with embed_dim"),
        (lambda folder: (folder / "open_clip_pytorch_model.bin").unlink(), r"No weights in .* found none"),
        (lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe\x00"), "tokenizer of local:BiomedCLIP"),
    ],
    ids=["no folder", "no configuration", "cut JSON", "a list", "empty configuration", "no weights", "bad vocabulary"],
)
def test_damaged_folders_say_what_is_wrong(
    biomedclip_bundle: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(biomedclip_bundle)
    with pytest.raises(ModelError, match=message):
        load_model(f"local:{biomedclip_bundle}")


@pytest.mark.parametrize(
    "change",
    [
        lambda cfg: cfg["vision_cfg"].update(no_such_key=1),
        lambda cfg: cfg["vision_cfg"].update(timm_model_name="no_such_vit"),
        lambda cfg: cfg["text_cfg"].update(hf_pooler_type="no_such_pooler"),
        lambda cfg: cfg.update(embed_dim="wide"),
    ],
    ids=["unknown key", "unknown image tower", "unknown pooler", "bad number"],
)
def test_configurations_that_open_clip_cannot_build(
    biomedclip_bundle: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_json(biomedclip_bundle / CONFIG_NAME, lambda content: change(content["model_cfg"]))
    with pytest.raises(ModelError, match="open_clip cannot build local:BiomedCLIP"):
        load_model(f"local:{biomedclip_bundle}")


def test_captioning_models_are_refused(native_bundle: Path) -> None:
    edit_json(native_bundle / CONFIG_NAME, lambda content: content["model_cfg"].update(multimodal_cfg={}))
    with pytest.raises(ModelError, match="CoCa"):
        load_model(f"local:{native_bundle}")


def test_safetensors_come_before_torch_files(native_bundle: Path) -> None:
    torch.save({}, native_bundle / "open_clip_pytorch_model.bin")
    assert read_bundle(native_bundle).weights == native_bundle / "open_clip_model.safetensors"


def test_an_only_safetensors_file_of_any_name_is_taken(native_bundle: Path) -> None:
    (native_bundle / "open_clip_model.safetensors").rename(native_bundle / "mine.safetensors")
    assert read_bundle(native_bundle).weights == native_bundle / "mine.safetensors"
    shutil.copy(native_bundle / "mine.safetensors", native_bundle / "other.safetensors")
    with pytest.raises(ModelError, match=r"found mine\.safetensors, other\.safetensors"):
        read_bundle(native_bundle)


def fingerprint(folder: Path) -> str:
    return load_model(f"local:{folder}").fingerprint


def test_fingerprint_follows_the_content_alone(biomedclip_bundle: Path, tmp_path: Path) -> None:
    first = fingerprint(biomedclip_bundle)
    copy = tmp_path / "copy"
    shutil.copytree(biomedclip_bundle, copy)
    (copy / "README.md").write_text("about")
    assert fingerprint(copy) == first

    weights = torch.load(copy / "open_clip_pytorch_model.bin", weights_only=True)
    weights["visual.head.proj.weight"][0, 0] += 1
    torch.save(weights, copy / "open_clip_pytorch_model.bin")
    assert fingerprint(copy) != first


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (CONFIG_NAME, lambda content: content["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5])),
        (CONFIG_NAME, lambda content: content["model_cfg"]["text_cfg"].update(context_length=31)),
        ("text/config.json", lambda content: content.update(layer_norm_eps=1e-5)),
        ("tokenizer_config.json", lambda content: content.update(do_lower_case=False)),
    ],
    ids=["image transform", "context length", "text tower", "tokenizer"],
)
def test_fingerprint_changes_with(
    biomedclip_bundle: Path, file: str, change: Callable[[dict[str, Any]], object]
) -> None:
    first = fingerprint(biomedclip_bundle)
    edit_json(biomedclip_bundle / file, change)
    assert fingerprint(biomedclip_bundle) != first


def test_float16_weights_are_computed_in_float32(native_bundle: Path) -> None:
    full = load_model(f"local:{native_bundle}")
    path = native_bundle / "open_clip_model.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    stored_half = load_model(f"local:{native_bundle}")
    assert {p.dtype for p in stored_half.module.parameters()} == {torch.float32}  # type: ignore[attr-defined]
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(stored_half.encode_images(batch), full.encode_images(batch), rtol=0.02, atol=0.02)
    assert stored_half.fingerprint != full.fingerprint


def test_loading_leaves_the_callers_random_numbers_alone(native_bundle: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_model(f"local:{native_bundle}")
    assert torch.equal(torch.rand(3), expected)
