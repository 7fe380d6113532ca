"""The open_clip adapter against the family's own forward pass on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from PIL import Image

from medvlm_probe.errors import ModelError
from medvlm_probe.models import VisionLanguageModel, load_model
from medvlm_probe.models.open_clip_adapter import OpenClipModel

MakeNative = Callable[..., OpenClipModel]

TEXTS = ["normal chest x ray.", "there is no pneumonia.", "cardiomegaly", "a photo of a chest x-ray is normal"]
TEXT_TOWERS = {
    "argmax": {},
    "eos": {"pool_type": "eos", "eos_id": 49407},
    "first, both ways": {"pool_type": "first", "no_causal_mask": True},
    "last, both ways": {"pool_type": "last", "no_causal_mask": True},
    "linear with bias": {"proj_bias": True},
    "no projection": {"proj_type": "none", "width": 16},
}


@pytest.fixture(params=["biomedclip", *TEXT_TOWERS, "custom text"], scope="module")
def model(
    request: pytest.FixtureRequest,
    make_native: MakeNative,
    make_biomedclip_bundle: Callable[[Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> OpenClipModel:
    if request.param == "biomedclip":
        loaded = load_model(f"local:{make_biomedclip_bundle(tmp_path_factory.mktemp('tiny'))}")
        assert isinstance(loaded, OpenClipModel)
        return loaded
    if request.param == "custom text":
        return make_native(custom_text=True)
    custom = any(word in request.param for word in ("bias", "projection", "both"))
    return make_native(text=TEXT_TOWERS[request.param], custom_text=custom)


def pixels(model: OpenClipModel, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))


def test_fulfils_the_contract(model: OpenClipModel) -> None:
    assert isinstance(model, VisionLanguageModel)
    assert model.embedding_dim == 16
    assert model.logit_scale == pytest.approx(85.2)
    assert len(model.fingerprint) == 64
    assert model.context_length == (32 if model.name.startswith("local") else 77)
    assert not any(p.requires_grad for p in model.module.parameters())
    assert not any(m.training for m in model.module.modules())
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_images_equal_the_familys_own(model: OpenClipModel) -> None:
    batch = pixels(model)
    ours = model.encode_images(batch)
    assert ours.shape == (3, 16)
    assert torch.equal(ours, model.module.encode_image(batch))


def test_texts_equal_the_familys_own(model: OpenClipModel) -> None:
    theirs = model.module.encode_text(model.tokenizer(TEXTS))
    ours = model.encode_texts(TEXTS)
    assert ours.shape == (4, 16)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_texts_equal_the_familys_own_bit_by_bit_at_equal_length(model: OpenClipModel) -> None:
    ids = model.tokenizer(TEXTS)
    uncut = model.tower.forward(model.tower.embed(ids), *mask_and_pool(model, ids))
    assert torch.equal(uncut, model.module.encode_text(ids))
    if isinstance(model.tokenizer, HFTokenizer):
        longest = int(model.tower.lengths(ids).max())
        assert torch.equal(model.encode_texts(TEXTS), model.module.encode_text(ids[:, :longest]))


def mask_and_pool(model: OpenClipModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(ids.shape[1]) < model.tower.lengths(ids)[:, None], model.tower.pooled_at(ids)


def test_prompts_without_context_equal_texts(model: OpenClipModel) -> None:
    prompts = model.embed_tokens(TEXTS, 0)
    assert prompts.embeddings.shape[0] == 4
    assert torch.equal(model.encode_prompts(prompts), model.encode_texts(TEXTS))


@pytest.mark.parametrize("own", [False, True], ids=["shared context", "context per text"])
def test_word_embeddings_as_context_equal_the_same_words_as_text(model: OpenClipModel, own: bool) -> None:
    words = model.embed_tokens(["there is no"], 0).embeddings[0, 1:4]
    context = words.expand(4, -1, -1) if own else words
    spliced = model.encode_prompts(model.embed_tokens(TEXTS, 3).with_context(context))
    written = model.encode_texts([f"there is no {text}" for text in TEXTS])
    torch.testing.assert_close(spliced, written, rtol=1e-5, atol=1e-6 * float(written.abs().max()))


def test_gradients_flow_to_the_context_and_are_right(model: OpenClipModel) -> None:
    generator = torch.Generator().manual_seed(2)
    prompts = model.embed_tokens(TEXTS, 4)
    context = torch.randn(4, prompts.width, generator=generator).mul_(0.3).requires_grad_()
    direction = torch.randn(4, prompts.width, generator=generator)
    weights = torch.randn(4, 16, generator=generator)

    def value(c: torch.Tensor) -> torch.Tensor:
        return (model.encode_prompts(prompts.with_context(c)) * weights).sum()

    value(context).backward()
    assert context.grad is not None
    assert all(row.abs().max() > 0 for row in context.grad)
    step = 1e-3
    with torch.no_grad():
        numeric = (value(context + step * direction) - value(context - step * direction)) / (2 * step)
    assert float((context.grad * direction).sum()) == pytest.approx(float(numeric), rel=2e-2)
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_a_text_does_not_depend_on_its_neighbours(model: OpenClipModel) -> None:
    together = model.encode_texts([*TEXTS, "pneumonia"] * 20)
    assert together.shape == (100, 16)
    alone = torch.cat([model.encode_texts([text]) for text in [*TEXTS, "pneumonia"]])
    scale = float(alone.abs().max())
    torch.testing.assert_close(together[:5], alone, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(together[95:], alone, rtol=1e-5, atol=1e-6 * scale)


def test_too_long_texts_are_refused_never_cut(model: OpenClipModel) -> None:
    fits = "a " * (model.context_length - 2)
    assert model.encode_texts([fits]).shape == (1, 16)
    assert model.encode_prompts(model.embed_tokens(["a " * (model.context_length - 7)], 5).with_context(
        torch.zeros(5, model.embed_tokens(["a"], 0).width)
    )).shape == (1, 16)  # fmt: skip
    with pytest.raises(ModelError, match=rf"'a a .* has {model.context_length + 1} tokens; .* {model.context_length} "):
        model.encode_texts(["a", "a " + fits])
    with pytest.raises(ModelError, match=r"and 16 context vectors"):
        model.embed_tokens([fits], 16)


def test_bad_inputs_are_refused(model: OpenClipModel) -> None:
    with pytest.raises(ModelError, match="list of at least one text"):
        model.encode_texts("pneumonia")
    with pytest.raises(ModelError, match="list of at least one text"):
        model.encode_texts([])
    with pytest.raises(ModelError, match="n_context is -1"):
        model.embed_tokens(["a"], -1)
    with pytest.raises(ModelError, match=r"Pixels of shape \(1, 1, 8, 8\)"):
        model.encode_images(torch.zeros(1, 1, 8, 8))
    prompts = model.embed_tokens(["a", "pneumonia"], 2)
    with pytest.raises(ModelError, match="room for 2 context vectors"):
        model.encode_prompts(prompts)
    with pytest.raises(ModelError, match=r"Context vectors of shape \(3, 5\)"):
        prompts.with_context(torch.zeros(3, 5))


def test_autocast_gives_float32(model: OpenClipModel) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = model.encode_images(pixels(model))
    assert reduced.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(reduced, model.encode_images(pixels(model)))
    assert float(cosine.min()) > 0.99


def test_preprocess_gives_what_the_image_tower_takes(model: OpenClipModel, rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (50, 70), dtype=np.uint8))
    assert model.preprocess(image).shape == (3, model.image_size, model.image_size)
    assert model.encode_images(model.preprocess(image)[None]).shape == (1, 16)


def test_local_biomedclip_equals_the_module_that_was_saved(biomedclip_module: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / "bert").rename(tmp_path / "BiomedCLIP" / "text")
    loaded = load_model(f"local:{tmp_path / 'BiomedCLIP'}")
    batch = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(3))
    assert torch.equal(loaded.encode_images(batch), biomedclip_module.encode_image(batch))


def test_equals_open_clips_own_loader_on_the_same_folder(native_bundle: Path, rng: np.random.Generator) -> None:
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{native_bundle}")
    theirs.eval().requires_grad_(False)
    ours = load_model(f"local:{native_bundle}")
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    assert torch.equal(ours.encode_images(batch), theirs.encode_image(batch))
    tokenizer = open_clip.get_tokenizer(f"local-dir:{native_bundle}")
    torch.testing.assert_close(ours.encode_texts(TEXTS), theirs.encode_text(tokenizer(TEXTS)), rtol=1e-5, atol=1e-5)
    image = Image.fromarray(rng.integers(0, 256, (45, 60, 3), dtype=np.uint8))
    assert torch.equal(ours.preprocess(image), preprocess(image))
