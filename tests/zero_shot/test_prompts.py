"""Prompt sets: those that come with the tool, files of one's own, and what an audit finds in their words."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.zero_shot.prompt_audit import audit_words
from medvlm_probe.zero_shot.prompts import LabelPrompts, PromptSet, load_prompts, prompts_of_names, shipped_prompt_sets


@pytest.mark.parametrize("name", shipped_prompt_sets())
def test_shipped_sets_have_all_labels_and_read_well(name: str) -> None:
    found = load_prompts(name)
    assert tuple(found.labels) == CHEXPERT_LABELS
    assert found.provenance != "not stated"
    assert [p for p in audit_words(found) if p.kind != "no_negatives"] == []


def test_no_finding_is_never_negated_by_its_name() -> None:
    for name in ("chexzero", "radiology"):
        texts = load_prompts(name).labels["no_finding"]
        assert not any("no no" in text.lower() for text in (*texts.positive, *texts.negative))
        assert all(text not in texts.positive for text in texts.negative)


def test_templates_take_every_phrase(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'templates = ["{}", "X-ray: {}"]\n[labels.edema]\npositive = ["edema", "wet lungs"]\nnegative = ["dry lungs"]\n'
        '[labels.mass]\npositive = ["mass"]\ntemplates = ["a {}"]\n'
    )
    found = load_prompts(str(path))
    assert found.name == "mine"
    assert found.labels["edema"].positive == ("edema", "X-ray: edema", "wet lungs", "X-ray: wet lungs")
    assert found.labels["edema"].negative == ("dry lungs", "X-ray: dry lungs")
    assert found.labels["mass"] == LabelPrompts(("a mass",))
    assert not found.has_negatives
    assert found.select(["edema"]).has_negatives
    with pytest.raises(InputError, match="no prompts for fracture"):
        found.select(["fracture"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("labels = 3", "has no labels"),
        ("[labels]\n", "has no labels"),
        ("[labels.edema]\nnegative = ['x']", "positive is empty"),
        ("[labels.edema]\npositive = 'edema'", "expected a list of texts"),
        ("[labels.edema]\npositiv = ['edema']", "Did you mean positive"),
        ("templates = ['x']\n[labels.edema]\npositive = ['edema']", "exactly one"),
        ("titel = 'x'\n[labels.edema]\npositive = ['edema']", "Did you mean title"),
        ("[labels.edema\n", "no valid TOML"),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises((InputError, UnknownNameError), match=says):
        load_prompts(str(path))


def test_unknown_names_and_missing_files() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean chexzero"):
        load_prompts("chexzro")
    with pytest.raises(InputError, match="no prompt file"):
        load_prompts("missing.toml")


def test_the_labels_own_names() -> None:
    found = prompts_of_names({"adi": "adipose tissue"}, ["An H&E image of {}."])
    assert found.labels["adi"].positive == ("An H&E image of adipose tissue.",)


@pytest.mark.parametrize(
    ("positive", "negative", "kind"),
    [
        ("no no finding", "x", "double_negation"),
        ("no evidence of no mass", "x", "double_negation"),
        ("there is is edema", "x", "repeated_word"),
        ("there is support devices", "x", "grammar"),
        ("{} is seen", "x", "unfilled"),
        ("edema", "Edema.", "same_text"),
        ("no edema", "x", "negated_positive"),
    ],
)
def test_what_reads_wrongly_is_found(positive: str, negative: str, kind: str) -> None:
    prompts = PromptSet("mine", "", "", {"edema": LabelPrompts((positive,), (negative,))})
    assert kind in {problem.kind for problem in audit_words(prompts)}
