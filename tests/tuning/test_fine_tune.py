"""Fine-tuning on a small model: what it learns, what it leaves alone, kills and resumes, the published schedule."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tuning import LABELS, QUICK, prepared, tune, tune_and_die
from torch.nn import functional

from medvlm_probe.errors import InputError, ModelError, StoreError
from medvlm_probe.tuning import fine_tune as module
from medvlm_probe.tuning.checkpoints import read_checkpoint
from medvlm_probe.tuning.fine_tune import fine_tune
from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings, legacy_settings
from medvlm_probe.tuning.heads import in_space
from medvlm_probe.tuning.legacy_probe import legacy_head
from medvlm_probe.tuning.material import FineTuned
from medvlm_probe.tuning.schedule import warmup_cosine, warmup_steps
from medvlm_probe.tuning.towers import trainable_tower


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For the training that the others are compared with, too: another number of threads rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the images of all trainings."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tuned(home: Path) -> FineTuned:
    return tune(home, home / "checkpoint")


def bytes_of(tuned: FineTuned) -> bytes:
    tensors = tuned.model.module.state_dict()
    return b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)) + tuned.head.weight.tobytes()


def test_it_learns_and_the_base_stays_as_it_was(home: Path, tuned: FineTuned) -> None:
    found = tuned
    assert found.best_epoch > 0
    assert [log.epoch for log in found.history] == [0, 1, 2, 3]
    by_epoch = {log.epoch: log for log in found.history}
    assert by_epoch[found.best_epoch].validation_loss == min(log.validation_loss for log in found.history)
    assert by_epoch[3].train_loss < by_epoch[1].train_loss
    base = prepared(home)[0].module.state_dict()
    changed = {name for name, value in found.model.module.state_dict().items() if not torch.equal(value, base[name])}
    assert changed
    assert all(name.startswith("visual.") for name in changed)
    assert not any(p.requires_grad for p in found.model.module.parameters())


def test_the_head_gives_the_logits_that_were_judged(home: Path, tuned: FineTuned) -> None:
    found = tuned
    _, material = prepared(home)
    rows = np.flatnonzero(material.validation)
    pixels = torch.stack([found.model.preprocess(material.cohort.source.read(row)) for row in rows.tolist()])
    with torch.no_grad():
        vectors = found.model.encode_images(pixels).float().numpy()
    logits = torch.from_numpy(found.head.logits(vectors))
    targets = torch.from_numpy(material.cohort.targets()[rows]).double()
    known = ~targets.isnan()
    loss = functional.binary_cross_entropy_with_logits(logits[known], targets[known]).item()
    best = next(log for log in found.history if log.epoch == found.best_epoch)
    assert loss == pytest.approx(best.validation_loss, rel=1e-5)


def test_epoch_zero_is_the_linear_probe(home: Path, tmp_path: Path) -> None:
    from medvlm_probe.tuning.linear_probe import fit_linear_probe

    loaded, material = prepared(home)
    logs = []
    fine_tune(loaded, material, replace(QUICK, epochs=1), tmp_path / "checkpoint", workers=1, on_epoch=logs.append)
    train, targets = material.train, material.cohort.targets()
    probe = fit_linear_probe(
        material.vectors[train], targets[train], material.cohort.groups()[train], LABELS, seed=QUICK.seed
    )
    logits = torch.from_numpy(probe.head.logits(material.vectors[material.validation]))
    held_out = torch.from_numpy(targets[material.validation]).double()
    known = ~held_out.isnan()
    expected = functional.binary_cross_entropy_with_logits(logits[known], held_out[known]).item()
    assert logs[0].epoch == 0
    assert logs[0].validation_loss == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_bytes_and_others_do_not(home: Path, tuned: FineTuned, tmp_path: Path) -> None:
    assert bytes_of(tune(home, tmp_path / "again")) == bytes_of(tuned)
    assert bytes_of(tune(home, tmp_path / "other", replace(QUICK, seed=2))) != bytes_of(tuned)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 12, 14])
def test_killed_and_gone_on_with_it_ends_with_the_same_bytes(
    n: int, home: Path, tuned: FineTuned, tmp_path: Path
) -> None:
    child = multiprocessing.get_context("fork").Process(target=tune_and_die, args=(home, tmp_path, n))
    child.start()
    child.join(120)
    assert child.exitcode == -9
    again = tune(home, tmp_path)
    assert bytes_of(again) == bytes_of(tuned)
    assert [log.to_json() for log in again.history] == [log.to_json() for log in tuned.history]


def test_a_finished_training_is_read_and_not_repeated(home: Path, tuned: FineTuned) -> None:
    logs = []
    again = tune(home, home / "checkpoint", on_epoch=logs.append)
    assert logs == []
    assert bytes_of(again) == bytes_of(tuned)


def test_the_checkpoint_of_another_training_is_refused(home: Path, tuned: FineTuned) -> None:
    with pytest.raises(StoreError, match="another training"):
        tune(home, home / "checkpoint", replace(QUICK, rate=2e-3))


def test_a_damaged_checkpoint_is_told(home: Path, tuned: FineTuned, tmp_path: Path) -> None:
    content = (home / "checkpoint" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(content[:100])
    with pytest.raises(StoreError, match="damaged"):
        read_checkpoint(tmp_path)


def test_accumulated_batches_have_the_gradient_of_one(home: Path, tmp_path: Path) -> None:
    """SGD in place of AdamW, whose first step is a sign and would hide a wrong scale."""

    def weights(name: str, settings: FineTuneSettings) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.optim, "AdamW", lambda groups: torch.optim.SGD([{**g, "weight_decay": 0} for g in groups])
            )
            patch.setattr(module, "LONGEST_NORM", 1e9)
            found = tune(home, tmp_path / name, settings)
        return np.concatenate([v.numpy().ravel() for v in found.model.module.visual.state_dict().values()])

    settings = replace(QUICK, epochs=1, rate=0.5, head_rate=0.01, least_gain=-1e9)  # the last epoch is kept
    whole, parts = (
        weights("whole", replace(settings, batch_size=12)),
        weights("parts", replace(settings, batch_size=4, accumulate=3)),
    )
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    alone = weights("alone", replace(settings, batch_size=4))
    assert np.abs(alone - whole).max() > 1e-3


def test_only_the_last_blocks_and_what_follows_them_move(home: Path, tmp_path: Path) -> None:
    found = tune(home, tmp_path, replace(QUICK, epochs=1, last_blocks=1, least_gain=-1e9))
    base = prepared(home)[0].module.state_dict()
    changed = {name for name, value in found.model.module.state_dict().items() if not torch.equal(value, base[name])}
    assert any(name.startswith("visual.transformer.resblocks.2.") for name in changed)
    allowed = ("visual.transformer.resblocks.2.", "visual.ln_post", "visual.proj")
    assert all(name.startswith(allowed) for name in changed)
    assert found.n_frozen > found.n_trained > 0
    with pytest.raises(InputError, match="has 3 blocks"):
        tune(home, tmp_path / "more", replace(QUICK, last_blocks=4))


@pytest.mark.parametrize("changes", [{"loss": "asymmetric"}, {"loss": "weighted-bce"}, {"augment": True}])
def test_other_losses_and_augmentation_run(changes: dict[str, object], home: Path, tmp_path: Path) -> None:
    found = tune(home, tmp_path, replace(QUICK, epochs=1, **changes))
    assert all(np.isfinite(log.validation_loss) for log in found.history)


def test_bfloat16_comes_near_and_weights_stay_float32(home: Path, tuned: FineTuned, tmp_path: Path) -> None:
    found = tune(home, tmp_path, precision="bfloat16")
    losses = [[log.validation_loss for log in of.history] for of in (found, tuned)]
    assert losses[0] != losses[1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.1)
    assert min(losses[0]) < losses[0][0]
    assert {p.dtype for p in found.model.module.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="float16"):
        tune(home, tmp_path, precision="float16")


def test_images_need_not_be_kept_in_memory(home: Path, tuned: FineTuned, tmp_path: Path) -> None:
    assert bytes_of(tune(home, tmp_path, kept_bytes=0)) == bytes_of(tuned)
    assert bytes_of(tune(home, tmp_path / "half", kept_bytes=10 * 3 * 32 * 32 * 4)) == bytes_of(tuned)


def test_patience_ends_a_training_that_does_not_get_better(home: Path, tmp_path: Path) -> None:
    found = tune(home, tmp_path, replace(QUICK, epochs=9, patience=2, least_gain=10.0))
    assert found.best_epoch == 0
    assert len(found.history) == 3


def test_a_loss_that_explodes_is_told(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower --rate"):
        tune(home, tmp_path, replace(QUICK, rate=1e30, head_rate=1e30, warmup=0.0))


def test_no_labels_to_stop_by_is_told(home: Path, tmp_path: Path) -> None:
    loaded, material = prepared(home)
    nothing = replace(material, validation=np.zeros(len(material.keys), dtype=bool))
    with pytest.raises(InputError, match="decide when to stop"):
        fine_tune(loaded, nothing, QUICK, tmp_path / "checkpoint", workers=1)


def test_the_published_schedule_is_a_new_adamw_in_each_epoch(home: Path, tmp_path: Path) -> None:
    """Against a plain loop over the recipe, two epochs."""
    settings = replace(legacy_settings(), epochs=2)
    assert (settings.batch_size, settings.rate, settings.decay, settings.patience) == (24, 1e-5, 1e-2, 5)
    settings = replace(settings, rate=1e-3, head_rate=1e-3, batch_size=7)
    found = tune(home, tmp_path, settings)
    loaded, material = prepared(home)
    tower = trainable_tower(loaded)
    targets = (material.cohort.targets() == 1).astype(np.float32)
    targets[targets.sum(axis=1) == 0, 2] = 1
    head = legacy_head(16, 3, settings.seed)
    rows = np.flatnonzero(material.train)
    states = []
    for epoch in range(2):
        optimizer = torch.optim.AdamW([*tower.parameters.values(), *head.parameters()], lr=1e-3, weight_decay=1e-2)
        order = rows[np.random.default_rng([settings.seed, epoch]).permutation(len(rows))]
        for start in range(0, len(order), 7):
            part = order[start : start + 7]
            pixels = torch.stack([loaded.preprocess(material.cohort.source.read(row)) for row in part.tolist()])
            loss = functional.binary_cross_entropy_with_logits(
                head(tower.model.encode_images(pixels)), torch.from_numpy(targets[part])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append((tower.state(), head.weight.detach().clone()))
    state, weight = states[found.best_epoch - 1]
    own = found.model.module.state_dict()
    for name, value in state.items():
        if name.endswith("in_proj_bias"):
            continue  # a third of it, the keys', has a gradient of 0 but for rounding, whose sign Adam goes by
        torch.testing.assert_close(own[name], value, atol=1e-4, rtol=0)  # one step is up to 1e-3
    np.testing.assert_allclose(found.head.weight, weight, atol=1e-4)
    assert found.head.kind == "fine_tune_legacy"
    assert found.head.space == "raw"


def test_models_without_a_known_tower_are_refused() -> None:
    class Bare:
        name = "bare"
        module = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="no image tower"):
        trainable_tower(Bare())  # type: ignore[arg-type]


def test_the_text_side_is_shared_and_not_copied(home: Path) -> None:
    loaded, _ = prepared(home)
    tower = trainable_tower(loaded)
    assert tower.model.module.token_embedding.weight is loaded.module.token_embedding.weight
    assert tower.model.module.visual.proj is not loaded.module.visual.proj
    assert not loaded.module.visual.proj.requires_grad


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"rate": 0.0}, {"warmup": 1.0}, {"accumulate": 0}])
def test_wrong_settings_are_told(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        FineTuneSettings(**settings)


def test_the_rate_rises_and_falls() -> None:
    n_warmup = warmup_steps(100, 0.1)
    shares = [warmup_cosine(step, 100, n_warmup) for step in range(100)]
    assert n_warmup == 10
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == shares[10] == 1
    assert (np.diff(shares[:10]) > 0).all()
    assert (np.diff(shares[10:]) < 0).all()
    assert 0 < shares[-1] < 0.001
    assert warmup_steps(1, 0.5) == 0
    assert warmup_cosine(0, 1, 0) == 1


def test_augmentation_is_small_and_its_own_for_each_image() -> None:
    from medvlm_probe.tuning.augment import augmented

    ramp = torch.linspace(-1, 1, 32).expand(4, 3, 32, 32).contiguous()
    keys = [(0, 1, row) for row in range(4)]
    changed = augmented(ramp, keys)
    assert torch.equal(augmented(ramp[2:3], keys[2:3]), changed[2:3])
    assert not torch.equal(changed[0], changed[1])
    # A chest is never mirrored: brightness still rises from left to right in the rows and columns inside.
    assert (changed[:, :, 4:-4, 4:-4].diff(dim=-1) > 0).all()
    assert (changed - ramp).abs().max() < 0.5


def test_head_layer_begins_at_the_probe_and_folds_back(rng: np.random.Generator) -> None:
    from medvlm_probe.tuning.head_layer import from_probe
    from medvlm_probe.tuning.heads import LinearHead

    x = rng.normal(size=(20, 6)).astype(np.float32) + 2
    x[:, 2] = 0.0
    for space in ("l2", "raw"):
        head = LinearHead(LABELS, rng.normal(size=(3, 6)) * 5, rng.normal(size=3), space, "linear_probe")
        layer = from_probe(head, x)
        np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), head.logits(x), atol=1e-4)
        weight, bias = layer.plain()
        np.testing.assert_allclose(in_space(x, space) @ weight.T + bias, head.logits(x), atol=1e-4)
