"""Train phantom-clip on phantoms of the reference site: `render`, `train` (both go on where killed), `export`.

    python analyses/train_phantom_clip.py render --work WORK
    python analyses/train_phantom_clip.py train --work WORK
    python analyses/train_phantom_clip.py export --work WORK

`render` and `train` may run side by side. Three kinds of losses are added. Each label's positive prompt against its
negative one, wordings drawn anew at every step (binary cross entropy of scale x cosine difference); image against
report (CLIP's contrastive loss); and, as a crutch that is thrown away, the findings' masks, the labels and the
cardiothoracic ratio read off the image tower's tokens by linear heads, which teaches small findings sooner than words.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from phantom_clip_bundle import BUNDLE, load_bundle, save_weights, write_bundle_files
from phantom_clip_data import CHUNK, Batch, batches, read_chunk, render, to_patches
from phantom_clip_optimizer import optimizers_for, scale_rates
from phantom_clip_prompts import pair_prompts, random_prompts
from phantom_clip_student import Student, initialise, normalised
from safetensors import safe_open
from safetensors.torch import load_file, save
from timm.layers import set_fused_attn
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm_probe.cohort.labels import CHEXPERT_LABELS
from medvlm_probe.cohort.phantom import generator_digest
from medvlm_probe.runs import write_bytes_atomically, write_json

TRAIN_SEED, VALIDATION_SEED = 1000, 2000
TRAIN_CHUNKS, VALIDATION_CHUNKS = 80, 4
STEPS, BATCH, WARM_UP = 2000, 64, 100
AVERAGE_DECAY = 0.995
CHECKPOINT_STEPS = 50
SHARES = {"prompts": 1.0, "contrast": 0.3, "masks": 1.0, "labels": 0.5, "ratio": 0.3}
LARGEST_LOGIT_SCALE = 50.0
REPORT_TOKENS = 96
FIGURES = Path(__file__).resolve().parents[1] / "figures" / "phantom_clip"


def label_logits(model: nn.Module, images: Tensor, tokenizer: Any, prompts: list[tuple[str, str]]) -> Tensor:
    """Return scale x (cosine to the positive - cosine to the negative prompt), (N, L)."""
    texts = [text for pair in prompts for text in pair]
    features = F.normalize(model.encode_text(shortened(tokenizer(texts))).float(), dim=-1)
    difference = features[0::2] - features[1::2]
    return model.logit_scale.exp() * F.normalize(images.float(), dim=-1) @ difference.T


def shortened(tokens: Tensor) -> Tensor:
    """Cut padding that no text of the batch needs, and reports after `REPORT_TOKENS` tokens."""
    return tokens[:, : min(REPORT_TOKENS, int((tokens != 0).sum(dim=1).max()))]


def losses(student: Student, batch: Batch, tokenizer: Any, rng: np.random.Generator) -> dict[str, Tensor]:
    """Return the losses of one batch by name."""
    model = student.model
    found = {name: value.float() for name, value in student(normalised(batch.images)).items()}
    present = torch.from_numpy(batch.severity >= 0).float()
    logits = label_logits(model, found["image"], tokenizer, random_prompts(rng)).float()
    reports = F.normalize(model.encode_text(shortened(tokenizer(batch.reports))).float(), dim=-1)
    similarity = (model.logit_scale.exp() * F.normalize(found["image"], dim=-1) @ reports.T).float()
    own = torch.arange(len(similarity))
    return {
        "prompts": F.binary_cross_entropy_with_logits(logits, present),
        "contrast": (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2,
        "masks": student.mask_loss(found["masks"], torch.from_numpy(batch.masks)),
        "labels": F.binary_cross_entropy_with_logits(found["labels"], present),
        "ratio": F.mse_loss(found["ratio"], (torch.from_numpy(batch.ctr) - 0.5) * 10),
    }


def accumulate_gradients(
    student: Student, batch: Batch, tokenizer: Any, step: int, pool: ThreadPoolExecutor, shares: int = 2
) -> dict[str, float]:
    """Set the batch's gradients, its shares going through the model side by side; returns the losses.

    Two shares on a thread each use two cores far better than two threads within every operation of so small a model.
    """
    parameters = list(student.parameters())

    def work(share: int) -> tuple[dict[str, float], tuple[Tensor | None, ...]]:
        part = batch.part(share, shares)
        with torch.autocast("cpu", torch.bfloat16):
            found = losses(student, part, tokenizer, np.random.default_rng([TRAIN_SEED, step, share]))
        total = sum(SHARES[name] * value for name, value in found.items()) / shares
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return {name: value.item() / shares for name, value in found.items()}, gradients

    results = list(pool.map(work, range(shares)))
    for parameter, *found in zip(parameters, *(gradients for _, gradients in results), strict=True):
        known = [gradient for gradient in found if gradient is not None]
        parameter.grad = sum(known[1:], known[0]) if known else None
    return {name: sum(values[name] for values, _ in results) for name in SHARES}


def rate_share(step: int, steps: int) -> float:
    """Return a step's learning rate over the full one: linear warm-up, then a cosine to a hundredth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def prefetched(items: Iterator[Batch], depth: int = 3) -> Iterator[Batch]:
    """Yield items that a thread prepares ahead."""
    ahead: queue.Queue[Batch] = queue.Queue(depth)

    def fill() -> None:
        for item in items:
            ahead.put(item)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ahead.get()


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative (no ties expected)."""
    ranks = np.empty(len(scores))
    ranks[scores.argsort()] = np.arange(1, len(scores) + 1)
    n = positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


@torch.inference_mode()
def validate(student: Student, tokenizer: Any, data: dict[str, np.ndarray]) -> np.ndarray:
    """Return each label's zero-shot AUROC with the plain prompts, (L,)."""
    images = []
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(data["images"]), 100):
            images.append(student(normalised(data["images"][start : start + 100]))["image"].float())
    scores = label_logits(student.model, torch.cat(images), tokenizer, pair_prompts()).numpy()
    return np.array([auroc(scores[:, k], data["severity"][:, k] >= 0) for k in range(len(CHEXPERT_LABELS))])


def save_checkpoint(
    path: Path,
    student: Student,
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    about: dict[str, str],
) -> None:
    """Write everything that training goes on from, in one file."""
    tensors = {f"student/{name}": value for name, value in student.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for which, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{which}/{number}/{name}": torch.as_tensor(v) for name, v in state.items()}
    tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    write_bytes_atomically(path, save(tensors, metadata=about))


def load_checkpoint(
    path: Path, student: Student, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    """Restore a checkpoint where there is one; returns the step to go on with and the seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    tensors = load_file(path)
    student.load_state_dict(under(tensors, "student/"))
    average.update(under(tensors, "average/"))
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in under(tensors, f"optimizer/{which}/").items():
            number, field = name.split("/")
            state.setdefault(int(number), {})[field] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    with safe_open(path, "pt") as file:
        about = file.metadata()
    return int(about["step"]), float(about["seconds"])


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def train(work: Path, steps: int, threads: int) -> None:
    """Train, writing `checkpoint.safetensors` and `curve.csv`."""
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    torch.manual_seed(0)
    set_fused_attn(False)  # on a CPU the plain product is faster for 197 tokens
    if not (work / "bundle").exists():  # a resumed training keeps its vocabulary
        write_bundle_files(work / "bundle")
    model, _, tokenizer = load_bundle(work / "bundle", weights=False)
    sample = read_chunk(work / "data", TRAIN_SEED, 0)
    initialise(model, sample["images"][:200], np.random.default_rng(0))
    student = Student(model)
    student.set_mask_prior(torch.from_numpy(to_patches(sample["masks"])))
    optimizers = optimizers_for(student)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    first, spent = load_checkpoint(work / "checkpoint.safetensors", student, average, optimizers)
    parts = [read_chunk(work / "data", VALIDATION_SEED, number) for number in range(VALIDATION_CHUNKS)]
    held_out = {name: np.concatenate([part[name] for part in parts])[:1000] for name in ("images", "severity")}
    started, running = time.monotonic() - spent, dict[str, float]()
    stream = prefetched(batches(work / "data", TRAIN_SEED, TRAIN_CHUNKS, BATCH, first))
    for step in range(first, steps):
        scale_rates(optimizers, rate_share(step, steps))
        found = accumulate_gradients(student, next(stream), tokenizer, step, pool)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(LARGEST_LOGIT_SCALE))
            decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else average[name].copy_(value)
        for name, value in found.items():
            running[name] = 0.97 * running.get(name, value) + 0.03 * value
        done = step + 1
        if done % CHECKPOINT_STEPS == 0 or done == steps:
            seconds = time.monotonic() - started
            row = {
                "step": done,
                "images": done * BATCH,
                "seconds": round(seconds),
                "logit_scale": model.logit_scale.exp().item(),
            }
            row |= {name: round(value, 4) for name, value in row.items()} | {k: round(v, 4) for k, v in running.items()}
            if done % (2 * CHECKPOINT_STEPS) == 0 or done == steps:
                own = {name: value.clone() for name, value in model.state_dict().items()}
                model.load_state_dict(average)
                areas = validate(student, tokenizer, held_out)
                model.load_state_dict(own)
                row |= {"mean_auroc": round(float(areas.mean()), 4)}
                row |= {label: round(float(area), 3) for label, area in zip(CHEXPERT_LABELS, areas, strict=True)}
                append_row(work / "curve.csv", row)
            about = {"step": str(done), "seconds": str(seconds), "steps": str(steps), "generator": generator_digest()}
            save_checkpoint(work / "checkpoint.safetensors", student, average, optimizers, about)
            print(json.dumps(row), flush=True)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file, dropping rows of later steps that a killed training left behind."""
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    rows = [old for old in rows if int(old["step"]) < row["step"]]
    lines = [",".join(row), *(",".join(str(old[name]) for name in row) for old in [*rows, row])]
    write_bytes_atomically(path, ("\n".join(lines) + "\n").encode())


def export(work: Path, folder: Path, note: str) -> None:
    """Write the averaged weights as the package's bundle, with the training's curve and facts beside the figures."""
    path = work / "checkpoint.safetensors"
    shutil.copytree(work / "bundle", folder, dirs_exist_ok=True)
    model, _, _ = load_bundle(folder, weights=False)
    model.load_state_dict(under(load_file(path), "average/"))
    save_weights(model, folder)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    facts = {
        "steps": int(about["step"]),
        "batch": BATCH,
        "images": TRAIN_CHUNKS * CHUNK,
        "images_seen": int(about["step"]) * BATCH,
        "minutes": round(float(about["seconds"]) / 60),
        "site": "reference",
        "prevalence": "balanced",
        "train_seed": TRAIN_SEED,
        "validation_seed": VALIDATION_SEED,
        "generator": about["generator"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "logit_scale": round(model.logit_scale.exp().item(), 2),
        "note": note,
    }
    write_json(FIGURES / "training.json", facts)
    write_bytes_atomically(FIGURES / "training_curve.csv", (work / "curve.csv").read_bytes())
    print(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("render", "train", "export"))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/train_phantom_clip"), help="folder of data and checkpoints"
    )
    parser.add_argument("--out", type=Path, default=BUNDLE, help="the bundle that `export` writes")
    parser.add_argument("--note", default="", help="what the card of an export has to say of its training")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.action == "render":
        render(given.work / "data", VALIDATION_SEED, VALIDATION_CHUNKS)
        render(given.work / "data", TRAIN_SEED, TRAIN_CHUNKS)
    elif given.action == "train":
        train(given.work, given.steps, given.threads)
    else:
        export(given.work, given.out, given.note)


if __name__ == "__main__":
    main()
