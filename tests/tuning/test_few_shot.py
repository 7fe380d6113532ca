"""Few-shot sets: balanced, by patient, the same in any order of the rows, and honest where classes are rare."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_prompts import CLASSES, LABELS, cohort_of

from medvlm_probe.errors import InputError
from medvlm_probe.tuning.few_shot import FewShotSet, draw_few_shot


def keys_of(cohort: object) -> list[str]:
    return [f"key of {name}" for name in cohort.table["image"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("single", [True, False])
def test_balanced_disjoint_by_patient_and_from_the_pool(single: bool) -> None:
    cohort = cohort_of(CLASSES if single else LABELS, single=single)
    pool, groups, targets = cohort.splits() == "train", cohort.groups(), cohort.targets()
    found = draw_few_shot(cohort, pool, cohort.labels, shots=5, seed=3, validation_shots=2)
    assert len(found.train) == (1 if single else len(LABELS))
    for k, (train, held) in enumerate(zip(found.train, found.validation, strict=True)):
        for problem, shots in ((train, 5), (held, 2)):
            assert [problem.count(number) for number in range(len(problem.classes))] == [shots] * len(problem.classes)
            assert pool[problem.rows].all()
            truth = targets[problem.rows].argmax(axis=1) if single else targets[problem.rows, k]
            np.testing.assert_array_equal(truth, problem.truth)
        drawn = np.concatenate([groups[train.rows], groups[held.rows]])
        assert len(set(drawn.tolist())) == len(drawn)
    assert found.n_labels_used == (7 * len(CLASSES) if single else 7 * 2 * len(LABELS))
    assert found.short == {}


def named(cohort: object, found: FewShotSet) -> list[dict[str, object]]:
    return sorted(
        (image for problem in found.to_json(keys_of(cohort))["train"] for image in problem["images"]),
        key=lambda image: (image["class"], image["sha256"]),
    )


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    cohort = cohort_of(CLASSES, single=True)
    other = cohort.select(np.random.default_rng(5).permutation(len(cohort)))
    draws = [draw_few_shot(c, c.splits() == "train", CLASSES, shots=4, seed=1) for c in (cohort, other)]
    assert named(cohort, draws[0]) == named(other, draws[1])
    again = draw_few_shot(cohort, cohort.splits() == "train", CLASSES, shots=4, seed=2)
    assert named(cohort, again) != named(cohort, draws[0])
    assert again.fingerprint(keys_of(cohort)) != draws[0].fingerprint(keys_of(cohort))


def test_a_labels_images_do_not_depend_on_the_labels_beside_it() -> None:
    cohort = cohort_of(LABELS, single=False)
    pool = cohort.splits() == "train"
    both = draw_few_shot(cohort, pool, LABELS, shots=4, seed=1).train[1]
    alone = draw_few_shot(cohort, pool, LABELS[1:], shots=4, seed=1).train[0]
    np.testing.assert_array_equal(both.rows, alone.rows)


def test_rare_classes_give_what_they_have_and_are_named() -> None:
    cohort = cohort_of(LABELS, single=False)
    pool = cohort.splits() == "train"
    fractures = np.flatnonzero(pool & (cohort.targets()[:, 1] == 1))
    pool[fractures[2:]] = False
    found = draw_few_shot(cohort, pool, LABELS, shots=8, seed=0)
    n_patients = len(np.unique(cohort.groups()[fractures[:2]]))
    assert found.short == {"fracture present": n_patients}
    pool[fractures] = False
    with pytest.raises(InputError, match="No image to train on has 'fracture' present"):
        draw_few_shot(cohort, pool, LABELS, shots=8, seed=0)


def test_what_cannot_be_drawn_is_refused() -> None:
    cohort = cohort_of(CLASSES, single=True)
    pool = np.ones(len(cohort), dtype=bool)
    with pytest.raises(InputError, match="0 shots"):
        draw_few_shot(cohort, pool, CLASSES, shots=0, seed=0)
    with pytest.raises(InputError, match="two labels or more"):
        draw_few_shot(cohort, pool, CLASSES[:1], shots=1, seed=0)
    cohort.table.loc[0, list(CLASSES)] = 1.0
    with pytest.raises(InputError, match="several labels, but its card says single_label"):
        draw_few_shot(cohort, pool, CLASSES, shots=1, seed=0)
