"""Repairs that train the model, with a small CLIP and images in memory: tuned prompts, the last block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medvlm_probe.audit.inputs import make_inputs
from medvlm_probe.audit.repair import examine_repair
from medvlm_probe.audit.repair_bench import Tools, make_bench
from medvlm_probe.audit.repair_prompts import steps_of
from medvlm_probe.audit.repairs import REMEDIES, SHOTS, Remedy
from medvlm_probe.errors import InputError
from medvlm_probe.models.open_clip_adapter import build_module, wrap_module
from medvlm_probe.tuning.linear_probe import fit_linear_probe
from medvlm_probe.types import Scores
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet

from .two_hospitals import LABELS, hospital, inputs_of, score

CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PROMPTS = PromptSet("mine", "", "", {name: LabelPrompts((name,), (f"no {name}",)) for name in LABELS})


@dataclass(frozen=True)
class InMemory:
    """Images that any cohort can have."""

    pixels: np.ndarray

    def read(self, row: int) -> Image.Image:
        return Image.fromarray(self.pixels[row])

    def read_with_key(self, row: int) -> tuple[Image.Image, str]:
        return self.read(row), f"{row:064x}"

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, index: Any) -> InMemory:
        return InMemory(self.pixels[np.asarray(index)])


@pytest.fixture(scope="module")
def model() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(CONFIG, "tiny")
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        module.logit_scale.data.fill_(2.0)
    return wrap_module("tiny", module, CONFIG, SimpleTokenizer(context_length=77))


def few(name: str, **changes: Any) -> dict[str, Remedy]:
    return {name: replace(REMEDIES[name], draws=2, **changes)}


def test_tuned_prompts_are_measured_at_either_prevalence(model: Any, tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 200, 0), hospital(tmp_path / "b", 120, 1, prefix="q"))
    tools = Tools(score, model=model, prompts=PROMPTS, train=True)
    remedies = few("prompts 8") | few("prompts 8, prevalence")
    found = examine_repair(inputs, tools, remedies=remedies, shares=(0.0,))
    by = {outcome.remedy: outcome for outcome in found.outcomes}
    assert not found.left_out
    assert by["prompts 8"].n_images == 60  # all that the half of the site has: fewer than asked for
    assert by["prompts 8"].n_draws == 2
    assert by["prompts 8"].metrics["auroc"].value == pytest.approx(by["prompts 8, prevalence"].metrics["auroc"].value)
    assert by["prompts 8"].brier_gain.value != by["prompts 8, prevalence"].brier_gain.value
    assert [steps_of(shots) for shots in SHOTS] == [50, 100, 200]
    untrained = examine_repair(inputs, replace(tools, train=False), remedies=remedies, shares=(0.0,))
    assert set(untrained.left_out) == set(remedies)
    bare = replace(PROMPTS, labels={name: LabelPrompts((name,)) for name in LABELS})
    without = examine_repair(inputs, replace(tools, prompts=bare), remedies=remedies, shares=(0.0,))
    assert all("absence" in why for why in without.left_out.values())


def test_a_label_that_no_image_shows_is_not_tuned(model: Any, tmp_path: Path) -> None:
    inputs = inputs_of(hospital(tmp_path / "a", 200, 0), hospital(tmp_path / "b", 120, 1, prefix="q"))
    tools = Tools(score, model=model, prompts=PROMPTS, train=True)
    bench = make_bench(inputs, tools, np.random.default_rng(0))
    bench.pool.targets[:, 1] = 0
    rows = np.random.default_rng(0).permutation(len(bench.pool))
    (answer,) = REMEDIES["prompts 8"].fit(bench, [rows])
    base = bench.as_it_is()
    assert np.array_equal(answer.p[:, 1], base.p[:, 1])
    assert not np.allclose(answer.p[:, 0], base.p[:, 0])
    bench.pool.targets[:, 0] = 0
    bench.shared.clear()
    with pytest.raises(InputError, match="with and without"):
        REMEDIES["prompts 8"].fit(bench, [rows])


def test_the_last_block_learns_from_the_site_and_chooses_its_epoch_there(model: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = []
    for name, n, seed in (("a", 80, 0), ("b", 160, 1)):
        cohort, _ = hospital(tmp_path / name, n, seed, prefix=name)
        shown = cohort.targets(list(LABELS))
        pixels = rng.integers(60, 140, size=(n, 32, 32))
        for k in range(2):
            pixels[:, :, 16 * k : 16 * (k + 1)] += (40 * shown[:, k]).astype(int)[:, None, None]
        source = InMemory(np.repeat(pixels[..., None], 3, axis=3).astype(np.uint8))
        stacked = torch.stack([model.preprocess(source.read(row)) for row in range(n)])
        with torch.no_grad():
            sides.append((replace(cohort, source=source), model.encode_images(stacked).numpy()))
    taught = sides[0][0].targets(list(LABELS))
    head = fit_linear_probe(sides[0][1], taught, np.arange(80), LABELS, strengths=(1e-2,), n_folds=2).head

    def seen(vectors: np.ndarray) -> Scores:
        return Scores(head.logits(vectors), "logit", LABELS, tuple(map(str, range(len(vectors)))))

    parts = [(cohort, v, seen(v), [f"{len(v)} {row}" for row in range(len(v))]) for cohort, v in sides]
    inputs = make_inputs(parts[0], parts[1], LABELS)
    said: list[str] = []
    tools = Tools(seen, model=model, train=True, say=said.append)
    remedies = few("last block", sizes=(40,)) | few("last block, augmented", sizes=(40,))
    remedies |= few("linear probe", sizes=(40,))
    found = examine_repair(inputs, tools, remedies=remedies, shares=(0.0,))
    by = {outcome.remedy: outcome for outcome in found.outcomes}
    assert by["last block"].labels_used == by["linear probe"].labels_used == 80
    assert by["last block, augmented"].labels_used == 80, "copies need no labels of their own"
    gains = {name: outcome.brier_gain.value for name, outcome in by.items()}
    assert len({gains[name] for name in remedies}) == 3
    for name in ("last block", "last block, augmented"):
        assert by[name].metrics["auroc"].value > 0.75
    assert sum("last block, draw" in line for line in said) == 4
