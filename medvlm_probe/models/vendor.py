"""Vendoring: all files of a model in one folder that loads without a network, with a lock over every byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medvlm_probe.errors import ModelError
from medvlm_probe.models.assemble import Piece, assemble
from medvlm_probe.models.bundle import (
    CONFIG_NAME,
    LOCAL_DIR,
    TOKENIZER_EXTRA,
    TOKENIZER_MAIN,
    Bundle,
    refuse_remote_code,
)
from medvlm_probe.models.hub import fetch_model_card, origin_of
from medvlm_probe.models.lock import Lock, read_lock, refuse_changes
from medvlm_probe.models.sources import Located
from medvlm_probe.models.spec import LoadOptions, ModelSpec
from medvlm_probe.models.training_data import DECLARATION_FILE, TrainingData, declared_training_data
from medvlm_probe.models.zoo import find_spec, locate_model

TOKENIZER_FILES = (*TOKENIZER_MAIN, *TOKENIZER_EXTRA)
CLIP_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "merges.txt", *TOKENIZER_FILES)
PREPROCESS_KEYS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
"""What open_clip reads of a transform; its table of published tags says more beside it."""
TEXT, VISION = "text", "vision"


def vendor(name: str, to: Path, options: LoadOptions, say: Callable[[str], None] = lambda text: None) -> Lock:
    """Write all files of a model into the folder `to`, and return its lock.

    The hub's files go through the Hugging Face cache, which keeps each file that came whole: an interrupted call goes
    on there. The folder is made beside `to` and renamed, so `to` is absent or complete. Tower ids of the hub become
    folders inside it, weights become one safetensors file. A folder that holds the same model already, unchanged, is
    left as it is.

    Args:
        name: what `load_model` takes, but no random weights.
        to: a folder that does not exist or is empty.
        options: the hub's cache, and whether the network may be used.
        say: is told each step.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: files are not to be had, `to` holds something else, or weights hold more than tensors.
        StoreError: the folder cannot be written.
    """
    to = to.expanduser().resolve()
    standing = read_lock(to) if to.is_dir() else None
    if standing is not None and standing.model == name:
        refuse_changes(to, standing)
        say(f"{to} holds {name} already, unchanged.")
        return standing
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        held = f"holds {standing.model}" if standing else "exists and is not an empty folder"
        raise ModelError(f"{to} {held}. Give a new folder to --to, or empty this one.")
    say(f"Collecting the files of {name}; what is not on this machine is fetched.")
    spec, located = find_spec(name), locate_model(name, options)
    card = _model_card(located, options)
    pieces = [*_model_pieces(located), *card, *_declaration(declared_training_data(name))]
    return assemble(
        pieces, to, model=located.name, family=located.family, licence=_licence(spec, located, card), say=say
    )


def _model_pieces(located: Located) -> list[Piece]:
    if located.lock is not None:
        return _locked_pieces(located.folder, located.lock)
    if located.bundle is not None:
        return open_clip_pieces(located.bundle)
    if located.family == "hugging_face_clip":
        return hugging_face_pieces(located.folder)
    return medclip_pieces(located.folder)


def open_clip_pieces(bundle: Bundle) -> list[Piece]:
    """Return the files of an open_clip folder that names no place outside itself.

    The text tower's configuration and tokenizer lie in `text/`, as in a repository of their own, and once more in the
    root, where open_clip's own loader looks for the tokenizer of a local folder, whatever the configuration says.

    Raises:
        ModelError: the bundle has random weights, or asks for code of its own.
    """
    if bundle.weights is None:
        raise ModelError(f"{bundle.name} has random weights, which every machine makes alike: nothing to vendor.")
    refuse_remote_code(bundle)
    text_files = {}
    if "text" in bundle.tower_configs:
        text_files["config.json"] = bundle.tower_configs["text"]
    if bundle.tokenizer is not None:
        text_files |= {name: path for name in TOKENIZER_FILES if (path := bundle.tokenizer / name).is_file()}
    pieces = [
        Piece(CONFIG_NAME, _config_inside(bundle), made_from="rewritten"),
        Piece("open_clip_model.safetensors", bundle.weights, weights=True),
    ]
    for name, path in text_files.items():
        pieces += [Piece(f"{TEXT}/{name}", path), Piece(name, path)]
    if "vision" in bundle.tower_configs:
        pieces.append(Piece(f"{VISION}/config.json", bundle.tower_configs["vision"]))
    return pieces


def hugging_face_pieces(folder: Path) -> list[Piece]:
    """Return the files of a transformers CLIP folder; shards are joined into one file."""
    from medvlm_probe.models.hugging_face_files import find_weights

    small = [Piece(name, folder / name) for name in CLIP_FILES if (folder / name).is_file()]
    return [*small, Piece("model.safetensors", find_weights(folder), weights=True)]


def medclip_pieces(folder: Path) -> list[Piece]:
    """Return the files of a MedCLIP folder: weights, tokenizer, and configurations of the towers where it has some."""
    from medvlm_probe.models.hugging_face_files import find_weights

    names = ("config.json", *TOKENIZER_FILES)
    places = [f"{part}{name}" for part in ("", f"{TEXT}/", "tokenizer/", f"{VISION}/") for name in names]
    small = [Piece(place, folder / place) for place in places if (folder / place).is_file()]
    return [*small, Piece("model.safetensors", find_weights(folder), weights=True)]


def _locked_pieces(folder: Path, lock: Lock) -> list[Piece]:
    return [
        Piece(name, folder / name, made_from=file.made_from, origin=file.origin, original_sha256=file.original_sha256)
        for name, file in lock.files.items()
        if name != DECLARATION_FILE
    ]


def _config_inside(bundle: Bundle) -> bytes:
    """Return `open_clip_config.json` with towers as folders inside the bundle."""
    text, vision = dict(bundle.model_cfg["text_cfg"]), dict(bundle.model_cfg["vision_cfg"])
    if "text" in bundle.tower_configs:
        text["hf_model_name"] = TEXT
    if bundle.tokenizer is not None:
        text["hf_tokenizer_name"] = TEXT
    if "vision" in bundle.tower_configs:
        vision["timm_model_name"] = LOCAL_DIR + VISION
    model_cfg = {**bundle.model_cfg, "text_cfg": text, "vision_cfg": vision}
    preprocess_cfg = {key: value for key, value in bundle.preprocess_cfg.items() if key in PREPROCESS_KEYS}
    content = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    return (json.dumps(content, indent=2, default=list) + "\n").encode()


def _model_card(located: Located, options: LoadOptions) -> list[Piece]:
    if located.lock is not None:
        return []
    weights = located.bundle.weights if located.bundle else next(iter(sorted(located.folder.glob("*.json"))), None)
    origin = origin_of(weights) if weights else None
    if origin is None:
        return []
    cards = fetch_model_card(origin.repository, cache_dir=options.cache_dir, offline=options.offline)
    return [Piece(path.name, path) for path in cards]


def _licence(spec: ModelSpec | None, located: Located, card: Sequence[Piece]) -> str:
    if spec is not None:
        return spec.licence
    if located.lock is not None:
        return located.lock.licence
    readme = next((piece.source for piece in card if piece.target == "README.md"), None)
    return licence_in_card(readme.read_text(encoding="utf-8")) if isinstance(readme, Path) else "not stated"


def licence_in_card(text: str) -> str:
    """Return the licence that a model card's YAML front matter declares, else `not stated`."""
    import yaml

    if not text.startswith("---"):
        return "not stated"
    try:
        declared = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return "not stated"
    return str(declared.get("license") or "not stated") if isinstance(declared, dict) else "not stated"


def _declaration(trained_on: Sequence[TrainingData]) -> list[Piece]:
    """Return `training_data.json` and its lists of images: a copy keeps what its model was trained on."""
    if not trained_on:
        return []
    entries, lists = [], []
    for number, data in enumerate(trained_on):
        entry: dict[str, Any] = {key: value for key, value in asdict(data).items() if value and key != "images"}
        if data.images is not None:
            entry["images"] = f"training_images_{number}.sha256"
            lists.append(Piece(entry["images"], data.images))
        entries.append(entry)
    content = (json.dumps({"trained_on": entries}, indent=2, ensure_ascii=False) + "\n").encode()
    return [Piece(DECLARATION_FILE, content, made_from="written"), *lists]
