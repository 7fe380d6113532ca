"""Context vectors before, around and behind a name: held against plain texts on every family of text towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hugging_face_folders import write_clip_folder, write_medclip_folder
from torch.nn import functional

from medvlm_probe.errors import ModelError, UnknownNameError
from medvlm_probe.models import load_model
from medvlm_probe.models.hugging_face_clip import load_clip_folder
from medvlm_probe.models.medclip import load_medclip_folder
from medvlm_probe.zero_shot.spliced_prompts import embedded_twice, prompt_tokens, word_vectors

CPU = torch.device("cpu")
FAMILIES = ["clip", "native clip", "bert", "medclip", "medclip at 25 tokens"]
NAMES = ["pneumonia.", "normal chest.", "no pneumonia"]
WORDS = "a photo of a"


@pytest.fixture(params=FAMILIES, scope="module")
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_native: Callable[..., Any],
    make_biomedclip_bundle: Callable[[Path], Path],
) -> Any:
    folder = tmp_path_factory.mktemp("model")
    if request.param == "native clip":
        return make_native()
    if request.param == "bert":
        return load_model(f"local:{make_biomedclip_bundle(folder)}")
    if request.param == "clip":
        write_clip_folder(folder)
        return load_clip_folder(folder, "clip", CPU)
    write_medclip_folder(folder)
    return load_medclip_folder(folder, "medclip", CPU, text_length=25 if "25" in request.param else None)


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def beside(name: str, place: str) -> str:
    stop = "." if name.endswith(".") else ""
    bare = name.removesuffix(".")
    return {"end": f"{WORDS} {bare}", "middle": f"a photo {bare} of a", "front": f"{bare} {WORDS}"}[place] + stop


@pytest.mark.parametrize("place", ["end", "middle", "front"])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "per text"])
def test_words_as_context_equal_the_same_words_as_text(model: Any, place: Any, own: bool) -> None:
    words = word_vectors(model, WORDS)
    assert words.shape[0] == 4
    tokens = prompt_tokens(model, NAMES, 4, place=place)
    prompts = tokens.with_context(words.expand(3, -1, -1) if own else words)
    assert_close(model.encode_prompts(prompts), model.encode_texts([beside(name, place) for name in NAMES]))


@pytest.mark.parametrize("place", ["end", "middle", "front"])
def test_an_odd_context_stands_in_order(model: Any, place: Any) -> None:
    """Five vectors, each marked by its number, among tokens that are marked by theirs."""
    tokens = prompt_tokens(model, ["pneumonia.", "no pneumonia."], 5, place=place)
    n_tokens = tokens.embeddings.shape[1]
    marks = torch.arange(n_tokens).float()[None, :, None].expand(2, -1, tokens.width)
    marked = replace(tokens, embeddings=marks.clone())
    context = 100 + torch.arange(5).float()[:, None].expand(-1, tokens.width)
    for row, found in enumerate(marked.with_context(context).spliced()[:, :, 0].tolist()):
        n_name = int(tokens.lengths[row]) - 3
        before = {"end": 5, "middle": 2, "front": 0}[place]
        behind = 1 + n_name if place != "end" else 1
        expected = [
            0,
            *range(100, 100 + before),
            *range(1, behind),
            *range(100 + before, 105),
            *range(behind, n_tokens),
        ]
        assert found == expected


def test_gradients_reach_every_context_vector_and_nothing_else(model: Any) -> None:
    for place in ("end", "middle", "front"):
        tokens = prompt_tokens(model, NAMES, 3, place=place)  # type: ignore[arg-type]
        context = torch.randn(3, tokens.width, generator=torch.Generator().manual_seed(0)).mul_(0.1).requires_grad_()
        weights = torch.randn(len(NAMES), model.embedding_dim, generator=torch.Generator().manual_seed(1))
        (model.encode_prompts(tokens.with_context(context)) * weights).sum().backward()
        assert context.grad is not None
        assert float(context.grad.abs().max(dim=1).values.min()) > 0
        assert all(parameter.grad is None for parameter in model.module.parameters())


def test_padding_to_the_full_length_changes_nothing(model: Any) -> None:
    """Prompts are padded to the longest; MedCLIP, which averages padding in, to the length that it was loaded with."""
    tokens = prompt_tokens(model, NAMES, 4)
    context = word_vectors(model, WORDS)
    short = model.encode_prompts(tokens.with_context(context))
    if model.name == "medclip":
        at_25 = getattr(model, "padded_length", None) == 25
        assert tokens.embeddings.shape[1] + 4 == (25 if at_25 else int(tokens.lengths.max()) + 4)
    else:
        assert tokens.embeddings.shape[1] == int(tokens.lengths.max())
        n_more = model.context_length - tokens.embeddings.shape[1] - 4
        longer = replace(tokens, embeddings=functional.pad(tokens.embeddings, (0, 0, 0, n_more), value=0.3))
        full = model.encode_prompts(longer.with_context(context))
        assert float((short - full).abs().max()) <= 1e-6 * max(1.0, float(full.abs().max()))


def test_names_are_never_cut(model: Any) -> None:
    n_context = model.context_length - 3
    assert prompt_tokens(model, ["a"], n_context).embeddings.shape[0] == 1
    with pytest.raises(ModelError, match=f"and {n_context} context vectors; .* no text is cut"):
        prompt_tokens(model, ["a photo"], n_context)


def test_places_and_words_that_cannot_be(model: Any) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean middle"):
        prompt_tokens(model, NAMES, 4, place="midle")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="where the name in '' ends"):
        prompt_tokens(model, [""], 4, place="front")
    with pytest.raises(ModelError, match="no tokens"):
        word_vectors(model, "")


def test_the_released_double_embedding_is_berts_alone(model: Any) -> None:
    context = torch.randn(4, word_vectors(model, "a").shape[1], generator=torch.Generator().manual_seed(0))
    right, twice = (prompt_tokens(model, NAMES, 4, legacy=legacy).with_context(context) for legacy in (False, True))
    if not hasattr(model, "tower") or model.tower.__class__.__name__ != "HuggingFaceTower":
        assert embedded_twice(model, right) is right
        assert torch.equal(right.embeddings, twice.embeddings)
        return
    # As the released trainer does it: whole embeddings of "[CLS] X X X X name . [SEP]", the X replaced by the context.
    bert, ids = model.tower.encoder.transformer, model.tokenizer([f"x x x x {name}" for name in NAMES])
    ids = ids[:, : int(ids.ne(0).sum(dim=1).max())]
    whole = bert.embeddings(input_ids=ids)
    inputs = torch.cat([whole[:, :1], context.expand(3, -1, -1), whole[:, 5:]], dim=1)
    hidden = bert(inputs_embeds=inputs, attention_mask=ids.ne(0).long()).last_hidden_state[:, 0]
    assert_close(model.encode_prompts(twice), model.tower.encoder.proj(hidden))
    cosine = functional.cosine_similarity(model.encode_prompts(twice), model.encode_prompts(right))
    assert float(cosine.max()) < 0.9999
