"""Localisation measures and chance levels against brute force and scikit-learn, and what ties and unseen pixels do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medvlm_probe.errors import InputError
from medvlm_probe.saliency.localization import IouThreshold, choose_threshold, localize, measure_maps, measure_sets
from medvlm_probe.saliency.localization_chance import CENTRE_SPREAD, centred_map, prior_map, region_prior
from medvlm_probe.saliency.localization_measures import (
    HIT_AT,
    MEASURES,
    diagonal,
    hit,
    iou,
    otsu_threshold,
    peak_distance,
    pixel_average_precision,
    pointing_game,
    relevance_mass,
)

SIZE = (13, 17)


def one_case(rng: np.random.Generator, *, unseen: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return a map of few distinct values, some unseen, and a region."""
    values = rng.integers(-4, 5, SIZE).astype(np.float32)
    if unseen:
        values[:, :3] = np.nan
        values[12] = np.nan
    mask = np.zeros(SIZE, dtype=bool)
    y, x = rng.integers(0, 9), rng.integers(0, 12)
    mask[y : y + 4, x : x + 5] = True
    mask[5, 8] = True
    return values, mask


def brute_force(values: np.ndarray, mask: np.ndarray, threshold: float) -> dict[str, float]:
    """Read the measures off pixel by pixel."""
    pixels = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1])]
    seen = [p for p in pixels if not np.isnan(values[p])]
    region = [p for p in pixels if mask[p]]
    top = max(values[p] for p in seen)
    peak = [p for p in seen if values[p] == top]
    marked = [p for p in seen if values[p] >= threshold]
    both = sum(bool(mask[p]) for p in marked)
    overlap = both / (len(marked) + sum(bool(mask[p]) for p in seen) - both)
    nearest = [min(np.hypot(p[0] - q[0], p[1] - q[1]) for q in region) for p in peak]
    positive = sum(max(values[p], 0) for p in seen)
    return {
        "pointing_game": np.mean([mask[p] for p in peak]),
        "hit_rate": float(overlap >= HIT_AT),
        "iou": overlap,
        "relevance_mass": sum(max(values[p], 0) for p in seen if mask[p]) / positive if positive else np.nan,
        "average_precision": average_precision_score([mask[p] for p in seen], [values[p] for p in seen]),
        "peak_distance": np.mean(nearest) / np.hypot(*mask.shape),
        "peak_distance_pixels": np.mean(nearest),
    }


@pytest.mark.parametrize("unseen", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_read_off_pixel_by_pixel(seed: int, unseen: bool) -> None:
    values, mask = one_case(np.random.default_rng(seed), unseen=unseen)
    expected = brute_force(values, mask, 2.0)
    found = {
        "pointing_game": pointing_game(values, mask),
        "hit_rate": hit(values, mask, 2.0),
        "iou": iou(values, mask, 2.0),
        "relevance_mass": relevance_mass(values, mask),
        "average_precision": pixel_average_precision(values, mask),
        "peak_distance": peak_distance(values, mask) / diagonal(*SIZE),
        "peak_distance_pixels": peak_distance(values, mask),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    table = measure_maps([values], [mask], threshold=IouThreshold(2.0, source="calib"))
    assert {name: column[0] for name, column in table.values.items()} == pytest.approx(expected, abs=1e-6)
    assert list(table.values) == list(MEASURES)


def test_maps_measured_together_are_those_measured_alone() -> None:
    rng = np.random.default_rng(0)
    cases = [one_case(rng) for _ in range(3)]
    masks = [mask for _, mask in cases]
    sets = [{"own": values, "other": np.where(np.isnan(values), np.nan, rng.normal(size=SIZE))} for values, _ in cases]
    together = measure_sets(sets, masks, ("own", "other"))
    for name, found in together.items():
        alone = measure_maps([maps[name] for maps in sets], masks)
        for one, another in (
            (found.values, alone.values),
            *zip(found.chance.values(), alone.chance.values(), strict=True),
        ):
            assert one.keys() == another.keys()
            for measure in one:
                np.testing.assert_array_equal(one[measure], another[measure])
    with pytest.raises(InputError, match="see different pixels"):
        measure_sets([{"own": cases[0][0], "other": np.zeros(SIZE)}], masks[:1], ("own", "other"))


@pytest.mark.parametrize("seed", range(3))
def test_chance_is_what_flat_centred_and_prior_maps_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, mask = one_case(rng)
    prior = region_prior([one_case(rng)[1] for _ in range(5)], "calib")
    table = measure_maps(
        [values], [mask], prior=prior, threshold=IouThreshold(1.0, {"centre": 0.4, "prior": 0.3}, "calib")
    )
    maps = {
        "uniform": (np.zeros(SIZE), -1.0),
        "centre": (centred_map(*SIZE).values, 0.4),
        "prior": (prior_map(prior, *SIZE).values, 0.3),
    }
    for kind, (flat, threshold) in maps.items():
        expected = brute_force(np.where(np.isnan(values), np.nan, flat), mask, threshold)
        if kind == "uniform":
            expected["relevance_mass"] = expected["average_precision"]
        found = {name: column[0] for name, column in table.chance[kind].items()}
        assert found == pytest.approx(expected, abs=1e-6), kind


def test_otsu_is_the_best_split_of_all() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 400), rng.normal(5, 0.7, 100)]).reshape(20, 25)
    values[0, :5] = np.nan
    seen = values[~np.isnan(values)]
    edges = np.linspace(seen.min(), seen.max(), 257)
    middle = (edges[np.clip(np.searchsorted(edges, seen, side="right") - 1, 0, 255)] + np.diff(edges)[0] / 2).round(9)

    def between(edge: float) -> float:
        low, high = middle[seen < edge], middle[seen >= edge]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(edges[1:-1], key=between)
    assert otsu_threshold(values) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.3, -7.1])
def test_a_flat_map_wins_no_more_than_chance(level: float) -> None:
    _, mask = one_case(np.random.default_rng(0))
    # Interpolation leaves a constant map uneven by single steps of float32.
    noise = np.random.default_rng(1).integers(-1, 2, SIZE)
    values = (np.float32(level) * (1 + noise * np.float32(2.0**-23))).astype(np.float32)
    table = measure_maps([values], [mask])
    for name, column in table.values.items():
        if name == "relevance_mass" and level <= 0:
            assert np.isnan(column[0])
        else:
            assert column[0] == pytest.approx(table.chance["uniform"][name][0]), name


def test_a_region_partly_seen_counts_by_its_seen_part_and_one_never_seen_is_left_out() -> None:
    values, mask = np.ones((2, *SIZE), dtype=np.float32), np.zeros((2, *SIZE), dtype=bool)
    mask[:, 2:6, 2:6] = True
    values[:, 4, 4] = 2
    values[0, :, :3] = np.nan
    values[1, :8, :8] = np.nan
    table = measure_maps(values, mask)
    np.testing.assert_allclose(table.unseen, [0.25, 1.0])
    np.testing.assert_allclose(table.region_share, 16 / mask[0].size)
    assert table.values["pointing_game"][0] == 1
    assert table.chance["uniform"]["pointing_game"][0] == pytest.approx(12 / (13 * 14))
    assert all(np.isnan(column[1]) for column in table.values.values())
    found = table.estimates(np.arange(2))["pointing_game"]
    assert (found.estimate.n, found.n_unseen, found.n_undefined) == (1, 1, 0)


def test_a_map_without_positive_values_has_no_relevance_mass_and_is_counted() -> None:
    values, mask = one_case(np.random.default_rng(0), unseen=False)
    found = localize([values, -1 - np.abs(values)], [mask, mask], np.arange(2))
    assert (found["relevance_mass"].n_undefined, found["relevance_mass"].estimate.n) == (1, 1)
    assert (found["iou"].n_undefined, found["iou"].estimate.n) == (0, 2)


def test_the_chosen_threshold_has_the_greatest_mean_iou() -> None:
    rng = np.random.default_rng(5)
    cases = [one_case(rng) for _ in range(6)]
    maps, masks = [values for values, _ in cases], [mask for _, mask in cases]
    chosen = choose_threshold(maps, masks, "calib")
    means = {level: np.mean([iou(*case, level) for case in cases]) for level in range(-4, 5)}
    assert np.mean([iou(*case, chosen.value) for case in cases]) == pytest.approx(max(means.values()))
    assert chosen.source == "calib"
    centred = centred_map(*SIZE).values
    levels = np.quantile(centred, np.linspace(0, 1, 200))
    best = max(np.mean([iou(np.where(np.isnan(v), np.nan, centred), m, t) for v, m in cases]) for t in levels)
    own = np.mean([iou(np.where(np.isnan(v), np.nan, centred), m, chosen.chance["centre"]) for v, m in cases])
    assert own == pytest.approx(best, abs=0.02)


def test_the_centre_falls_off_by_a_quarter_of_each_side() -> None:
    values = centred_map(401, 201).values
    assert values[200, 100] == values.max()
    assert values[200 + round(401 * CENTRE_SPREAD), 100] == pytest.approx(np.exp(-0.5), abs=0.01)
    assert values[200, 100 + round(201 * CENTRE_SPREAD)] == pytest.approx(np.exp(-0.5), abs=0.01)


def test_a_prior_is_the_mean_of_regions_of_any_size() -> None:
    masks = [np.zeros((64, 64), dtype=bool), np.zeros((128, 192), dtype=bool)]
    masks[0][:32, :32] = True
    masks[1][:64] = True
    prior = region_prior(masks, "calib")
    assert (prior.n, prior.source) == (2, "calib")
    np.testing.assert_allclose(prior.share[:32, :32], 1)
    np.testing.assert_allclose(prior.share[:32, 32:], 0.5)
    np.testing.assert_allclose(prior.share[32:], 0)
    spread = prior_map(prior, 640, 320).values
    assert spread[10, 10] == pytest.approx(1)
    assert spread[10, 300] == pytest.approx(0.5)
    assert spread.shape == (640, 320)
    with pytest.raises(InputError, match="no region"):
        region_prior([], "calib")


def test_a_perfect_map_scores_one() -> None:
    _, mask = one_case(np.random.default_rng(2))
    table = measure_maps([mask.astype(np.float32)], [mask])
    scored = {name: column[0] for name, column in table.values.items()}
    assert scored == pytest.approx({name: float(info.better == "higher") for name, info in MEASURES.items()})


@pytest.mark.parametrize(
    ("values", "mask", "said"),
    [
        (np.zeros((3, 4)), np.zeros((3, 3), dtype=bool), "expected"),
        (np.zeros((3, 3)), np.ones((3, 3)), "booleans"),
        (np.zeros((3, 3)), np.zeros((3, 3), dtype=bool), "without a pixel"),
        (np.full((3, 3), np.nan), np.ones((3, 3), dtype=bool), "without a seen pixel"),
        (np.full((3, 3), np.inf), np.ones((3, 3), dtype=bool), "infinite"),
    ],
)
def test_what_cannot_be_measured_is_refused(values: np.ndarray, mask: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        measure_maps([values], [mask])
