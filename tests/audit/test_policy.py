"""Policies: what the words mean, what is refused, and the verdicts of rule 10."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm_probe.audit.policy import default_policy, parse_policy, read_policy
from medvlm_probe.audit.rules import SUBJECTS, Rule, parse_rule
from medvlm_probe.audit.verdicts import check_labels, decide
from medvlm_probe.errors import InputError, UnknownNameError
from medvlm_probe.types import Estimate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recall(cardiomegaly) >= 0.80 with 95 % confidence", ("recall", "cardiomegaly", ">=", 0.8, 0.95)),
        ("Recall( Pleural Effusion ) ≥ 80 %", ("recall", "pleural_effusion", "≥", 0.8, 0.95)),
        ("overconfidence <= 0.05", ("overconfidence", "", "<=", 0.05, 0.95)),
        ("ece(edema) <= .1 with 90 % confidence", ("ece", "edema", "<=", 0.1, 0.90)),
        ("auroc(each label) >= .7 with 97.5% confidence", ("auroc", "each_label", ">=", 0.7, 0.975)),
        ("shift(classifier) <= 0.7", ("shift", "classifier", "<=", 0.7, 0.95)),
        ("no shift beyond 0.02", ("shift", "mmd", "<=", 0.02, 0.95)),
        ("no shift beyond 0.3 by directions with 99 % confidence", ("shift", "directions", "<=", 0.3, 0.99)),
        ("outlier share <= 10 %", ("outlier_share", "", "<=", 0.1, 0.95)),
        ("explanation(edema) usable", ("explanation", "edema", "usable", 0.0, 0.95)),
        ("explanation usable", ("explanation", "", "usable", 0.0, 0.95)),
    ],
)
def test_rules_in_plain_words(text: str, expected: tuple[object, ...]) -> None:
    rule = parse_rule(text)
    subject, of, operator, limit, confidence = expected
    assert (rule.subject, rule.of, rule.limit, rule.confidence) == (subject, of, limit, confidence)
    assert rule.operator == {"≥": ">="}.get(str(operator), operator)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("be good", InputError, "is no rule"),
        ("recal(edema) >= .8", UnknownNameError, "recall"),
        ("recall >= .8", InputError, "name the label"),
        ("recall(edema) <= .8", InputError, "written with >="),
        ("recall(edema) >= 80", InputError, "between 0 and 1"),
        ("recall(edema) >= .8 surely", InputError, "with 95 % confidence"),
        ("recall(edema) >= .8 with 30 % confidence", InputError, "more than 50"),
        ("shift(mdm) <= .1", UnknownNameError, "mmd"),
        ("outlier share(edema) <= .1", InputError, "brackets"),
        ("__import__('os').system('true') >= 1", InputError, "is no rule"),
        ("recall(edema) >= .8 >= .7", InputError, "not understood"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_to_write(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_rule(text)


def test_a_policy_file_says_which_rule_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('confidence = 90\nplanned = 7\n[[rule]]\nrule = "ece <= 0.1"\n')
    (rule,) = read_policy(path).rules
    assert (rule.confidence, rule.planned) == (0.9, 7)
    for text, words in (
        ("[[rule]", "no valid TOML"),
        ("name = 'x'", r"no \[\[rule\]\]"),
        ("[[rule]]\nbecause = 'x'", "Rule 1"),
        ("[[rule]]\nrule = 'ece <= .1'\n[[rule]]\nrule = 'nothing'", "Rule 2"),
        ("[[rule]]\nrule = 'ece <= .1'\nplanned = 0", "at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            parse_policy(text, "policy 'x'")
    with pytest.raises(UnknownNameError, match="because"):
        parse_policy("[[rule]]\nrule = 'ece <= .1'\nbecuase = 'x'", "policy 'x'")
    with pytest.raises(InputError, match="Cannot read"):
        read_policy(tmp_path / "none.toml")


def test_the_default_policy_asks_the_questions_of_a_proof_of_concept() -> None:
    policy = default_policy()
    subjects = {rule.subject for rule in policy.rules}
    assert {"shift", "recall", "overconfidence", "explanation"} <= subjects <= {*SUBJECTS, "explanation"}
    assert all(rule.because.endswith(".") and rule.planned >= 10 for rule in policy.rules)
    check_labels(policy, ["cardiomegaly"])
    with pytest.raises(UnknownNameError, match="cardiomegaly"):
        check_labels(parse_policy("[[rule]]\nrule = 'recall(cardiomegly) >= .8'", "p"), ["cardiomegaly"])


def bounds(value: float, low: float, high: float, *, reliable: bool = True) -> Estimate:
    return Estimate(value, low, high, 100, 100, "m", reliable)


def test_verdicts_go_by_the_bound_and_never_pass_on_fewer_people_than_planned() -> None:
    least = parse_rule("recall(edema) >= 0.8", planned=40)
    most = parse_rule("overconfidence <= 0.05", planned=40)

    def verdict(rule: Rule, estimate: Estimate, n: int = 50) -> str:
        return decide(rule, estimate, n)[0]

    assert verdict(least, bounds(0.9, 0.81, 0.95)) == "pass"
    assert verdict(least, bounds(0.9, 0.81, 0.95), 39) == "not enough evidence"
    assert verdict(least, bounds(0.9, 0.79, 0.95)) == "not enough evidence"
    assert verdict(least, bounds(0.7, 0.6, 0.79)) == "fail"
    assert verdict(least, bounds(0.7, 0.6, 0.79), 12) == "fail"
    assert verdict(least, bounds(0.1, 0.0, 0.2), 9) == "not enough evidence"
    assert verdict(least, bounds(0.9, 0.85, 0.95, reliable=False)) == "not enough evidence"
    assert verdict(least, bounds(float("nan"), float("nan"), float("nan"))) == "not enough evidence"
    assert verdict(most, bounds(0.01, -0.02, 0.04)) == "pass"
    assert verdict(most, bounds(0.01, -0.02, 0.06)) == "not enough evidence"
    assert verdict(most, bounds(0.2, 0.06, 0.3)) == "fail"
