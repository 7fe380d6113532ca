"""Deletion and insertion curves on scores whose truth is known, against a loop over patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.saliency.faithfulness import deletion_and_insertion

N, SIZE, GRID = 3, 12, 4


def weights() -> torch.Tensor:
    """How much each pixel adds to the score: by patch, all different."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.kron(rng.normal(size=(GRID, GRID)), np.ones((3, 3)))).float()


def score(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.mean(dim=1) * weights()).sum(dim=(1, 2))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(N, 3, SIZE, SIZE))).float()


def patch_effects(pixels: torch.Tensor) -> np.ndarray:
    """Return by how much each patch moves the score when the mean grey takes its place, (N, 4, 4)."""
    grey = pixels.mean(dim=(2, 3), keepdim=True)
    effect = ((pixels - grey).mean(dim=1) * weights()).reshape(N, GRID, 3, GRID, 3).sum(dim=(2, 4))
    return effect.numpy()


def test_curves_are_those_of_a_loop_over_patches(pixels: torch.Tensor) -> None:
    maps = np.random.default_rng(2).normal(size=(N, GRID, GRID)).astype(np.float32)
    found = deletion_and_insertion(score, pixels, maps, rng=np.random.default_rng(0), n_steps=8, batch_size=5)
    np.testing.assert_allclose(found.fractions, np.arange(9) / 8)
    for row in range(N):
        order = np.argsort(-maps[row].ravel())
        grey = pixels[row].mean(dim=(1, 2), keepdim=True).expand_as(pixels[row])
        deleted, inserted = pixels[row].clone(), grey.clone()
        for place in range(17):
            if place % 2 == 0:
                expected = [float(score(image[None])[0]) for image in (deleted, inserted)]
                curves = found.deletion[row, place // 2], found.insertion[row, place // 2]
                assert curves == pytest.approx(expected, abs=1e-4)
            if place < 16:
                y, x = divmod(int(order[place]), GRID)
                window = (slice(None), slice(3 * y, 3 * y + 3), slice(3 * x, 3 * x + 3))
                deleted[window] = grey[window]
                inserted[window] = pixels[row][window]


def test_areas_are_the_trapezoid_rule_and_the_true_map_beats_random(pixels: torch.Tensor) -> None:
    found = deletion_and_insertion(
        score, pixels, patch_effects(pixels), rng=np.random.default_rng(0), n_steps=16, n_random=20
    )
    areas = found.areas()
    np.testing.assert_allclose(areas["deletion"], np.trapezoid(found.deletion, found.fractions, axis=1))
    assert (areas["random_deletion"] > areas["deletion"]).all()
    assert (areas["insertion"] > areas["random_insertion"]).all()
    worst = deletion_and_insertion(score, pixels, -patch_effects(pixels), rng=np.random.default_rng(0))
    assert (worst.areas()["deletion"] > areas["random_deletion"]).all()
    estimates = found.estimates(np.arange(N))
    assert estimates["deletion_gain"].value == pytest.approx((areas["random_deletion"] - areas["deletion"]).mean())
    assert estimates["insertion"].n == N
    assert not estimates["insertion_gain"].reliable


def test_a_flat_map_is_a_random_order(pixels: torch.Tensor) -> None:
    flat = np.zeros((N, GRID, GRID))
    gains = [
        deletion_and_insertion(score, pixels, flat, rng=np.random.default_rng(seed)).estimates(np.arange(N))
        for seed in range(40)
    ]
    spread = np.std([gain["deletion_gain"].value for gain in gains]) / np.sqrt(40)
    assert abs(np.mean([gain["deletion_gain"].value for gain in gains])) < 4 * spread


def test_finer_maps_are_averaged_over_patches(pixels: torch.Tensor) -> None:
    coarse = np.random.default_rng(2).normal(size=(N, GRID, GRID))
    fine = np.kron(coarse, np.ones((3, 3))) + np.tile(np.array([-1.0, 0.0, 1.0]), 4)
    a, b = (
        deletion_and_insertion(score, pixels, maps, rng=np.random.default_rng(0), patches=(GRID, GRID), n_random=1)
        for maps in (coarse, fine)
    )
    np.testing.assert_allclose(a.deletion, b.deletion)


def test_blur_keeps_what_is_even_and_takes_out_what_is_sharp() -> None:
    even = torch.full((1, 3, 32, 32), 2.0)
    checks = even + (torch.arange(32) % 2 * 2 - 1).float()
    for pixels in (even, checks):
        seen: list[torch.Tensor] = []

        def remember(images: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(images)
            return images.mean(dim=(1, 2, 3))

        deletion_and_insertion(
            remember, pixels, np.zeros((1, 4, 4)), rng=np.random.default_rng(0), fill="blur", n_steps=2, n_random=1
        )
        # Scored first: the image as it is, then the one replaced as a whole.
        torch.testing.assert_close(seen[0][0], pixels[0])
        torch.testing.assert_close(seen[0][1, :, :, 8:24], even[0, :, :, 8:24], atol=1e-3, rtol=0)


def test_what_cannot_be_done_is_refused(pixels: torch.Tensor) -> None:
    maps, rng = np.zeros((N, GRID, GRID)), np.random.default_rng(0)
    with pytest.raises(UnknownNameError, match="blur"):
        deletion_and_insertion(score, pixels, maps, rng=rng, fill="blurr")
    for wrong, options in (
        (maps[:2], {}),
        (np.full_like(maps, np.nan), {}),
        (maps, {"patches": (13, 4)}),
        (maps, {"n_steps": 0}),
    ):
        with pytest.raises(InputError):
            deletion_and_insertion(score, pixels, wrong, rng=rng, **options)  # type: ignore[arg-type]
