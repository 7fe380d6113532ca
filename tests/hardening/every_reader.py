"""Every reader of files, each with a valid file to change: what tests and `analyses/fuzz_readers.py` fuzz.

A reader is held to this: whatever the file holds, it ends in a result or in an error of `medvlm_probe.errors`, in
bounded time and memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / part) for part in ("cohort", "models", "report") if str(TESTS / part) not in sys.path]

from medvlm_probe.cohort import recipes  # noqa: E402
from medvlm_probe.runs import sha256_json, write_json  # noqa: E402

Read = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A valid file in a folder of its own, and how it is read.

    Attributes:
        file: the one that is changed.
        read: reads it as the commands do.
        seal: makes checksums beside or within it true again, as a hostile writer would; None where there are none.
    """

    file: Path
    read: Read
    seal: Callable[[], None] | None = None


@dataclass(frozen=True)
class Reader:
    """A reader by name; `kind` is the key of `mutated_files.KINDS` for its file, `slow` one that loads a model."""

    name: str
    kind: str
    make: Callable[[Path], Subject]
    slow: bool = False


def _cells(bits: int = 8) -> Any:
    ramp = np.add.outer(np.arange(24), np.arange(20)) * (2**bits // 48)
    return ramp.astype(np.uint8 if bits == 8 else np.uint16)


def _manifest_rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"a/{k}.png" for k in range(6)],
            "patient": ["007", "007", "8", "9", "10", "11"],
            "site": ["north", "north", "south", "south", "", "Süd"],
            "split": ["train", "test"] * 3,
            "age": ["61", "61.5", "", "0", "119", "50"],
            "sex": ["F", "m", "other", "", "F", "M"],
            "report": ['"clear", they said', "two\nlines", "", "=1+1", "a", "b"],
            "Pleural Effusion": ["1", "0", "-1", "", "1.0", "0"],
            "edema": [1, 0, 0, 1, 0, 1],
            "note": ["x", "", "y", "z", "1", "2"],
        }
    )


def _manifest(suffix: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.cohort.manifest import read_manifest

        file, rows = folder / f"manifest{suffix}", _manifest_rows()
        if suffix == ".csv":
            rows.to_csv(file, index=False)
        else:
            rows.assign(site=rows["site"].astype("category"), edema=rows["edema"].astype(bool)).to_parquet(file)
        return Subject(file, lambda: read_manifest(file))

    return make


def _cohort_folder(name: str) -> Callable[[Path], Subject]:
    """A cohort folder with images, its manifest and its card; one of the two is changed."""

    def make(folder: Path) -> Subject:
        from medvlm_probe.cohort.catalog import load_cohort

        rows = _manifest_rows().drop(columns="report")
        for image in rows["image"]:
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_cells()).save(folder / image)
        rows.to_csv(folder / "manifest.csv", index=False)
        (folder / "DATA_CARD.md").write_text(_CARD, encoding="utf-8")

        def read() -> None:
            cohort = load_cohort(str(folder / "manifest.csv"))
            _ = cohort.fingerprint, cohort.groups, cohort.sites, cohort.targets()
            for row in range(min(len(cohort), 3)):
                cohort.source.read(row)

        return Subject(folder / name, read)

    return make


_CARD = """---
name: mine
title: "A cohort: mine"
task: multi_label
labels:
  pleural_effusion: Pleural effusion
  edema: Edema
uncertainty: ignore
importer: manifest
manifest: manifest.csv
image_root: .
recipe: png/v1
split: {train: to fit, test: to judge}
same_as: [nih_cxr14]
known_traps:
  - Portable films are of the sicker.
---

# Mine

Text.
"""


def _card(folder: Path) -> Subject:
    from medvlm_probe.cohort.data_cards import read_card

    file = folder / "card.md"
    file.write_text(_CARD, encoding="utf-8")
    return Subject(file, lambda: read_card(file))


def _text_reader(name: str, content: str, read: Callable[[Path], object]) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        file = folder / name
        file.write_text(content, encoding="utf-8")
        return Subject(file, lambda: read(file))

    return make


def _policy(path: Path) -> object:
    from medvlm_probe.audit.policy import read_policy

    return read_policy(path)


def _prompts(path: Path) -> object:
    from medvlm_probe.zero_shot.prompts import load_prompts

    return load_prompts(str(path))


def _label_map(path: Path) -> object:
    from medvlm_probe.zero_shot.score_files import read_label_map

    return read_label_map(path)


def _scores(path: Path) -> object:
    from medvlm_probe.zero_shot.score_files import LabelMap, read_score_file

    mapping = LabelMap(
        "probability", "", {"edema": "edema", "b": "edema"}, "truth", ";", {"Edema": "edema"}, {"edema_truth": "edema"}
    )
    return read_score_file(path), read_score_file(path, mapping)


def _region_names(path: Path) -> object:
    from medvlm_probe.cohort.region_names import read_region_names

    return read_region_names(path)


def _regions(form: str | None = None, label: str | None = None) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from medvlm_probe.cohort.region_files import read_drawn
        from medvlm_probe.errors import ProbeError

        drawn = read_drawn(path, form=form, label=label)
        for region in drawn.drawn[:20]:
            if region.runs is not None:
                try:
                    region.runs(20, 24).pixels()
                except ProbeError:
                    continue
        return drawn

    return read


def _masks(folder: Path) -> Subject:
    file = folder / "edema" / "a.png"
    file.parent.mkdir()
    Image.fromarray(np.where(_cells() > 100, 255, 0).astype(np.uint8)).save(file)
    read = _regions()
    return Subject(file, lambda: read(folder))


def _image(form: str, bits: int = 8, recipe: str = recipes.PNG) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        file = folder / f"a.{form}"
        Image.fromarray(_cells(bits)).save(file)
        return Subject(file, lambda: _decoded(file.read_bytes(), recipe))

    return make


def _decoded(data: bytes, recipe: str) -> object:
    named = recipes.recipe_named(recipe)
    recipes.checked_header(data, named, 1 << 22)
    return recipes.decode(data, named, 1 << 22)


def _dicom(how: str, bits: int) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        import dicom_files

        from medvlm_probe.cohort.dicom_header import read_attributes
        from medvlm_probe.errors import ImageError

        file = folder / "a.dcm"
        patient = {"PatientID": "SECRET", "PatientAge": "061Y", "ViewPosition": "PA", "StudyDate": "20200131"}
        file.write_bytes(
            getattr(dicom_files, how)(_cells(bits), bits, WindowCenter=[40, 50], WindowWidth=[80, 100], **patient)
        )

        def read() -> None:
            data = file.read_bytes()
            for recipe in (recipes.DICOM, f"{recipes.DICOM}:window2"):
                try:
                    _decoded(data, recipe)
                except ImageError as error:
                    if "SECRET" in str(error):
                        raise AssertionError("a message names a patient") from error
            read_attributes(file, ("PatientID", "PatientAge", "ViewPosition", "StudyDate", "SOPClassUID"))

        return Subject(file, read)

    return make


def _weights(suffix: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        import torch
        from safetensors.torch import save_file

        from medvlm_probe.models.checkpoint import read_state_dict

        file = folder / f"weights{suffix}"
        tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}
        if suffix == ".safetensors":
            save_file(tensors, file, metadata={"format": "pt"})
        else:
            torch.save(tensors, file, _use_new_zipfile_serialization=suffix == ".bin")
        return Subject(file, lambda: read_state_dict(file))

    return make


def _bundle(name: str) -> Callable[[Path], Subject]:
    """The shipped model in a folder of one's own; a configuration or the weights' header is changed."""

    def make(folder: Path) -> Subject:
        import medvlm_probe.models as models
        from medvlm_probe.models.training_data import declared_training_data
        from medvlm_probe.models.zoo import load_model

        home = folder / "bundle"
        shutil.copytree(Path(models.__file__).parent / "phantom_clip", home)

        def read() -> None:
            for declared in declared_training_data(f"local:{home}"):
                declared.image_keys()
            if name != "training_data.json":
                load_model(f"local:{home}", device="cpu")

        return Subject(home / name, read)

    return make


def _lock(folder: Path) -> Subject:
    from medvlm_probe.models.lock import LOCK_NAME, Lock, LockedFile, Origin, read_lock, refuse_changes, write_lock

    data = b"weights"
    (folder / "w.safetensors").write_bytes(data)
    origin = Origin("owner/name", "0" * 40, "w.safetensors")
    locked = LockedFile(hashlib.sha256(data).hexdigest(), len(data), origin)
    write_lock(folder, Lock("biomedclip", "open_clip", "MIT", {"w.safetensors": locked}))

    def read() -> None:
        lock = read_lock(folder)
        assert lock is not None
        refuse_changes(folder, lock)
        lock.sources()

    return Subject(folder / LOCK_NAME, read)


def _sketch(kind: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.audit.sketch_files import read_sketch, write_sketch
        from medvlm_probe.shift.random_features import RandomFeatures
        from medvlm_probe.shift.sketch import sketch
        from medvlm_probe.shift.sketch_comparison import compare_sketches
        from medvlm_probe.shift.sketch_export import export_sketch
        from medvlm_probe.shift.sketch_plan import SketchPlan

        rng = np.random.default_rng(0)
        plan = SketchPlan(
            RandomFeatures(4, 1.0, 8), "m", "f" * 64, "radiology", ("edema",), (0.5,), ("energy",), n_folds=4
        )
        made = sketch(
            plan,
            rng.standard_normal((40, 4)),
            [f"p{k}" for k in range(40)],
            probabilities=rng.random((40, 1)),
            labels=rng.integers(0, 2, (40, 1)).astype(float),
            outlier_scores={"energy": rng.standard_normal(40)},
        )
        made = made if kind == "working" else export_sketch(made)
        file = folder / "a.sketch"
        write_sketch(file, made)

        def read() -> None:
            compare_sketches(made, read_sketch(file))

        return Subject(file, read)

    return make


def _store(what: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.embeddings.store import EmbeddingStore, shard_name

        keys, home = [f"{k:064x}" for k in range(5)], folder / "store"
        vectors = np.arange(16, dtype=np.float32).reshape(4, 4)
        EmbeddingStore(home, 4).publish(keys, vectors, {keys[4]: "truncated"})
        name = shard_name(keys)
        shard, entry = home / "shards" / f"{name}.arrow", home / "ledger" / f"{name}.json"
        kept = {path: path.read_bytes() for path in (shard, entry)}

        def read() -> None:
            store = EmbeddingStore(home, 4)
            found = [key for key, there in zip(keys, store.has(keys), strict=True) if there]
            store.vectors(found)
            store.failed()
            store.publish(keys, vectors, {keys[4]: "truncated"})
            for path, data in kept.items():
                path.write_bytes(data)

        def seal() -> None:
            data = shard.read_bytes()
            facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "images": 4}
            write_json(entry, facts | {"failed": {keys[4]: "truncated"}})

        return Subject(shard if what == "shard" else entry, read, seal if what == "shard" else None)

    return make


def _texts_cache(folder: Path) -> Subject:
    from medvlm_probe.zero_shot import text_embeddings

    file = folder / "a.npz"
    np.savez(file, keys=np.array(["a", "b"]), vectors=np.ones((2, 4), np.float32))
    return Subject(file, lambda: text_embeddings._cached(folder, 4))


def _image_cache(folder: Path) -> Subject:
    from medvlm_probe.cohort.images import FileImages
    from medvlm_probe.embeddings.image_cache import CachedImages

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)).save(folder / "a.png")
    source = CachedImages(FileImages(folder, ("a.png",)), lambda image: image.resize((32, 32)), 32, folder / "kept")
    source.read(0)
    return Subject(next((folder / "kept").rglob("*.png")), lambda: source.read(0))


def _monitor(folder: Path) -> Subject:
    from medvlm_probe.audit.monitor import Arrivals, Monitor, batch_record, new_header, residuals
    from medvlm_probe.audit.monitor_files import append_record, read_state, start_state

    def arrivals(seed: int, n: int) -> Arrivals:
        rng = np.random.default_rng(seed)
        p, y = rng.random((n, 2)), rng.integers(0, 2, (n, 2)).astype(float)
        names = tuple(f"{seed}-{k}" for k in range(n))
        return Arrivals(names, names, {"outliers": rng.standard_normal(n), "calibration": residuals(p, y)}, y)

    file = folder / "state.jsonl"
    state = start_state(file, new_header(arrivals(0, 30), {"alpha": 0.05, "seed": 0, "model": "f"}))
    for seed in (1, 2):
        state = append_record(state, batch_record(Monitor(state.records), arrivals(seed, 4)))

    def read() -> None:
        monitor = Monitor(read_state(file).records)
        monitor.to_json()
        batch_record(monitor, arrivals(3, 4))

    def seal() -> None:
        lines = []
        for line in file.read_bytes().splitlines():
            try:
                record = json.loads(line)["record"]
                text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
            except (ValueError, LookupError, TypeError, RecursionError):
                lines.append(line)
                continue
            digest = hashlib.sha256(text.encode()).hexdigest()
            lines.append(f'{{"sha256":"{digest}","record":{text}}}'.encode())
        file.write_bytes(b"\n".join(lines) + b"\n")

    return Subject(file, read, seal)


def _run_folder(command: str, name: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from audit_result import SVG, audit_result

        from medvlm_probe.cli.report import report

        run = folder / "run"
        run.mkdir()
        result = audit_result() if command == "audit" else _ZERO_SHOT
        write_json(run / f"{command}.json", result)
        record = {"command": command, "config": {}, "started": "2026-01-01T00:00:00+00:00", "wall_seconds": 1.5}
        record |= {"versions": {"python": "3"}, "platform": "x", "model": "phantom-clip", "cohort": "phantom"}
        write_json(run / "run.json", record)
        (run / "forest.svg").write_text(SVG, encoding="utf-8")
        return Subject(run / name, lambda: report([run], folder / "page.html", quiet=True))

    return make


_ESTIMATE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 50, "n_groups": 40, "method": "Wilson"}
_ZERO_SHOT = {
    "labels": [
        {"label": "edema", "n_positive": 20, "n_negative": 30, "n_unknown": 0, "n_groups": 40, "threshold": 0.5}
        | {"threshold_from": "train", "recall": _ESTIMATE, "auroc": _ESTIMATE, "average_precision": _ESTIMATE}
    ],
    "ranking": {"label_ranking_average_precision": _ESTIMATE, "n_undefined": 0},
    "baselines": {},
}


def _splits(folder: Path) -> Subject:
    from medvlm_probe.cohort.split_files import FORMAT, read_splits

    file = folder / "splits.json"
    parts = {"train": [f"{k:064x}" for k in range(4)], "test": [f"{k:064x}" for k in range(4, 6)]}

    def seal() -> None:
        try:
            content = json.loads(file.read_bytes())
            content["assignments_sha256"] = sha256_json(content["assignments"])
            write_json(file, content)
        except (ValueError, LookupError, TypeError, RecursionError):
            return

    write_json(file, {"format": FORMAT, "assignments": parts, "assignments_sha256": sha256_json(parts)})
    return Subject(file, lambda: read_splits(file), seal)


def _label_file(path: Path) -> object:
    from medvlm_probe.cohort.cohort import Cohort
    from medvlm_probe.cohort.data_cards import DataCard
    from medvlm_probe.cohort.images import FileImages
    from medvlm_probe.cohort.importers import label_files
    from medvlm_probe.cohort.label_files import read_label_file

    table = pd.DataFrame({"image": ["a.png", "b.png"], "study": ["1", "2"], "edema": np.float32([1, 0])})
    source = FileImages(Path(), ("a.png", "b.png"))
    read_label_file(path, Cohort("mine", table, ("edema",), "ignore", source, DataCard(name="mine")))
    return label_files.read_label_file(path, {"study": str.strip}).matched(["1", "2"])


def _head(name: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.tuning.heads import LinearHead, read_head, write_head

        weight = np.arange(8.0).reshape(2, 4)
        write_head(
            folder, LinearHead(("edema", "fracture"), weight, np.zeros(2), "l2", "linear_probe", "f", {"folds": 5})
        )
        x = np.ones((2, 4), np.float32)
        return Subject(
            folder / name,
            lambda: read_head(folder).logits(x),
            _sealing(folder / "head.json", folder / "head.safetensors"),
        )

    return make


def _tuned(name: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.zero_shot.prompts import load_prompts
        from medvlm_probe.zero_shot.tuned_prompts import FACTS_FILE, TENSORS_FILE, TunedPrompts, write_tuned_prompts

        context = np.ones((1, 2, 4), np.float32)
        tuned = TunedPrompts(("a", "b"), ("a", "b"), (), context, (0, 0), "end", "m", "f" * 64, 10.0, False, {"n": 1})
        write_tuned_prompts(folder, tuned, "card")
        file = folder / {"facts": FACTS_FILE, "tensors": TENSORS_FILE}[name]
        return Subject(
            file, lambda: load_prompts(f"tuned:{folder}"), _sealing(folder / FACTS_FILE, folder / TENSORS_FILE)
        )

    return make


def _sealing(facts: Path, tensors: Path) -> Callable[[], None]:
    def seal() -> None:
        try:
            content = json.loads(facts.read_bytes())
            content["tensors_sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()
            facts.write_text(json.dumps(content))
        except (ValueError, TypeError, RecursionError):
            return

    return seal


def _calibrator(path: Path) -> object:
    from medvlm_probe.tuning.post_hoc import load_calibrator
    from medvlm_probe.types import Scores

    found = load_calibrator(path)
    scores = Scores(np.array([[0.5, -1.0], [2.0, 0.1]]), "logit", ("edema", "fracture"), ("a", "b"))
    return found.apply(scores)


_CALIBRATION = json.dumps(
    {
        "method": "temperature", "labels": ["edema", "fracture"], "mode": "labels", "n_parameters": 2, "source": "val",
        "n_known": [50, 50], "n_positive": [10, 12], "notes": ["a"],
        "curves": [{"shape": "logistic", "numbers": [1.0, 0.0]}, {"shape": "steps", "numbers": [-1.0, 1.0, 0.2, 0.8]}],
    }
)  # fmt: skip


def _checkpoint(folder: Path) -> Subject:
    import torch

    from medvlm_probe.tuning.checkpoints import CHECKPOINT_FILE, Checkpoint, read_checkpoint, write_checkpoint

    weights = {"a": torch.ones(3)}
    write_checkpoint(folder, Checkpoint(weights, {"0/step": torch.ones(1)}, {"epoch": 1, "config": "f"}))
    return Subject(folder / CHECKPOINT_FILE, lambda: read_checkpoint(folder))


def _annotations(path: Path) -> object:
    from medvlm_probe.saliency.reader_sheet import read_annotations

    return read_annotations(path, {"img-1": ["edema"], "img-2": ["edema", "hernia"]})


def _sheet(path: Path) -> object:
    from medvlm_probe.cli import grad_cam_agree

    return grad_cam_agree._facts(path.parent)


def _explanations(path: Path) -> object:
    from medvlm_probe.cli import audit

    return audit._explanations(path.parent)


def _archive(form: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from medvlm_probe.cohort.importers.archives import Caps, unpack

        file = folder / f"a.{form}"
        with tarfile.open(file, "w:gz" if form == "tgz" else "w") as archive:
            for k in range(3):
                info = tarfile.TarInfo(f"deep/{k}.png")
                info.size = 40
                archive.addfile(info, io.BytesIO(b"pixels %d" % k * 5))

        def read() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            unpack(file, folder / "out", (".png",), lambda text: None, Caps(10, 1 << 16, 1 << 18))

        return Subject(file, read)

    return make


def _unpacked(folder: Path) -> Subject:
    from medvlm_probe.cohort.importers.archives import DONE_FILE, unpack

    subject = _archive("tar")(folder)
    subject.read()
    return Subject(
        folder / "out" / DONE_FILE,
        lambda: unpack(subject.file, folder / "out", (".png",), lambda text: None),
    )


def _workbook(folder: Path) -> Subject:
    from workbooks import workbook

    from medvlm_probe.cohort.importers.spreadsheets import read_sheet

    file = workbook(folder / "a.xlsx", [["image", "label"], ["a.png", 1], ["b.png", None]])
    return Subject(file, lambda: read_sheet(file))


def _report_file(path: Path) -> object:
    from medvlm_probe.cohort.importers.iu_xray_reports import read_report

    return read_report(path)


_REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR12"/><Abstract><AbstractText Label="FINDINGS">Heart &amp; lungs clear.</AbstractText>
<AbstractText Label="IMPRESSION">Normal.</AbstractText></Abstract><MeSH><major>normal</major></MeSH>
<parentImage id="CXR12_IM-0001-3001"><caption>PA view</caption></parentImage></eCitation>
"""


def _table(path: Path) -> object:
    from medvlm_probe.cohort.importers import tables

    table = tables.read_table(path, ("id", "age"), None)
    found = tables.ages(table["age"]), tables.numbers(table["age"])
    return found, tables.sexes(tables.column(table, "sex")), tables.views(tables.column(table, "view"))


def _gzipped_table(folder: Path) -> Subject:
    file = folder / "a.csv.gz"
    file.write_bytes(gzip.compress(b"id,age,sex,view\n1,058Y,F,PA\n2,9,M,\n", mtime=0))
    return Subject(file, lambda: _table(file))


def _array(folder: Path) -> Subject:
    from medvlm_probe.cohort.importers import pannuke

    file = folder / "images.npy"
    np.save(file, np.arange(24.0).reshape(2, 3, 4))
    return Subject(file, lambda: np.asarray(pannuke._array(file)).sum())


def _pseudonym_key(path: Path) -> object:
    from medvlm_probe.cohort.pseudonyms import read_key

    return read_key(path)


def _labeler_rules(path: Path) -> object:
    from medvlm_probe.cohort.report_labeler.rules import rules_of

    return rules_of(path.read_text(encoding="utf-8", errors="replace"))


def _class_folder(folder: Path) -> Subject:
    from medvlm_probe.cohort.catalog import load_cohort

    for part in ("train", "test"):
        for name in ("a_b", "c"):
            (folder / "images" / part / name).mkdir(parents=True)
            Image.fromarray(_cells()).save(folder / "images" / part / name / "x.png")
    file = folder / "classnames.txt"
    file.write_text("a_b Adipose tissue\nc Mucus\n")
    return Subject(file, lambda: load_cohort(str(folder)))


def _folder_table(folder: Path) -> Subject:
    from medvlm_probe.cohort.folder_tables import names_files, read_folder_table

    file = folder / "labels.csv"
    file.write_text("filename,age,sex,finding,edema\nx.png,61,F,Edema,1\ny.png,,M,none,0\n")

    def read() -> None:
        names_files(file)
        read_folder_table(file, ["x.png", "y.png"])

    return Subject(file, read)


def _clip_folder(name: str) -> Callable[[Path], Subject]:
    def make(folder: Path) -> Subject:
        from hugging_face_folders import write_clip_folder

        from medvlm_probe.models.zoo import load_model

        write_clip_folder(folder / "clip")
        return Subject(folder / "clip" / name, lambda: load_model(f"local:{folder / 'clip'}", device="cpu"))

    return make


_COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 24}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "edema"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
            {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [24, 20], "counts": [40, 10, 430]}},
            {"id": 4, "image_id": 1, "category_id": 1, "segmentation": {"size": [24, 20], "counts": "X1:`=0"}},
        ],
    }
)
_RULES = """[[rule]]
rule = "recall(cardiomegaly) >= 0.80 with 95 % confidence"
because = "Not to be missed."
[[rule]]
rule = "no shift beyond 0.05 by mmd"
planned = 40
[[rule]]
rule = "explanation usable"
"""
_PROMPTS = """title = "Mine"
provenance = "Own"
templates = ["a film with {}", "{}"]
[labels.edema]
positive = ["edema", "fluid"]
negative = ["no edema"]
[labels.hernia]
positive = ["a hernia"]
templates = ["{}"]
"""
_MAP = """kind = "probability"
key = "image"
[scores]
"Edema score" = "edema"
[truth]
column = "truth"
separator = ";"
[truth.labels]
"Edema" = "edema"
"""
_LABELER = """labels = ["edema", "no_finding"]
[spelling]
oedema = "edema"
[sections]
read = ["findings"]
skipped = ["history"]
[negation]
before = ["no", "without"]
after = ["is absent"]
not_one = ["no change"]
ends_also_at = ["and"]
[uncertainty]
before = ["possible"]
after = ["is possible"]
after_ends_also_at = ["but"]
[not_asserted]
before = ["history of"]
after = ["was ruled out"]
[scope]
ends_at = ["but"]
[label.edema]
mentions = ["edema"]
[no_finding]
label = "no_finding"
unless = ["edema"]
[implied]
edema = []
"""

READERS: tuple[Reader, ...] = (
    Reader("manifest.csv", "text", _manifest(".csv")),
    Reader("manifest.parquet", "bytes", _manifest(".parquet")),
    Reader("cohort: manifest", "text", _cohort_folder("manifest.csv")),
    Reader("cohort: card", "text", _cohort_folder("DATA_CARD.md")),
    Reader("cohort: image", "bytes", _cohort_folder("a/0.png")),
    Reader("data card", "text", _card),
    Reader("class names", "text", _class_folder),
    Reader("folder table", "text", _folder_table),
    Reader("policy", "text", _text_reader("policy.toml", _RULES, _policy)),
    Reader("prompts", "text", _text_reader("prompts.toml", _PROMPTS, _prompts)),
    Reader("label map", "text", _text_reader("map.toml", _MAP, _label_map)),
    Reader(
        "score file",
        "text",
        _text_reader(
            "s.csv",
            "image,edema,b,truth,edema_truth\na.png,0.5,0.1,Edema;x,1\nb.png,0.25,0.2,,0\n",
            _scores,
        ),
    ),
    Reader(
        "region names",
        "text",
        _text_reader("map.toml", '[regions]\n"Mass" = ["lung_lesion"]\nRib = []\nA = "edema"\n', _region_names),
    ),
    Reader(
        "boxes",
        "text",
        _text_reader("boxes.csv", "image,label,x,y,w,h\na.png,edema,1,2,3,4\nb.png,mass,0,0,9.5,9\n", _regions()),
    ),
    Reader(
        "boxes: NIH",
        "text",
        _text_reader(
            "nih.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,3,4,,,\n", _regions("nih")
        ),
    ),
    Reader(
        "boxes: RSNA",
        "text",
        _text_reader("rsna.csv", "patientId,x,y,width,height,Target\na,1,2,3,4,1\nb,,,,,0\n", _regions("rsna")),
    ),
    Reader(
        "masks: relative run lengths",
        "text",
        _text_reader("siim.csv", "ImageId,EncodedPixels\na,10 5 20 5\nb,-1\n", _regions("siim-rle")),
    ),
    Reader(
        "masks: absolute run lengths",
        "text",
        _text_reader("k.csv", "ImageId,EncodedPixels\na,10 5 40 5\nb,\n", _regions("kaggle-rle", "edema")),
    ),
    Reader("regions: COCO", "json", _text_reader("coco.json", _COCO, _regions())),
    Reader("masks: PNG", "bytes", _masks),
    Reader("PNG", "bytes", _image("png")),
    Reader("PNG, 16 bits", "bytes", _image("png", 16)),
    Reader("JPEG", "bytes", _image("jpg")),
    Reader("TIFF", "bytes", _image("tiff")),
    Reader("DICOM, explicit", "bytes", _dicom("native", 12)),
    Reader("DICOM, implicit", "bytes", _dicom("in_implicit", 12)),
    Reader("DICOM, big endian", "bytes", _dicom("in_big_endian", 12)),
    Reader("DICOM, RLE", "bytes", _dicom("in_rle", 16)),
    Reader("DICOM, JPEG", "bytes", _dicom("in_jpeg", 8)),
    Reader("DICOM, JPEG lossless", "bytes", _dicom("in_jpeg_lossless", 12)),
    Reader("DICOM, JPEG 2000", "bytes", _dicom("in_jpeg_2000", 8)),
    Reader("weights.safetensors", "safetensors", _weights(".safetensors")),
    Reader("weights.bin", "bytes", _weights(".bin")),
    Reader("weights.pt, old form", "bytes", _weights(".pt")),
    Reader("bundle: configuration", "json", _bundle("open_clip_config.json"), slow=True),
    Reader("bundle: text tower", "json", _bundle("text/config.json"), slow=True),
    Reader("bundle: image tower", "json", _bundle("vision/config.json"), slow=True),
    Reader("bundle: tokenizer", "json", _bundle("tokenizer.json"), slow=True),
    Reader("bundle: tokenizer's configuration", "json", _bundle("tokenizer_config.json"), slow=True),
    Reader("bundle: training data", "json", _bundle("training_data.json")),
    Reader("CLIP folder: configuration", "json", _clip_folder("config.json"), slow=True),
    Reader("CLIP folder: preprocessing", "json", _clip_folder("preprocessor_config.json"), slow=True),
    Reader("lock", "json", _lock),
    Reader("sketch", "safetensors", _sketch("working")),
    Reader("sketch, export", "safetensors", _sketch("export")),
    Reader("embeddings: shard", "bytes", _store("shard")),
    Reader("embeddings: ledger", "json", _store("ledger")),
    Reader("embeddings of texts", "bytes", _texts_cache),
    Reader("image at a model's size", "bytes", _image_cache),
    Reader("monitor's state", "json_lines", _monitor),
    Reader("run: audit.json", "json", _run_folder("audit", "audit.json")),
    Reader("run: audit's run.json", "json", _run_folder("audit", "run.json")),
    Reader("run: zero-shot.json", "json", _run_folder("zero-shot", "zero-shot.json")),
    Reader("run: figure", "text", _run_folder("audit", "forest.svg")),
    Reader("splits", "json", _splits),
    Reader("label file", "text", _text_reader("l.csv", "Image,study,Edema\na.png,1,1\nb.png,2,\n", _label_file)),
    Reader("head: facts", "json", _head("head.json")),
    Reader("head: tensors", "safetensors", _head("head.safetensors")),
    Reader("tuned prompts: facts", "json", _tuned("facts")),
    Reader("tuned prompts: tensors", "safetensors", _tuned("tensors")),
    Reader("calibration", "json", _text_reader("c.json", _CALIBRATION, _calibrator)),
    Reader("checkpoint", "safetensors", _checkpoint),
    Reader(
        "annotations",
        "text",
        _text_reader(
            "a.csv", "image,label,present,confidence,x,y,w,h\nimg-1,edema,1,0.5,1,2,3,4\nimg-2,edema,0,,,,,\n",
            _annotations,
        ),
    ),
    Reader(
        "annotations: sheet",
        "json",
        _text_reader(
            "sheet.json",
            json.dumps(
                {"asked": {"img-1": ["edema"]}, "labels": {"edema": "Edema"}, "phantoms": True, "cohort": "mine"}
                | {"same_as": ["nih_cxr14"], "n_pixels": 9}
            ),
            _sheet,
        ),
    ),
    Reader(
        "explanations",
        "json",
        _text_reader(
            "grad-cam.json",
            json.dumps({"labels": [{"label": "edema", "controls": {"verdict": "usable"}, "n_with_region": 9}]}),
            _explanations,
        ),
    ),
    Reader("archive.tgz", "bytes", _archive("tgz")),
    Reader("archive.tar", "bytes", _archive("tar")),
    Reader("archive: its note", "json", _unpacked),
    Reader("workbook", "bytes", _workbook),
    Reader("report file", "text", _text_reader("12.xml", _REPORT, _report_file)),
    Reader("published table", "text", _text_reader("t.csv", "id,age,sex,view\n1,058Y,F,PA\n2,9,M,\n", _table)),
    Reader("published table, gzip", "bytes", _gzipped_table),
    Reader("array", "bytes", _array),
    Reader("key of pseudonyms", "text", _text_reader("key", "ab" * 32 + "\n", _pseudonym_key)),
    Reader("rules of the labeler", "text", _text_reader("rules.toml", _LABELER, _labeler_rules)),
)  # fmt: skip
