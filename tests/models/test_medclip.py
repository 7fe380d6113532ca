"""MedCLIP's published checkpoint against a direct reading of its definition, its processor and its padding."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hugging_face_folders import (
    BERT,
    BERT_VOCABULARY,
    edit_json,
    published_medclip,
    write_bert_tokenizer,
    write_json,
    write_medclip_folder,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import BertTokenizer

from medvlm_probe.errors import ModelError
from medvlm_probe.models.medclip import load_medclip_folder
from medvlm_probe.models.medclip_towers import BIO_CLINICAL_BERT, SWIN_TINY

CPU = torch.device("cpu")
TEXTS = ["normal chest x ray.", "no pneumonia", "", "A photo of a chest is Normal"]


class Touches:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def load(folder: Path, **options: Any) -> Any:
    return load_medclip_folder(folder, "medclip", CPU, **options)


def text_by_definition(bert: Any, tensors: dict[str, torch.Tensor], inputs: Any) -> torch.Tensor:
    """MedCLIPTextModel.forward: layers 1, 2 and last, the mean over all positions, then over layers, then projected."""
    with torch.inference_mode():
        hidden = bert(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        ).hidden_states
        rows = []
        for k in range(len(inputs["input_ids"])):
            pooled = sum(hidden[i][k].sum(dim=0) / hidden[i].shape[1] for i in (1, 2, len(hidden) - 1)) / 3
            rows.append(tensors["text_model.projection_head.weight"] @ pooled)
        return torch.stack(rows)


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def assert_equals_definition(folder: Path, towers: tuple[Any, Any, dict[str, torch.Tensor]]) -> None:
    vision, bert, tensors = towers
    model = load(folder)
    inputs = BertTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert_close(model.encode_texts(TEXTS), text_by_definition(bert, tensors, inputs))
    batch = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if "vision_model.model.fc.weight" in tensors:
            vision.fc = torch.nn.Identity()
            expected = vision(batch) @ tensors["vision_model.model.fc.weight"].T
        else:
            tokens = vision(batch).last_hidden_state
            expected = tokens.mean(dim=1) @ tensors["vision_model.projection_head.weight"].T
        assert_close(model.encode_images(batch), expected)


@pytest.mark.usefixtures("no_network")
def test_equals_its_definition(tmp_path: Path) -> None:
    assert_equals_definition(tmp_path / "medclip", write_medclip_folder(tmp_path / "medclip"))


@pytest.mark.slow
def test_the_resnet_checkpoint_equals_its_definition(tmp_path: Path) -> None:
    towers = write_medclip_folder(tmp_path, resnet=True)
    assert_equals_definition(tmp_path, towers)
    layer = load(tmp_path).saliency_layer()
    assert layer.name == "vision_model.model.layer4"
    assert layer.module(torch.zeros(1, 1024, 14, 14)).shape == (1, 2048, 7, 7)


@pytest.mark.slow
def test_true_size_loads_from_the_checkpoint_and_the_vocabulary_alone(tmp_path: Path) -> None:
    """Swin-tiny and Bio_ClinicalBERT by the configurations in the module: 137 million random weights."""
    swin, bert, tensors = published_medclip(dict(SWIN_TINY), dict(BIO_CLINICAL_BERT))
    assert sum(p.numel() for p in swin.parameters()) == 27_519_354  # as published for Swin-T without its classifier
    assert sum(p.numel() for p in bert.parameters()) == 108_310_272  # as published for BERT-base, cased
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    write_bert_tokenizer(tmp_path)
    assert_equals_definition(tmp_path, (swin, bert, tensors))
    model = load(tmp_path)
    assert (model.embedding_dim, model.image_size, model.context_length) == (512, 224, 77)
    assert model.saliency_layer().to_maps(torch.zeros(1, 49, 768)).shape == (1, 768, 7, 7)


def test_says_what_it_is(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path)
    model = load(tmp_path)
    assert (model.name, model.embedding_dim, model.image_size) == ("medclip", 512, 224)
    assert model.context_length == 64  # positions of this small BERT; 77 with the published one
    assert model.logit_scale == pytest.approx(math.exp(2.9))


@pytest.mark.parametrize(("stored", "scale"), [(5.0, math.exp(4.6052)), (-1.0, 1.0)])
def test_the_logit_scale_is_clamped_as_published(tmp_path: Path, stored: float, scale: float) -> None:
    tensors = write_medclip_folder(tmp_path)[2]
    torch.save({**tensors, "logit_scale": torch.tensor(stored)}, tmp_path / "pytorch_model.bin")
    assert load(tmp_path).logit_scale == pytest.approx(scale)


def test_padding_is_averaged_in_as_published(tmp_path: Path) -> None:
    """By default a text's embedding depends on the longest text of the call, as with the published processor."""
    _, bert, tensors = write_medclip_folder(tmp_path)
    model, tokenizer = load(tmp_path), BertTokenizer.from_pretrained(tmp_path)
    alone, beside = model.encode_texts(["no pneumonia"])[0], model.encode_texts(TEXTS)[1]
    assert float((alone - beside).abs().max()) > 0.01 * float(alone.abs().max())
    assert_close(alone[None], text_by_definition(bert, tensors, tokenizer(["no pneumonia"], return_tensors="pt")))


@pytest.mark.parametrize("length", [25, 64])
def test_a_fixed_length_makes_an_embedding_a_matter_of_the_text_alone(tmp_path: Path, length: int) -> None:
    _, bert, tensors = write_medclip_folder(tmp_path)
    model, tokenizer = load(tmp_path, text_length=length), BertTokenizer.from_pretrained(tmp_path)
    padded = tokenizer(TEXTS, padding="max_length", max_length=length, return_tensors="pt")
    assert_close(model.encode_texts(TEXTS), text_by_definition(bert, tensors, padded))
    assert_close(model.encode_texts(TEXTS[1:2]), model.encode_texts(TEXTS)[1:2])
    assert model.context_length == length
    assert model.embed_tokens(TEXTS, 5).embeddings.shape[1] == length - 5
    assert model.fingerprint != load(tmp_path).fingerprint
    with pytest.raises(ModelError, match=rf"has {length + 1} tokens; medclip takes {length} in all"):
        model.encode_texts(["a " * (length - 1)])


@pytest.mark.parametrize("length", [0, 2, 65, 78])
def test_impossible_lengths_are_refused(tmp_path: Path, length: int) -> None:
    write_medclip_folder(tmp_path)
    with pytest.raises(ModelError, match=f"text_length is {length}; medclip takes 3 to 64 tokens"):
        load(tmp_path, text_length=length)


def test_letters_are_lowered_unless_the_tokenizer_says_otherwise(tmp_path: Path) -> None:
    """Bio_ClinicalBERT's cased vocabulary comes without settings, so transformers lowers all letters."""
    write_medclip_folder(tmp_path)
    lowered = load(tmp_path).encode_texts(["A Normal chest", "a normal chest"])
    assert_close(lowered[0], lowered[1])
    write_bert_tokenizer(tmp_path, do_lower_case=False)
    cased = load(tmp_path).encode_texts(["A Normal chest", "a normal chest"])
    assert not torch.allclose(cased[0], cased[1])


def processor_by_definition(image: Image.Image) -> np.ndarray:
    """MedCLIPFeatureExtractor on transformers 4.24, step by step, in its own order and types."""
    x, y = image.size
    size = max(224, x, y)
    square = Image.new("L", (size, size), 0)
    square.paste(image, (int((size - x) / 2), int((size - y) / 2)))
    resized = square.resize((224, 224), resample=Image.BICUBIC)
    scaled = np.array(resized).astype(np.float32) * (1 / 255.0)
    mean = np.array(0.5862785803043838).astype(scaled.dtype)
    std = np.array(0.27950088968644304).astype(scaled.dtype)
    return np.repeat(((scaled - mean) / std)[None], 3, axis=0)


@pytest.mark.parametrize("size", [(300, 211), (211, 300), (100, 57), (224, 224), (225, 500), (1, 3)])
def test_images_are_made_as_the_published_processor_does(
    tmp_path: Path, size: tuple[int, int], rng: np.random.Generator
) -> None:
    write_medclip_folder(tmp_path)
    model = load(tmp_path)
    grey = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    for image in (grey, colour):
        ours = model.preprocess(image)
        assert ours.dtype == torch.float32
        np.testing.assert_array_equal(ours.numpy(), processor_by_definition(image))


def test_small_images_are_padded_not_enlarged(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path)
    pixels = load(tmp_path).preprocess(Image.new("L", (100, 50), 255))[0]
    bright = (pixels > 0).nonzero()
    assert bright.min(dim=0).values.tolist() == [87, 62]
    assert bright.max(dim=0).values.tolist() == [136, 161]


@pytest.mark.parametrize("place", ["text", "tokenizer"])
def test_the_vocabulary_may_lie_in_a_subfolder(tmp_path: Path, place: str) -> None:
    write_medclip_folder(tmp_path)
    expected = load(tmp_path)
    (tmp_path / place).mkdir(exist_ok=True)
    shutil.move(tmp_path / "vocab.txt", tmp_path / place / "vocab.txt")
    assert torch.equal(load(tmp_path).encode_texts(TEXTS), expected.encode_texts(TEXTS))
    assert load(tmp_path).fingerprint == expected.fingerprint


def test_a_berts_configuration_may_lie_in_the_root(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path)
    shutil.move(tmp_path / "text" / "config.json", tmp_path / "config.json")
    assert load(tmp_path).encode_texts(TEXTS).shape == (4, 512)


def test_safetensors_with_current_names_load_too(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path)
    published = load(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    save_file(dict(published.module.state_dict()), tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path).encode_texts(TEXTS), published.encode_texts(TEXTS))
    batch = torch.randn(1, 3, 224, 224)
    assert torch.equal(load(tmp_path).encode_images(batch), published.encode_images(batch))


def save_changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
        change(tensors)
        torch.save(tensors, folder / "pytorch_model.bin")

    return edit


@pytest.mark.parametrize(
    "change",
    [
        save_changed(lambda tensors: tensors["logit_scale"].add_(0.1)),
        lambda folder: edit_json(folder / "text" / "config.json", lambda c: c.update(layer_norm_eps=1e-5)),
        lambda folder: edit_json(folder / "vision" / "config.json", lambda c: c.update(layer_norm_eps=1e-6)),
        lambda folder: write_bert_tokenizer(folder, do_lower_case=False),
        lambda folder: (folder / "vocab.txt").write_text("\n".join(reversed(BERT_VOCABULARY))),
    ],
    ids=["weights", "text tower", "image tower", "tokenizer settings", "vocabulary"],
)
def test_fingerprint_changes_with(tmp_path: Path, change: Callable[[Path], object]) -> None:
    write_medclip_folder(tmp_path)
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    change(tmp_path)
    assert load(tmp_path).fingerprint != first


def test_fingerprint_does_not_change_with_the_folders_place(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    assert load(tmp_path / "elsewhere" / "two").fingerprint == load(tmp_path / "one").fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), r"does not exist. Expected a folder with pytorch_model\.bin"),
        (lambda folder: (folder / "pytorch_model.bin").unlink(), "No weights in"),
        (lambda folder: (folder / "vocab.txt").unlink(), r"No tokenizer in .*vocab\.txt \(BERT\)"),
        (lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe\x00"), "tokenizer of medclip"),
        (save_changed(lambda t: t.pop("text_model.projection_head.weight")), "1 missing: text_model.projection_head"),
        (save_changed(lambda t: t.update(extra=torch.ones(1))), "1 not expected: extra"),
        (
            save_changed(lambda t: t.update({"vision_model.projection_head.weight": torch.zeros(512, 8)})),
            r"1 of another shape: vision_model\.projection_head\.weight \(512, 8\) for \(512, 64\)",
        ),
        (
            save_changed(lambda t: t.pop("vision_model.model.encoder.layers.0.blocks.0.attention.self.query.weight")),
            "1 missing: vision_model.model.encoder.layers.0.blocks.0.attention",
        ),
        (lambda folder: shutil.rmtree(folder / "text"), "gives ids up to|do not fit its configuration"),
        (
            lambda folder: write_json(folder / "text" / "config.json", {**BERT, "auto_map": {"AutoModel": "evil.M"}}),
            "auto_map",
        ),
        (
            lambda folder: write_json(folder / "vision" / "config.json", {"model_type": "vit"}),
            "model_type 'vit'; MedCLIP's is 'swin'. Remove the file",
        ),
        (
            lambda folder: edit_json(folder / "vision" / "config.json", lambda c: c.update(image_size=[224, 200])),
            "only one side, for square images",
        ),
        (
            lambda folder: edit_json(folder / "text" / "config.json", lambda c: c.update(hidden_size="wide")),
            "transformers cannot build medclip",
        ),
    ],
)
def test_damaged_folders_say_what_is_wrong(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_medclip_folder(tmp_path / "medclip")
    damage(tmp_path / "medclip")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "medclip")


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    write_medclip_folder(tmp_path)
    touched = tmp_path / "touched"
    torch.save({"logit_scale": torch.tensor(1.0), "a": Touches(touched)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Python objects besides tensors"):
        load(tmp_path)
    assert not touched.exists()
