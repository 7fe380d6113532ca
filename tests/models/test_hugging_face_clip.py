"""Hugging Face's CLIP folders against transformers' own forward pass, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face_folders import (
    LATER_PROCESSOR,
    edit_json,
    small_clip_config,
    write_clip_folder,
    write_clip_tokenizer,
    write_json,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from medvlm_probe.errors import ModelError
from medvlm_probe.models.hugging_face_clip import load_clip_folder

CPU = torch.device("cpu")
TEXTS = ["normal chest x ray.", "no pneumonia", "", "A photo of a chest X-ray, naïve & 3mm"]


class Touches:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def load(folder: Path) -> Any:
    return load_clip_folder(folder, "small", CPU)


def assert_equals_own_forward(folder: Path, theirs: CLIPModel, size: int) -> None:
    """Embeddings before normalisation, normalised ones and logits, all from transformers' own calls."""
    model = load(folder)
    inputs = CLIPTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    batch = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images, texts = model.encode_images(batch), model.encode_texts(TEXTS)
        out = theirs(**inputs, pixel_values=batch)
        raw_images = theirs.visual_projection(theirs.vision_model(pixel_values=batch).pooler_output)
        raw_texts = theirs.text_projection(theirs.text_model(**inputs).pooler_output)
    for ours, raw, normalised in ((images, raw_images, out.image_embeds), (texts, raw_texts, out.text_embeds)):
        torch.testing.assert_close(ours, raw, rtol=1e-5, atol=1e-5 * float(raw.abs().max()))
        torch.testing.assert_close(nn.functional.normalize(ours), normalised, rtol=1e-5, atol=1e-6)
    cosine = nn.functional.normalize(images) @ nn.functional.normalize(texts).T
    torch.testing.assert_close(cosine * model.logit_scale, out.logits_per_image, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("legacy", [False, True], ids=["end token", "end token as published"])
@pytest.mark.parametrize("layout", ["safetensors", "shards", "bin"])
def test_equals_transformers_own_forward(tmp_path: Path, layout: str, legacy: bool) -> None:
    theirs = write_clip_folder(tmp_path / "clip", legacy=legacy, layout=layout)
    assert_equals_own_forward(tmp_path / "clip", theirs, 32)


@pytest.mark.slow
def test_true_size_equals_transformers_own_forward(tmp_path: Path) -> None:
    """ViT-B/32 with OpenAI's configuration, as PLIP has it; 151 million random weights."""
    vocabulary = write_clip_tokenizer(tmp_path)
    config = {"model_type": "clip", "projection_dim": 512, "text_config": {}, "vision_config": {"patch_size": 32}}
    ids = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    config["text_config"] = ids
    write_json(tmp_path / "preprocessor_config.json", LATER_PROCESSOR)
    torch.manual_seed(0)
    theirs = CLIPModel(CLIPConfig.from_dict(config)).eval().requires_grad_(False)
    theirs.save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", config)
    assert_equals_own_forward(tmp_path, theirs, 224)
    model = load(tmp_path)
    assert (model.embedding_dim, model.image_size, model.context_length) == (512, 224, 77)
    assert model.saliency_layer().to_maps(torch.zeros(1, 50, 768)).shape == (1, 768, 7, 7)


def test_says_what_it_is(tmp_path: Path) -> None:
    write_clip_folder(tmp_path)
    model = load(tmp_path)
    assert (model.name, model.embedding_dim, model.image_size, model.context_length) == ("small", 16, 32, 40)
    assert model.logit_scale == pytest.approx(54.598, rel=1e-4)
    assert model.saliency_layer().name == "vision_model.encoder.layers.1.layer_norm1"


def test_the_published_end_token_pools_the_largest_id(tmp_path: Path) -> None:
    """Configurations of OpenAI and PLIP say `eos_token_id: 2`, and transformers then takes the largest id's place."""
    write_clip_folder(tmp_path, legacy=True)
    prompts = load(tmp_path).embed_tokens(["no pneumonia", "no"], 3)
    assert prompts.pooled_at.tolist() == [3, 2]
    assert prompts.lengths.tolist() == [4, 3]
    assert prompts.spliced_pooled_at().tolist() == [6, 5]


def test_float16_weights_are_computed_in_float32(tmp_path: Path) -> None:
    theirs = write_clip_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    theirs.load_state_dict({key: value.half().float() for key, value in theirs.state_dict().items()})
    assert_equals_own_forward(tmp_path, theirs, 32)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    write_clip_folder(tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def change_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["logit_scale"] += 0.5
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        lambda folder: edit_json(folder / "config.json", lambda c: c["text_config"].update(hidden_act="gelu")),
        lambda folder: edit_json(folder / "tokenizer_config.json", lambda c: c.update(model_max_length=40)),
        lambda folder: (folder / "merges.txt").write_text("#version: 0.2\nn o</w>\n"),
        lambda folder: edit_json(folder / "preprocessor_config.json", lambda c: c.update(resample=2)),
    ],
    ids=["weights", "configuration", "tokenizer settings", "merges", "image transform"],
)
def test_fingerprint_changes_with(tmp_path: Path, change: Callable[[Path], object]) -> None:
    write_clip_folder(tmp_path)
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    change(tmp_path)
    assert load(tmp_path).fingerprint != first


def test_fingerprint_does_not_change_with_the_folders_place(tmp_path: Path) -> None:
    write_clip_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    elsewhere = tmp_path / "elsewhere" / "two"
    edit_json(elsewhere / "config.json", lambda c: c.update(_name_or_path="me/mine", transformers_version="4.30.0"))
    other = load_clip_folder(elsewhere, "another name", CPU)
    assert other.fingerprint == load(tmp_path / "one").fingerprint


def test_fingerprint_covers_every_shard(tmp_path: Path) -> None:
    write_clip_folder(tmp_path, layout="shards")
    first, shards = load(tmp_path).fingerprint, sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    tensors = {key: value + 0.1 for key, value in load_file(shards[1]).items()}
    save_file(tensors, shards[1])
    assert load(tmp_path).fingerprint != first


def drop(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[key]
        save_file(tensors, folder / "model.safetensors")

    return change


def reshape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"] = torch.zeros(16, 31)
    save_file(tensors, folder / "model.safetensors")


def config_with(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", lambda content: content.update(changes))


def text_with(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", lambda content: content["text_config"].update(changes))


def vision_with(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", lambda content: content["vision_config"].update(changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist. Expected a folder with config.json"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (config_with(model_type="siglip"), r"model_type 'siglip'; only 'clip'.*open_clip:NAME/PRETRAINED"),
        (config_with(model_type=None), "model_type 'None'; only 'clip'"),
        (config_with(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (text_with(hidden_size="wide"), "transformers cannot build small"),
        (text_with(num_attention_heads=5), "transformers cannot build small"),
        (vision_with(image_size=[32, 40]), "transformers cannot build small"),
        (vision_with(image_size=40), "gives images of 32 x 32 pixels; the image tower takes 40"),
        (text_with(eos_token_id=7), r"says eos_token_id 7, but the tokenizer ends texts with \d+"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No weights in .*model.safetensors or pytorch_model"),
        (drop("text_projection.weight"), "1 missing: text_projection.weight"),
        (reshape, r"1 of another shape: visual_projection\.weight \(16, 31\) for \(16, 32\)"),
        (lambda folder: (folder / "merges.txt").unlink(), r"No tokenizer in .*vocab\.json with merges\.txt"),
        (lambda folder: (folder / "vocab.json").write_text("{]"), "tokenizer of small in .* cannot be read"),
        (text_with(vocab_size=100), r"gives ids up to 554, but the text tower has 100"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), r"preprocessor_config\.json is missing"),
    ],
)
def test_damaged_folders_say_what_is_wrong(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_clip_folder(tmp_path / "clip")
    damage(tmp_path / "clip")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "clip")


def test_code_in_the_tokenizers_settings_is_refused(tmp_path: Path) -> None:
    write_clip_folder(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(tmp_path / "tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["evil.T", None]}))
    with pytest.raises(ModelError, match="auto_map"):
        load(tmp_path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    write_clip_folder(tmp_path, layout="bin")
    touched = tmp_path / "touched"
    torch.save({"logit_scale": torch.tensor(1.0), "a": Touches(touched)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Python objects besides tensors"):
        load(tmp_path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (["../other.safetensors"], "'../other.safetensors', which lies outside"),
        (["sub/other.safetensors"], "lies outside"),
        (["C:\\other.safetensors"], "lies outside"),
        (["model-00009-of-00009.safetensors"], "which is missing"),
        ([], "no 'weight_map'"),
    ],
)
def test_shards_outside_the_folder_are_refused(tmp_path: Path, shards: list[str], message: str) -> None:
    write_clip_folder(tmp_path / "clip", layout="shards")
    (tmp_path / "other.safetensors").touch()
    write_json(tmp_path / "clip" / "model.safetensors.index.json", {"weight_map": {name: name for name in shards}})
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "clip")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    write_clip_folder(tmp_path, layout="shards")
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    save_file({**load_file(first), **load_file(second)}, second)
    with pytest.raises(ModelError, match=r"stands in .* and in another shard"):
        load(tmp_path)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    write_clip_folder(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    bare = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="expected a start token, text and an end token"):
        load(tmp_path)


def test_a_whole_tokenizer_file_equals_vocabulary_and_merges(tmp_path: Path) -> None:
    write_clip_folder(tmp_path / "parts")
    write_clip_folder(tmp_path / "whole")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "whole" / name).unlink()
    CLIPTokenizer.from_pretrained(tmp_path / "parts").save_pretrained(tmp_path / "whole")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "whole" / name).unlink(missing_ok=True)  # versions before 5 write these beside tokenizer.json
    assert torch.equal(load(tmp_path / "whole").encode_texts(TEXTS), load(tmp_path / "parts").encode_texts(TEXTS))


def test_old_configurations_with_both_forms_of_the_towers_load(tmp_path: Path) -> None:
    """OpenAI's `config.json` repeats each tower under `text_config_dict`, which then counts."""
    vocabulary = write_clip_tokenizer(tmp_path)
    config = small_clip_config(vocabulary, legacy=True)
    theirs = write_clip_folder(tmp_path, legacy=True)
    written = json.loads((tmp_path / "config.json").read_text())
    repeated = {key: value for key, value in config["text_config"].items() if key != "model_type"}
    repeated |= {"dropout": 0.0, "max_length": 20, "num_beams": 1, "pruned_heads": {}, "top_k": 50, "torch_dtype": None}
    written |= {"text_config_dict": repeated, "text_config": {**config["text_config"], "hidden_size": 999}}
    write_json(tmp_path / "config.json", written)
    assert_equals_own_forward(tmp_path, theirs, 32)
