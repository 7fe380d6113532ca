"""Local folders in open_clip's own format: which files make the model, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from medvlm_probe.errors import ModelError
from medvlm_probe.runs import parse_json, sha256_file, sha256_json

FORMAT = "open_clip/v1"
"""Version of how a bundle becomes embeddings; part of every fingerprint."""

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "open_clip_pytorch_model.pt",
    "pytorch_model.bin",
    "model.pth",
    "model.pt",
)
TOKENIZER_MAIN = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
TOKENIZER_EXTRA = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
LOCAL_DIR = "local-dir:"


@dataclass(frozen=True)
class Bundle:
    """The files that make one model, all on this machine.

    Attributes:
        name: what the model is called in tables; never a path.
        model_cfg: open_clip's model configuration with tower folders as absolute paths.
        preprocess_cfg: what the configuration says of the image transform; absent keys keep open_clip's defaults.
        weights: the file with all tensors; None for a random initialisation.
        tokenizer: folder of a Hugging Face tokenizer; None for CLIP's own byte-pair tokenizer.
        tower_configs: role (`text`, `vision`) to the tower's own configuration file, where it has one.
    """

    name: str
    model_cfg: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any]
    weights: Path | None
    tokenizer: Path | None = None
    tower_configs: Mapping[str, Path] = field(default_factory=dict)

    def fingerprint(self, weights_sha256: str, preprocess_cfg: Mapping[str, Any]) -> str:
        """Return the SHA-256 in hex over configuration, weights, tokenizer files and the resolved image transform.

        Where the towers' folders lie is left out, so a copied bundle keeps its fingerprint.
        """
        files = {"weights": weights_sha256}
        files |= {role: sha256_file(path) for role, path in self.tower_configs.items()}
        if self.tokenizer is not None:
            found = (name for name in (*TOKENIZER_MAIN, *TOKENIZER_EXTRA) if (self.tokenizer / name).is_file())
            files |= {f"tokenizer/{name}": sha256_file(self.tokenizer / name) for name in found}
        return sha256_json(
            {
                "format": FORMAT,
                "model": without_locations(self.model_cfg),
                "preprocess": dict(preprocess_cfg),
                "files": files,
            }
        )


def without_locations(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model configuration without the keys that only say where a tower's files lie."""
    text = {k: v for k, v in model_cfg["text_cfg"].items() if k not in ("hf_model_name", "hf_tokenizer_name")}
    vision = dict(model_cfg["vision_cfg"])
    if str(vision.get("timm_model_name", "")).startswith(LOCAL_DIR):
        del vision["timm_model_name"]
    return {**model_cfg, "text_cfg": text, "vision_cfg": vision}


def without_fetching(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model configuration whose towers are never fetched by themselves: all weights are in the one file.

    Published and vendored configurations of a model become equal by it, and so do their fingerprints.
    """
    text, vision = dict(model_cfg["text_cfg"]), dict(model_cfg["vision_cfg"])
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    return {**model_cfg, "text_cfg": text, "vision_cfg": vision}


def read_bundle(folder: Path, name: str | None = None) -> Bundle:
    """Return the bundle in a local folder; nothing is fetched, whatever its configuration names.

    Relative tower folders are resolved against the folder itself. Where the text tower is named by a hub id, as in
    BiomedCLIP's published configuration, its `config.json` is looked for in `text/`, then in the folder's root.

    Raises:
        ModelError: the folder, a needed file or a key is missing, or the configuration names a place outside it.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ModelError(f"Model folder {folder} does not exist. Expected a folder with {CONFIG_NAME} and weights.")
    model_cfg, preprocess_cfg = read_config(folder / CONFIG_NAME)
    text_cfg, vision_cfg = dict(model_cfg["text_cfg"]), dict(model_cfg["vision_cfg"])
    tower_configs = {}
    if hf_name := text_cfg.get("hf_model_name"):
        text_folder = _text_folder(folder, str(hf_name))
        text_cfg["hf_model_name"] = str(text_folder)
        tower_configs["text"] = text_folder / "config.json"
    timm_name = str(vision_cfg.get("timm_model_name") or "")
    if timm_name.startswith(LOCAL_DIR):
        vision_folder = inside(folder, timm_name.removeprefix(LOCAL_DIR))
        vision_cfg["timm_model_name"] = LOCAL_DIR + str(vision_folder)
        tower_configs["vision"] = _existing(vision_folder / "config.json", "the timm configuration of the image tower")
    elif ":" in timm_name:
        raise ModelError(
            f"{folder / CONFIG_NAME} names an image tower elsewhere, '{timm_name}'. Give a plain timm name, "
            f"or put timm's config.json into {folder / 'vision'} and write '{LOCAL_DIR}vision'."
        )
    has_own_tokenizer = bool(text_cfg.get("hf_tokenizer_name")) or "text" in tower_configs
    return Bundle(
        name=name or f"local:{folder.name}",
        model_cfg=without_fetching({**model_cfg, "text_cfg": text_cfg, "vision_cfg": vision_cfg}),
        preprocess_cfg=preprocess_cfg,
        weights=find_weights(folder),
        tokenizer=_tokenizer_folder(folder, text_cfg) if has_own_tokenizer else None,
        tower_configs=tower_configs,
    )


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model and preprocessing configurations of an `open_clip_config.json`.

    Raises:
        ModelError: it is missing, is no JSON, or lacks `model_cfg` with `embed_dim`, `vision_cfg` and `text_cfg`.
    """
    content = read_json(_existing(path, "open_clip's configuration"))
    model_cfg = content.get("model_cfg")
    needed = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(model_cfg, dict) or any(key not in model_cfg for key in needed):
        raise ModelError(f"{path} has no 'model_cfg' with {', '.join(needed)}; it is no open_clip configuration.")
    return model_cfg, content.get("preprocess_cfg") or {}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ModelError: the file is no JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Copy the file again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}; expected a JSON object.")
    return content


def inside(folder: Path, relative: str) -> Path:
    """Return `folder / relative`, where `relative` must not lead out of the folder.

    Raises:
        ModelError: it is absolute, has a drive, or climbs with `..`.
    """
    pure = PurePosixPath(relative.replace("\\", "/"))
    if pure.is_absolute() or PureWindowsPath(relative).drive or ".." in pure.parts or relative.startswith("~"):
        raise ModelError(
            f"{folder / CONFIG_NAME} names '{relative}', which lies outside the model's folder. "
            "Use a relative path to a folder inside it."
        )
    return folder / Path(*pure.parts)


def find_weights(folder: Path) -> Path:
    """Return a folder's weights file: a known name, safetensors first, else its only `.safetensors` file.

    Raises:
        ModelError: there is none, or several of unknown names.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(path.name for path in others)}" if others else "found none"
    raise ModelError(f"No weights in {folder}: expected {WEIGHTS_NAMES[0]} or {WEIGHTS_NAMES[3]}, {found}.")


def refuse_remote_code(bundle: Bundle) -> None:
    """Refuse a bundle whose configurations ask for code of their own (`auto_map`).

    Raises:
        ModelError: one does.
    """
    configs = list(bundle.tower_configs.values())
    if bundle.tokenizer is not None and (bundle.tokenizer / "tokenizer_config.json").is_file():
        configs.append(bundle.tokenizer / "tokenizer_config.json")
    for path in configs:
        if "auto_map" in read_json(path):
            raise ModelError(f"{path} asks for code from outside (auto_map), which is never run. Remove that key.")


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a Hugging Face tokenizer's main file."""
    return any((folder / name).is_file() for name in TOKENIZER_MAIN)


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ModelError(f"{path} is missing ({what}). Add the file to the model's folder.")
    return path


def _text_folder(folder: Path, hf_name: str) -> Path:
    named = inside(folder, hf_name)
    for candidate in (named, folder / "text", folder):
        if (candidate / "config.json").is_file() and "model_type" in read_json(candidate / "config.json"):
            return candidate
    raise ModelError(
        f"The text tower '{hf_name}' needs its configuration in {folder}: add text/config.json "
        f"(the config.json of '{hf_name}' on the Hugging Face hub)."
    )


def _tokenizer_folder(folder: Path, text_cfg: Mapping[str, Any]) -> Path:
    candidates: Sequence[Path] = (folder, folder / "text", folder / "tokenizer")
    named = text_cfg.get("hf_tokenizer_name")
    if named:
        candidates = (folder, inside(folder, str(named)), *candidates[1:])
    for candidate in candidates:
        if has_tokenizer(candidate):
            return candidate
    raise ModelError(
        f"No tokenizer in {folder}: add {TOKENIZER_MAIN[0]} or {TOKENIZER_MAIN[1]}, with {TOKENIZER_EXTRA[0]}"
        + (f" (from '{named}')." if named else ".")
    )
