"""Who the phantom patients are: determinism, prevalences, hierarchy, severities, reports."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import (
    PREVALENCES,
    SEVERITIES,
    SITES,
    Case,
    case_key,
    generator_digest,
    sample_cases,
    sample_patient,
    vocabulary,
)
from medvlm_probe.errors import InputError, UnknownNameError

CHILDREN = ("lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis")

# What the sentences that are no negations say of a finding.
POSITIVE = {
    "enlarged_cardiomediastinum": r"widening of the mediastinum|enlarged cardiom|silhouette is enlarged|widened|broad",
    "cardiomegaly": r"cardiomegaly|heart is enlarged|enlargement of the cardiac|big heart|enlarged heart|heart shadow",
    "lung_lesion": r"nodule|coin|round shadow|lung lesion",
    "edema": r"edema|wet lungs|failure",
    "consolidation": r"consolidat",
    "pneumonia": r"pneumonia|infection",
    "atelectasis": r"atelectasis|collapse\b",
    "pneumothorax": r"pneumothorax|air rim",
    "pleural_effusion": r"effusion|fluid",
    "pleural_other": r"thickening|pleural scar|plaques|thick pleura|pleural disease",
    "fracture": r"fracture|broken|rib break",
    "support_devices": r"pacemaker|central|tube|wires|leads\b.* (chest|thorax)|devices|hardware|pacer|line noted",
}
NEGATION = r"no |there is no |nothing |heart not |heart size is normal|the lungs are clear|lungs look clear"


@pytest.fixture(scope="module")
def balanced() -> list[Case]:
    return [case for site in SITES for case in sample_cases(site, 600, 3, "balanced")]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(SITES)), st.integers(0, 2**31), st.integers(0, 10**6), st.sampled_from(sorted(PREVALENCES))
)
def test_a_patient_is_a_function_of_its_key(site: str, seed: int, index: int, prevalence: str) -> None:
    cases = sample_patient(site, seed, index, prevalence)
    assert cases == sample_patient(site, seed, index, prevalence)
    assert 1 <= len(cases) <= 3
    assert len({(case.patient, case.age, case.sex, case.findings) for case in cases}) == 1
    assert [case.image_index for case in cases] == list(range(len(cases)))
    assert len({case.study for case in cases}) == len(cases)


def test_cases_are_cut_exactly_and_begin_with_the_same_patients() -> None:
    for n in (0, 1, 2, 7, 100):
        cases = sample_cases("community", n, 5)
        assert len(cases) == n
        assert cases == sample_cases("community", 150, 5)[:n]


def test_another_process_samples_the_same() -> None:
    code = (
        "import hashlib; from medvlm_probe.cohort.phantom import sample_cases;"
        "print(hashlib.sha256(repr(sample_cases('portable', 60, 9, 'balanced')).encode()).hexdigest())"
    )
    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].strip()) == 64


def test_reference_prevalences_are_those_of_iu_xray() -> None:
    cases = sample_cases("reference", 20_000, 1)
    patients = {case.patient: case.labels for case in cases}
    images_per_patient = np.unique([case.patient for case in cases], return_counts=True)[1]
    design = float((images_per_patient**2).sum() / images_per_patient.sum())  # images of a patient agree fully
    for label, target in PREVALENCES["iu_xray"].items():
        observed = np.mean([case.labels[label] for case in cases])
        error = np.sqrt(target * (1 - target) * design / len(cases))
        assert abs(observed - target) < 4 * error, label
    assert len(patients) > 14_000


def test_balanced_prevalences_at_every_site(balanced: list[Case]) -> None:
    for label, target in PREVALENCES["balanced"].items():
        assert abs(np.mean([case.labels[label] for case in balanced]) - target) < 0.045, label


def test_sites_differ_in_case_mix() -> None:
    share = {
        site: np.mean([case.labels["support_devices"] for case in sample_cases(site, 1500, 2)])
        for site in ("reference", "portable")
    }
    assert share["portable"] > 4 * share["reference"]
    views = [case.view for case in sample_cases("portable", 300, 2)]
    assert views.count("AP") > 250
    assert np.mean([case.age for case in sample_cases("portable", 600, 2)]) > 60


def test_labels_obey_the_hierarchy(balanced: list[Case]) -> None:
    for case in balanced:
        assert tuple(case.labels) == CHEXPERT_LABELS
        assert case.labels["no_finding"] == (not any(case.labels[name] for name in CHEXPERT_LABELS[1:]))
        if any(case.labels[child] for child in CHILDREN):
            assert case.labels["lung_opacity"]
        drawn = {finding.kind for finding in case.findings}
        assert drawn <= {name for name in CHEXPERT_LABELS if case.labels[name]}
        assert {name for name in CHEXPERT_LABELS[1:] if case.labels[name]} - drawn <= {"lung_opacity"}


def test_findings_come_together_as_in_practice() -> None:
    cases = [case.labels for case in sample_cases("reference", 20_000, 4)]
    table = {label: np.array([case[label] for case in cases], bool) for label in CHEXPERT_LABELS}
    for first, second in (("edema", "cardiomegaly"), ("edema", "pleural_effusion"), ("pneumonia", "consolidation")):
        assert table[second][table[first]].mean() > 2 * table[second].mean()


def test_severities_are_mostly_mild_and_moderate(balanced: list[Case]) -> None:
    grades = [finding.severity for case in balanced if not case.image_index for finding in case.findings]
    shares = [grades.count(severity) / len(grades) for severity in SEVERITIES]
    assert np.abs(np.array(shares) - [0.4, 0.4, 0.2]).max() < 0.05


def test_heart_ratios_of_normal_and_mild_overlap(balanced: list[Case]) -> None:
    ratio: dict[str, list[float]] = {}
    for case in balanced:
        if case.view == "PA":
            heart = next((finding.severity for finding in case.findings if finding.kind == "cardiomegaly"), "normal")
            ratio.setdefault(heart, []).append(case.ctr)
    assert max(ratio["normal"]) <= 0.52
    assert min(ratio["mild"]) >= 0.49
    assert min(ratio["mild"]) < max(ratio["normal"])
    assert np.mean(ratio["mild"]) < np.mean(ratio["moderate"]) < np.mean(ratio["severe"])
    ap = [case.ctr for case in balanced if case.view == "AP" and not case.labels["cardiomegaly"]]
    assert np.mean(ap) > 1.05 * np.mean(ratio["normal"])


def test_reports_say_what_is_there_and_nothing_else(balanced: list[Case]) -> None:
    for case in balanced:
        text = case.report.lower()
        assert text.startswith("findings: ")
        assert " impression: " in text
        sentences = re.sub(r"(findings|impression): ", "", text).rstrip(".").split(". ")
        said = ". ".join(sentence for sentence in sentences if not re.match(NEGATION, sentence))
        for label, pattern in POSITIVE.items():
            assert bool(re.search(pattern, said)) == bool(case.labels[label]), (label, text)
        if not case.labels["lung_opacity"]:
            assert not re.search(r"opacity|infiltrate|shadowing", said), text
        for finding in case.findings:
            if finding.side in ("left", "right") and finding.kind not in ("support_devices", "edema"):
                assert finding.side in text


def test_vocabulary_holds_every_word(balanced: list[Case]) -> None:
    words = set(vocabulary())
    assert sorted(words) == vocabulary()
    for case in balanced:
        assert set(re.findall(r"[a-z]+|[^\sa-z]", case.report.lower())) <= words, case.report


def test_community_speaks_its_own_language(balanced: list[Case]) -> None:
    words: dict[str, set[str]] = {site: set() for site in SITES}
    for case in balanced:
        words[case.site] |= set(case.report.lower().split())
    assert "fluid" in words["community"] - words["reference"]
    assert len(words["community"] ^ words["reference"]) > 40
    assert words["portable"] & words["reference"] > {"effusion", "opacity"} - words["community"]


def test_keys_tell_images_and_sizes_apart() -> None:
    cases = sample_cases("reference", 50, 0) + sample_cases("reference", 50, 1) + sample_cases("low_dose", 50, 0)
    keys = {case_key(case, size) for case in cases for size in (128, 224)}
    assert len(keys) == 2 * len(cases)
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys | {generator_digest()})


def test_what_is_unknown_or_negative_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="portable"):
        sample_patient("portabel", 0, 0)
    with pytest.raises(UnknownNameError, match="balanced"):
        sample_patient("reference", 0, 0, "balance")
    with pytest.raises(InputError):
        sample_patient("reference", -1, 0)
    with pytest.raises(InputError):
        sample_cases("reference", -1)
