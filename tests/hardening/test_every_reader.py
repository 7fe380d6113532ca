"""Changed files through every reader: a result or an error in words, whatever the file holds."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from every_reader import READERS, Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated_files import mutated

import medvlm_probe
from medvlm_probe.audit.policy import parse_policy, parse_rule
from medvlm_probe.cohort.data_cards import parse_card
from medvlm_probe.errors import LONGEST, ProbeError
from medvlm_probe.runs import parse_json, parse_toml

INPUTS, SLOW_INPUTS = 8, 2
READS = {
    "read_text", "read_bytes", "open", "read_csv", "ParquetFile", "safe_open", "load_file", "dcmread",
    "ZipFile", "memory_map", "open_file", "np.load", "torch.load", "GzipFile",
}  # fmt: skip
COVERED = {
    "audit/monitor_files.py": "monitor's state",
    "audit/policy.py": "policy",
    "audit/sketch_files.py": "sketch",
    "cli/audit.py": "explanations",
    "cli/grad_cam_agree.py": "annotations: sheet",
    "cli/report.py": "run: audit.json",
    "cohort/data_cards.py": "data card",
    "cohort/dicom_header.py": "DICOM, explicit",
    "cohort/folders.py": "class names",
    "cohort/importers/archives.py": "archive.tgz",
    "cohort/importers/iu_xray_reports.py": "report file",
    "cohort/importers/pannuke.py": "array",
    "cohort/importers/spreadsheets.py": "workbook",
    "cohort/importers/tables.py": "published table, gzip",
    "cohort/manifest_files.py": "manifest.csv",
    "cohort/pseudonyms.py": "key of pseudonyms",
    "cohort/region_coco.py": "regions: COCO",
    "cohort/region_images.py": "masks: PNG",
    "cohort/region_names.py": "region names",
    "cohort/report_labeler/rules.py": "rules of the labeler",
    "cohort/split_files.py": "splits",
    "embeddings/image_cache.py": "image at a model's size",
    "embeddings/store.py": "embeddings: shard",
    "models/bundle.py": "bundle: configuration",
    "models/checkpoint.py": "weights.bin",
    "models/lock.py": "lock",
    "models/training_data.py": "bundle: training data",
    "saliency/reader_sheet.py": "annotations",
    "tuning/checkpoints.py": "checkpoint",
    "tuning/heads.py": "head: facts",
    "tuning/post_hoc.py": "calibration",
    "zero_shot/prompts.py": "prompts",
    "zero_shot/score_files.py": "score file",
    "zero_shot/text_embeddings.py": "embeddings of texts",
    "zero_shot/tuned_prompts.py": "tuned prompts: facts",
}
"""Modules that read files from outside, and a reader that goes through them."""

NOT_PARSED = {
    "cohort/storage.py": "bytes, which the recipes and readers check",
    "cohort/images.py": "bytes, which the recipes check",
    "cohort/image_places.py": "bytes that are copied",
    "cohort/importers/digestpath.py": "bytes, which the recipes check",
    "cohort/importers/mimic_cxr.py": "report text",
    "cohort/importers/nih_cxr14.py": "names of images",
    "cohort/importers/rsna_pneumonia.py": "the organisers' list, every field checked",
    "cohort/phantom_export.py": "bytes that are compared",
    "cohort/importers/rsna18.py": "bytes that are copied",
    "cohort/remote_cohort.py": "bytes, which the readers of manifests and cards check",
    "cohort/write_manifest.py": "whether a card is of our own making",
    "models/assemble.py": "bytes that are copied",
    "models/medclip_download.py": "one published archive; tests/hardening/test_hostile_archives.py",
    "models/vendor.py": "the licence in a model card",
    "tuning/make_tuned.py": "the licence in a model card",
    "runs.py": "bytes that are hashed",
    "cohort/acquisition_greys.py": "an image made in memory",
    "audit/repair_journal.py": "numbers of our own, made again where damaged",
    "cohort/importers/patches.py": "tables of our own, written whole",
    "cli/audit_repair.py": "a CSV by pandas, every value checked",
    "tuning/full_folder.py": "facts of our own, written whole",
    "cohort/phantom/__init__.py": "our own sources",
    "cli/doctor_checks.py": "a file that it has just written",
    "cli/main.py": "os.devnull",
    "cli/doctor.py": "os.devnull",
    "report/page.py": "our own style",
    "report/calibprompt_published.py": "shipped numbers",
    "tuning/prompt_recipes.py": "shipped settings",
    "embeddings/threads.py": "the kernel's limits",
    "embeddings/precision.py": "the kernel's facts",
}


def calls(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            found.add(function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))
            found.add(ast.unparse(function))
    return found


def test_every_module_that_reads_files_is_listed() -> None:
    package = Path(medvlm_probe.__file__).parent
    reading = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls(path) & READS}
    assert reading - set(COVERED) - set(NOT_PARSED) == set(), "give it a reader in every_reader.py, or a reason here"
    assert set(COVERED.values()) <= {reader.name for reader in READERS}


@pytest.mark.parametrize("reader", [pytest.param(r, id=r.name) for r in READERS])
def test_a_changed_file_ends_in_a_result_or_in_words(reader: Reader, tmp_path: Path) -> None:
    subject = reader.make(tmp_path)
    subject.read()
    data = subject.file.read_bytes()
    for number in range(SLOW_INPUTS if reader.slow else INPUTS):
        rng = np.random.default_rng([*os.fsencode(reader.name), number])
        subject.file.write_bytes(mutated(data, reader.kind, rng))
        if subject.seal is not None and rng.random() < 0.7:
            subject.seal()
        message = "read"
        try:
            subject.read()
        except ProbeError as error:
            message = str(error)
        assert 0 < len(message) <= LONGEST + 10
        assert "\x1b" not in message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(text=st.text(max_size=300))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_json, parse_toml):
        try:
            parse(text)
        except ValueError:
            continue
    for read in (
        lambda: parse_policy(text, "it"),
        lambda: parse_policy(f"[[rule]]\nrule = '''{text}'''", "it"),
        lambda: parse_rule(text),
        lambda: parse_card(f"---\n{text}\n---\n", "it"),
        lambda: parse_card(f"---\nname: a\nlabels:\n  a: {text}\n---\n", "it"),
    ):
        try:
            read()
        except ProbeError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        "-Infinity",
        "1e999",
        '"\\ud800"',
        '{"a": "\\udc00b"}',
        "9" * 5_000,
        "9" * 400,
    ],
)
def test_json_that_fails_later_is_refused_at_once(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(ValueError):
            parse_json(form)


def test_toml_has_no_integers_beyond_64_bits() -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        parse_toml(f"[[a]]\nb = [true, {{c = {-(2**63) - 1}}}]")
    assert parse_toml(f"a = [true, {2**63 - 1}]") == {"a": [True, 2**63 - 1]}


def test_json_keeps_what_is_right() -> None:
    text = '{"n": 1000000000000000019884624838656, "a": [1, 2.5, null, "ü", "\\ud83d\\ude00", "back\\\\ud800"]}'
    assert (
        parse_json(text)
        == parse_json(text.encode())
        == {
            "n": 1000000000000000019884624838656,
            "a": [1, 2.5, None, "ü", "😀", "back\\ud800"],
        }
    )
