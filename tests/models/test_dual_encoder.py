"""The contract, held by the CLIP and MedCLIP adapters: prompts, gradients, lengths, saliency layers, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hugging_face_folders import write_clip_folder, write_medclip_folder
from PIL import Image

from medvlm_probe.embeddings.precision import at_precision, encode
from medvlm_probe.errors import ModelError
from medvlm_probe.models import VisionLanguageModel
from medvlm_probe.models.dual_encoder import DualEncoder
from medvlm_probe.models.hugging_face_clip import load_clip_folder
from medvlm_probe.models.medclip import load_medclip_folder

CPU = torch.device("cpu")
TEXTS = ["normal chest x ray.", "no pneumonia", "cardiomegaly", "a photo of a chest x-ray is normal"]
KINDS = ["clip", "clip, end token as published", "medclip", "medclip at 25 tokens"]


@pytest.fixture(params=KINDS, scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    folder = tmp_path_factory.mktemp("model")
    if request.param.startswith("clip"):
        write_clip_folder(folder, legacy="published" in request.param)
        loaded = load_clip_folder(folder, "clip", CPU)
    else:
        write_medclip_folder(folder)
        length = 25 if "25" in request.param else None
        loaded = load_medclip_folder(folder, "medclip", CPU, text_length=length)
    assert isinstance(loaded, DualEncoder)
    return loaded


def pixels(model: DualEncoder, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_fulfils_the_contract(model: DualEncoder) -> None:
    assert isinstance(model, VisionLanguageModel)
    assert len(model.fingerprint) == 64
    assert not any(p.requires_grad for p in model.module.parameters())
    assert not any(m.training for m in model.module.modules())
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert model.encode_texts(TEXTS).shape == (4, model.embedding_dim)
    assert model.encode_images(pixels(model)).shape == (2, model.embedding_dim)


def test_prompts_without_context_equal_texts(model: DualEncoder) -> None:
    prompts = model.embed_tokens(TEXTS, 0)
    assert not prompts.embeddings.requires_grad
    assert_close(model.encode_prompts(prompts), model.encode_texts(TEXTS))


@pytest.mark.parametrize("own", [False, True], ids=["shared context", "context per text"])
def test_word_embeddings_as_context_equal_the_same_words_as_text(model: DualEncoder, own: bool) -> None:
    words = model.embed_tokens(["a photo of a"], 0).embeddings[0, 1:5]
    context = words.expand(4, -1, -1) if own else words
    prompts = model.embed_tokens(TEXTS, 4).with_context(context)
    assert_close(model.encode_prompts(prompts), model.encode_texts([f"a photo of a {text}" for text in TEXTS]))


def test_gradients_flow_to_the_context_and_are_right(model: DualEncoder) -> None:
    generator = torch.Generator().manual_seed(2)
    prompts = model.embed_tokens(TEXTS, 4)
    context = torch.randn(4, prompts.width, generator=generator).mul_(0.3).requires_grad_()
    direction = torch.randn(4, prompts.width, generator=generator)
    weights = torch.randn(4, model.embedding_dim, generator=generator)

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


def test_many_texts_equal_the_same_texts_in_small_calls(model: DualEncoder) -> None:
    together = model.encode_texts([*TEXTS, "pneumonia"] * 20)
    assert together.shape[0] == 100
    assert_close(together[:5], model.encode_texts([*TEXTS, "pneumonia"]))
    assert_close(together[95:], together[:5])


def test_too_long_texts_are_refused_never_cut(model: DualEncoder) -> None:
    most = model.context_length
    fits = "a " * (most - 2)
    assert model.encode_texts([fits]).shape[0] == 1
    width = model.embed_tokens(["a"], 0).width
    prompts = model.embed_tokens(["a " * (most - 7)], 5).with_context(torch.zeros(5, width))
    assert model.encode_prompts(prompts).shape[0] == 1
    with pytest.raises(ModelError, match=rf"'a a .* has {most + 1} tokens; {model.name} takes {most} in all"):
        model.encode_texts(["a", "a " + fits])
    with pytest.raises(ModelError, match=r"and 16 context vectors"):
        model.embed_tokens([fits], 16)


def test_bad_inputs_are_refused(model: DualEncoder) -> None:
    for texts in ("pneumonia", []):
        with pytest.raises(ModelError, match="list of at least one text"):
            model.encode_texts(texts)
    with pytest.raises(ModelError, match="n_context is -1"):
        model.embed_tokens(["a"], -1)
    with pytest.raises(ModelError, match=r"Pixels of shape \(1, 1, 8, 8\)"):
        model.encode_images(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ModelError, match="room for 2 context vectors"):
        model.encode_prompts(model.embed_tokens(["a", "pneumonia"], 2))


def test_autocast_gives_float32(model: DualEncoder) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        reduced, texts = model.encode_images(pixels(model)), model.encode_texts(TEXTS)
    assert reduced.dtype == texts.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(reduced, model.encode_images(pixels(model)))
    assert float(cosine.min()) > 0.98


def test_a_copy_in_lower_precision_runs_its_own_weights(model: DualEncoder) -> None:
    twin = at_precision(model, "bfloat16")
    assert next(twin.module.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    for parameter in twin.module.parameters():  # type: ignore[attr-defined]
        parameter.data.zero_()
    assert not encode(twin, pixels(model), "bfloat16").any()
    assert model.encode_images(pixels(model)).any()


def test_preprocess_gives_what_the_image_tower_takes(model: DualEncoder, rng: np.random.Generator) -> None:
    grey = Image.fromarray(rng.integers(0, 256, (50, 70), dtype=np.uint8))
    ours = model.preprocess(grey)
    assert ours.shape == (3, model.image_size, model.image_size)
    assert ours.is_contiguous()
    assert torch.equal(ours, model.preprocess(grey.convert("RGB")))
    with pytest.raises(ModelError, match="mode 'RGBA'"):
        model.preprocess(grey.convert("RGBA"))


def record(model: DualEncoder, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maps of the saliency layer for a batch, and the gradient of a weighted sum of embeddings there."""
    layer, seen = model.saliency_layer(), []

    def keep(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = layer.module.register_forward_hook(keep)
    direction = torch.linspace(-1, 1, model.embedding_dim)
    (model.encode_images(batch.requires_grad_()) * direction).sum().backward()
    handle.remove()
    return layer.to_maps(seen[0].detach()), layer.to_maps(seen[0].grad)


def test_maps_have_a_place_and_a_gradient(model: DualEncoder) -> None:
    layer = model.saliency_layer()
    assert model.module.get_submodule(layer.name) is layer.module
    maps, gradients = record(model, pixels(model))
    side = {"clip": 4, "medclip": 7}[model.name]
    assert maps.shape[0] == 2
    assert maps.shape[2:] == (side, side)
    assert float(gradients.flatten(1).abs().max(dim=1).values.min()) > 0


@pytest.mark.parametrize(("row", "column"), [(1, -2), (-1, 0), (0, -1)])
def test_a_changed_patch_changes_the_map_at_its_place(model: DualEncoder, row: int, column: int) -> None:
    batch = pixels(model, 1)
    side = record(model, batch.clone())[0].shape[-1]
    patch = model.image_size // side
    row, column = row % side, column % side
    changed = batch.clone()
    changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 3.0
    before, after = (record(model, pixels_)[0] for pixels_ in (batch, changed))
    difference = (after - before).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), side) == (row, column)
