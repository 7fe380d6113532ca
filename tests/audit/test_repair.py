"""Repairs on two synthetic hospitals: same labels for all, measured on other patients, gone on with where killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm_probe.audit.inputs import AuditInputs
from medvlm_probe.audit.repair import Repair, examine_repair
from medvlm_probe.audit.repair_bench import Answer, Bench, Draws, Tools, make_bench
from medvlm_probe.audit.repair_journal import FOLDER, forget_parts
from medvlm_probe.audit.repair_outcomes import adjusted, image_brier, outcome_of
from medvlm_probe.audit.repair_prompts import few_shots
from medvlm_probe.audit.repair_reread import FALSE, MISSED, examine_rereading
from medvlm_probe.audit.repair_scores import aligned, with_prevalence
from medvlm_probe.audit.repairs import REMEDIES, Remedy
from medvlm_probe.cli.audit_repair import labels_read_again
from medvlm_probe.cli.audit_repair_table import curves_of, repair_table
from medvlm_probe.embeddings.acquisition_embeddings import AcquisitionEmbeddings
from medvlm_probe.errors import InputError
from medvlm_probe.plots.audit_repair import repair_curves
from medvlm_probe.report.audit_tables import QUESTIONS, tables_for
from medvlm_probe.report.cells import TableStyle

from .two_hospitals import hospital, inputs_of, score

TOOLS = Tools(score)


def shown(name: str, *sizes: int) -> Remedy:
    return replace(REMEDIES[name], sizes=sizes, draws=2)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> AuditInputs:
    """A site whose images all look like cardiomegaly."""
    folder = tmp_path_factory.mktemp("moved")
    cohort, vectors = hospital(folder / "b", 400, 1, prefix="q")
    vectors[:, 0] += 3.0
    return inputs_of(hospital(folder / "a", 400, 0), (cohort, vectors))


@pytest.fixture(scope="module")
def found(moved: AuditInputs) -> Repair:
    remedies = {
        **{name: shown(name, 40) for name in ("platt", "linear probe", "site probe")},
        "thresholds": replace(REMEDIES["thresholds"], sizes=(300,)),
        **{name: REMEDIES[name] for name in ("label shift", "alignment", "reference probe", "last block", "prompts 8")},
    }
    return examine_repair(moved, TOOLS, remedies=remedies)


def test_a_site_with_moved_scores_is_repaired_on_patients_that_no_remedy_saw(found: Repair) -> None:
    assert found.n_pool + found.n_held_out == 400
    by = {outcome.remedy: outcome for outcome in found.outcomes}
    assert next(iter(by)) == "none"
    assert by["none"].brier_gain.value == 0
    assert np.isnan(by["none"].p_adjusted)
    assert by["platt"].helps
    assert by["platt"].n_draws == 2
    assert by["platt"].labels_used == 80
    assert by["site probe"].helps
    assert by["thresholds"].n_images == 200  # fewer than asked for: all that there are, once
    assert by["thresholds"].n_draws == 1
    assert np.isnan(by["thresholds"].p_value)
    before = by["none"].metrics["balanced_accuracy"].value
    assert by["thresholds"].metrics["balanced_accuracy"].value > before + 0.05
    assert set(found.left_out) == {"last block", "prompts 8"}
    assert "--fine-tune" in found.left_out["last block"]


def test_the_sentence_names_the_cheapest_that_helps_or_none(found: Repair) -> None:
    cheapest = found.cheapest
    assert cheapest is not None
    assert cheapest.n_images == min(outcome.n_images for outcome in found.outcomes if outcome.helps)
    assert cheapest.words in found.sentence
    assert found.sentence.startswith("The cheapest repair")
    nothing = replace(found, outcomes=adjusted([replace(o, p_value=0.04) for o in found.outcomes]))
    assert nothing.cheapest is None
    assert nothing.sentence.startswith("None of")
    assert all(outcome.p_adjusted > outcome.p_value for outcome in nothing.outcomes[1:])


def test_what_is_written_and_drawn_holds_every_repair(found: Repair) -> None:
    result = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [entry["remedy"] for entry in result["outcomes"]] == [outcome.remedy for outcome in found.outcomes]
    assert result["reread"]["simulated"]
    table = repair_table(found)
    gains = table[table["metric"] == "brier_gain"]
    assert len(gains) == len(found.outcomes) + len(found.reread.outcomes if found.reread else ())
    rows, words = curves_of(table)
    drawn = {outcome.remedy for outcome in found.outcomes} - {"none", "thresholds"}
    assert set(rows["remedy"]) == drawn | {"re-read"}
    figure = repair_curves(rows, axis="Gain", words=words)
    assert len(figure.axes) == 3
    question = next(question for question in QUESTIONS if question.key == "repair")
    captions = [part.caption for part in tables_for(question, result, TableStyle())]
    assert [caption for caption in captions if "again" in caption]
    assert "Not fitted" in captions
    assert repair_table(None).empty


def test_labels_are_needed_on_both_sides(moved: AuditInputs) -> None:
    blind = replace(moved, site=replace(moved.site, targets=np.full_like(moved.site.targets, np.nan)))
    with pytest.raises(InputError, match="too few people"):
        examine_repair(blind, TOOLS)
    with pytest.raises(InputError, match="labels at the reference"):
        examine_repair(replace(moved, deployed=None), TOOLS)


def test_all_remedies_get_the_same_images_and_larger_draws_hold_smaller_ones(moved: AuditInputs) -> None:
    seen: dict[tuple[str, int], Draws] = {}

    def spy(name: str) -> Remedy:
        def fit(bench: Bench, draws: Draws) -> list[Answer]:
            seen[name, len(draws[0])] = draws
            return [bench.as_it_is() for _ in draws]

        return Remedy(name, "scores", fit, (20, 50), 3)

    examine_repair(moved, TOOLS, remedies={"a": spy("a"), "b": spy("b")}, shares=(0.0,))
    for n in (20, 50):
        for one, other in zip(seen["a", n], seen["b", n], strict=True):
            assert np.array_equal(one, other)
    assert all(set(small) < set(large) for small, large in zip(seen["a", 20], seen["a", 50], strict=True))


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(moved: AuditInputs, tmp_path: Path) -> None:
    fits: list[int] = []

    def fit(bench: Bench, draws: Draws) -> list[Answer]:
        fits.append(len(draws[0]))
        if len(fits) == 2:
            raise KeyboardInterrupt
        p, called = bench.as_it_is()
        return [Answer(p * len(rows) / 100, called) for rows in draws]

    remedies = {"a": Remedy("a", "scores", fit, (20,), 2), "b": Remedy("b", "scores", fit, (20,), 2)}
    tools = replace(TOOLS, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        examine_repair(moved, tools, remedies=remedies, shares=(0.0,))
    again = examine_repair(moved, tools, remedies=remedies, shares=(0.0,))
    assert len(fits) == 3
    whole = examine_repair(moved, replace(TOOLS, folder=None), remedies=remedies, shares=(0.0,))
    assert [o.brier_gain for o in again.outcomes] == [o.brier_gain for o in whole.outcomes]
    other = replace(moved, seed=1)
    examine_repair(other, tools, remedies={"a": remedies["a"]}, shares=(0.0,))
    assert len(fits) == 6  # parts of other inputs are not taken
    forget_parts(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_outcomes_against_a_loop(moved: AuditInputs) -> None:
    bench = make_bench(moved, TOOLS, np.random.default_rng(0))
    truth, base = bench.truth.copy(), bench.as_it_is()
    truth[::7, 0] = np.nan
    better = Answer(0.5 * base.p + 0.1, base.called)
    found = outcome_of(("x", "x", "x"), 5, [10], [better], [base], truth, bench.held_out.groups)
    gains = []
    for before, after, y in zip(base.p, better.p, truth, strict=True):
        known = [k for k in range(2) if not np.isnan(y[k])]
        gains.append(np.mean([(before[k] - y[k]) ** 2 - (after[k] - y[k]) ** 2 for k in known]))
    assert found.brier_gain.value == pytest.approx(np.mean(gains))
    assert found.lowest == pytest.approx(found.highest)
    assert np.isnan(image_brier(base.p[:1], np.full((1, 2), np.nan))).all()


def test_copies_of_the_reference_bring_no_label_and_keep_their_patient(moved: AuditInputs) -> None:
    reference = moved.whole_reference
    part = np.arange(len(reference)) < 100
    # What the site's images look like: exactly the transform that is needed.
    shifted = reference.vectors[part] + np.eye(8, dtype=np.float32)[0] * 3
    given = AcquisitionEmbeddings(reference.cohort.select(part), reference.vectors[part], {"t": shifted}, 400, 0, {})
    tools = replace(TOOLS, augmented=lambda: given)
    names = ("reference probe", "reference probe, augmented", "linear probe", "linear probe, augmented")
    remedies = {name: replace(REMEDIES[name], sizes=(30,) if "linear" in name else (), draws=2) for name in names}
    by = {
        outcome.remedy: outcome for outcome in examine_repair(moved, tools, remedies=remedies, shares=(0.0,)).outcomes
    }
    assert by["linear probe"].labels_used == by["linear probe, augmented"].labels_used
    assert by["reference probe, augmented"].brier_gain.value > by["reference probe"].brier_gain.value


def test_shots_are_the_first_of_each_class_and_patient_as_read() -> None:
    taught = np.array([[1, 0], [1, 1], [0, np.nan], [1, 0], [0, 1], [0, 0]], dtype=float)
    groups = np.array([0, 0, 1, 2, 3, 4])
    first, second = few_shots(np.array([5, 1, 0, 3, 4, 2]), taught, groups, 1, ["a", "b"])
    assert first.rows.tolist() == [1, 5]
    assert first.truth.tolist() == [1, 0]
    assert second.rows.tolist() == [1, 5]
    (more, _) = few_shots(np.array([5, 1, 0, 3, 4, 2]), taught, groups, 2, ["a", "b"])
    assert more.rows.tolist() == [1, 3, 4, 5]  # not row 0: its patient was read
    assert with_prevalence(np.array([0.5]), 0.5, 0.1) == pytest.approx(0.1)


def test_alignment_gives_the_site_the_reference_s_moments() -> None:
    rng = np.random.default_rng(0)
    reference, site = rng.normal(size=(4000, 5)) + 3, rng.normal(size=(4000, 5)) * [1, 2, 0.5, 1, 1] + 2
    moved = aligned(site, site, reference)
    own = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    assert moved.mean(axis=0) == pytest.approx(own.mean(axis=0))
    before = site / np.linalg.norm(site, axis=1, keepdims=True)
    far = np.abs(np.cov(before.T) - np.cov(own.T)).max()
    assert np.abs(np.cov(moved.T) - np.cov(own.T)).max() < 0.35 * far


def test_simulated_errors_are_as_declared_and_reading_again_helps(moved: AuditInputs) -> None:
    found = examine_rereading(make_bench(moved, TOOLS, moved.rng("repair")))
    assert found.simulated
    declared = np.mean([share * MISSED + (1 - share) * FALSE for share in (0.4, 0.3)])
    assert found.wrong == pytest.approx(declared, abs=0.03)
    assert [outcome.n_images for outcome in found.outcomes] == [0, 20, 50, 100, 200]
    assert found.outcomes[0].brier_gain.value == 0
    assert found.outcomes[-1].brier_gain.value > max(0, found.outcomes[1].brier_gain.value)
    assert found.sentence.startswith("In a simulation")
    assert "20 % of the present and 5 % of the absent" in found.how


def test_labels_that_were_read_twice_are_used_and_measured_by_the_second_reading(
    moved: AuditInputs, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = moved.site.cohort.table["image"].astype(str).tolist()
    right = moved.site.targets[:, 1].astype(int)
    read = [row for row in range(len(images)) if row % 5]
    lines = [f"{images[row]},{right[row]}" for row in read]
    (tmp_path / "again.csv").write_text("image,edema\n" + "\n".join([*lines, "elsewhere.png,1"]) + "\n")
    again = labels_read_again(tmp_path / "again.csv", moved)
    assert np.array_equal(again[read, 1], right[read])
    assert np.isnan(again[:, 0]).all()
    assert np.isnan(again[::5]).all()
    wrong = moved.site.targets.copy()
    turned = rng.random(len(wrong)) < 0.4
    wrong[turned, 1] = 1 - wrong[turned, 1]
    inputs = replace(moved, site=replace(moved.site, targets=wrong))
    bench = make_bench(inputs, replace(TOOLS, reread=again), inputs.rng("repair"))
    found = examine_rereading(bench)
    assert found.labels == ("edema",)
    assert not found.simulated
    assert found.wrong == pytest.approx(0.4, abs=0.08)
    assert found.outcomes[-1].helps
    assert "given twice" in found.how
    assert "changed when read again" in found.sentence
    with pytest.raises(InputError, match="read again"):
        examine_rereading(replace(bench, tools=replace(TOOLS, reread=np.full_like(again, np.nan))))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,edema\na,1\n", "column 'image'"),
        ("image,oedema\nq1.png,1\n", "audited labels"),
        ("image,edema\nq1.png,yes\n", "other than 1, 0"),
        ("image,edema\nq1.png,2\n", "other than 1, 0"),
        ("image,edema\nq1.png,1\nq1.png,0\n", "twice"),
        ("image,edema\nelsewhere.png,1\n", "no image of the new site"),
    ],
)
def test_files_of_labels_that_cannot_be_used_are_refused(
    moved: AuditInputs, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "again.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        labels_read_again(tmp_path / "again.csv", moved)
    with pytest.raises(InputError, match="no CSV"):
        labels_read_again(tmp_path / "absent.csv", moved)
