"""Published models: from the Hugging Face cache where they are there, fetched only where they are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm_probe.errors import ModelError, unknown_name
from medvlm_probe.models.bundle import (
    CONFIG_NAME,
    LOCAL_DIR,
    TOKENIZER_EXTRA,
    TOKENIZER_MAIN,
    Bundle,
    find_weights,
    read_config,
    without_fetching,
)
from medvlm_probe.models.lock import FamilyName, Origin

HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
CLIP_NEEDED = (
    ("config.json",),
    ("preprocessor_config.json",),
    ("tokenizer.json", "vocab.json"),
    ("model.safetensors", "pytorch_model.bin"),
)
CLIP_OPTIONAL = ("vocab.json", "merges.txt", *TOKENIZER_EXTRA)
MODEL_CARD = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
TIMM_HUB = ("hf-hub:", "hf_hub:")
RANDOM = "random"
LOG_IN = "log in with 'hf auth login' (or set HF_TOKEN)"


def hub_bundle(repo_id: str, name: str, *, cache_dir: Path | None = None, offline: bool = False) -> Bundle:
    """Return the bundle of an open_clip model on the Hugging Face hub.

    Its text tower's configuration and tokenizer come from the repositories that its own configuration names.

    Args:
        repo_id: `owner/repository`.
        name: what the model is called in tables.
        cache_dir: a Hugging Face hub cache; None for the usual one.
        offline: use the cache alone.

    Raises:
        ModelError: a needed file is neither in the cache nor to be had.
    """
    folder = hub_folder(repo_id, ((CONFIG_NAME,), HUB_WEIGHTS), cache_dir=cache_dir, offline=offline)
    model_cfg, preprocess_cfg = read_config(folder / CONFIG_NAME)
    return _with_hub_towers(name, model_cfg, preprocess_cfg, find_weights(folder), cache_dir=cache_dir, offline=offline)


def clip_folder(repo_id: str, *, cache_dir: Path | None = None, offline: bool = False) -> Path:
    """Return the local folder of a transformers CLIP repository on the hub, with its weights, tokenizer and transform.

    Raises:
        ModelError: a needed file is neither in the cache nor to be had.
    """
    return hub_folder(repo_id, CLIP_NEEDED, CLIP_OPTIONAL, cache_dir=cache_dir, offline=offline)


def hub_family(repo_id: str, *, cache_dir: Path | None = None, offline: bool = False) -> FamilyName:
    """Return `open_clip` for a repository that holds `open_clip_config.json`, else `hugging_face_clip`.

    The hub is asked only where the cache does not tell.

    Raises:
        ModelError: the hub cannot be asked, or has no such repository.
    """
    if _first_cached(repo_id, (CONFIG_NAME,), cache_dir):
        return "open_clip"
    if all(_first_cached(repo_id, group, cache_dir) for group in CLIP_NEEDED):
        return "hugging_face_clip"
    if offline or hub_is_off():
        raise _not_cached(repo_id, f"{CONFIG_NAME} or {CLIP_NEEDED[-1][0]}", cache_dir)
    return "open_clip" if _fetch(repo_id, CONFIG_NAME, cache_dir) else "hugging_face_clip"


def is_cached(needs: Mapping[str, Sequence[Sequence[str]]], cache_dir: Path | None = None) -> bool:
    """Return whether the cache holds, of each repository, one file of each group that `needs` lists."""
    return all(_first_cached(repo_id, group, cache_dir) for repo_id, groups in needs.items() for group in groups)


def fetch_model_card(repo_id: str, *, cache_dir: Path | None = None, offline: bool = False) -> list[Path]:
    """Return a repository's README and licence as local files, those that exist.

    Raises:
        ModelError: the hub cannot be reached.
    """
    if offline or hub_is_off():
        cached = (_first_cached(repo_id, (name,), cache_dir) for name in MODEL_CARD)
        return [path for path in cached if path]
    return [path for name in MODEL_CARD if (path := _fetch(repo_id, name, cache_dir))]


def origin_of(path: Path) -> Origin | None:
    """Return repository, commit and name of a file in a Hugging Face cache; None for a file elsewhere."""
    folders = path.parts[-4:-1]
    if len(folders) == 3 and folders[0].startswith("models--") and folders[1] == "snapshots":
        return Origin(folders[0].removeprefix("models--").replace("--", "/"), folders[2], path.name)
    return None


def pretrained_bundle(
    spec: str, *, name: str | None = None, cache_dir: Path | None = None, offline: bool = False
) -> Bundle:
    """Return the bundle of `NAME/PRETRAINED`: one of open_clip's architectures with weights.

    PRETRAINED is one of open_clip's tags for that architecture, a local weights file, or `random`: seeded random
    weights, for measuring speed.

    Raises:
        UnknownNameError: open_clip has no such architecture or tag.
        ModelError: the weights are neither in the cache nor to be had.
    """
    from open_clip import get_model_config, list_models
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    architecture, _, pretrained = spec.partition("/")
    if architecture not in list_models():
        raise unknown_name("open_clip model", architecture, list_models())
    if not pretrained:
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(f"Weights missing in 'open_clip:{spec}'. Give a file, or one of: {tags}.")
    model_cfg = get_model_config(architecture)
    tag_cfg = get_pretrained_cfg(architecture, pretrained)
    file = Path(pretrained).expanduser()
    if tag_cfg:
        weights: Path | None = _tag_weights(tag_cfg, f"{architecture}/{pretrained}", cache_dir, offline)
        # The activation is a fact of the weights: open_clip only warns where the architecture's differs.
        model_cfg["quick_gelu"] = bool(tag_cfg.get("quick_gelu", False))
    elif pretrained == RANDOM:
        weights = None
    elif file.is_file():
        weights = file.resolve()
    else:
        raise unknown_name(
            f"weights for {architecture}", pretrained, [*list_pretrained_tags_by_model(architecture), RANDOM]
        )
    name = name or f"open_clip:{architecture}/{file.name if weights and not tag_cfg else pretrained}"
    return _with_hub_towers(name, model_cfg, tag_cfg, weights, cache_dir=cache_dir, offline=offline)


def hub_folder(
    repo_id: str,
    needed: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    *,
    cache_dir: Path | None = None,
    offline: bool = False,
) -> Path:
    """Return the local folder of a hub repository that holds one file of each group in `needed`.

    The network is used only where the cache lacks a group and `offline` is off; the existing `optional` files and the
    first existing file of each group are then fetched, in that order: once the groups are there, everything is.

    Raises:
        ModelError: a file is neither in the cache nor to be had.
    """
    cached = [_first_cached(repo_id, group, cache_dir) for group in needed]
    if all(cached):
        return cached[0].parent  # type: ignore[union-attr]
    lacking = [" or ".join(group) for group, path in zip(needed, cached, strict=True) if path is None]
    if offline or hub_is_off():
        raise _not_cached(repo_id, ", ".join(lacking), cache_dir)
    for name in optional:
        _fetch(repo_id, name, cache_dir)
    folders = {_fetch_first(repo_id, group, cache_dir).parent for group in needed}
    if len(folders) > 1:
        raise ModelError(f"{repo_id} changed on the hub while its files were fetched. Run the same command again.")
    return folders.pop()


def _with_hub_towers(
    name: str,
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    weights: Path | None,
    *,
    cache_dir: Path | None,
    offline: bool,
) -> Bundle:
    text_cfg, tower_configs, tokenizer = dict(model_cfg["text_cfg"]), {}, None
    if hf_name := text_cfg.get("hf_model_name"):
        folder = hub_folder(hf_name, (("config.json",),), cache_dir=cache_dir, offline=offline)
        text_cfg["hf_model_name"] = str(folder)
        tower_configs["text"] = folder / "config.json"
    if tokenizer_name := text_cfg.get("hf_tokenizer_name") or hf_name:
        tokenizer = hub_folder(
            tokenizer_name, (TOKENIZER_MAIN,), (*TOKENIZER_MAIN, *TOKENIZER_EXTRA), cache_dir=cache_dir, offline=offline
        )
    vision_cfg = dict(model_cfg["vision_cfg"])
    timm_name = str(vision_cfg.get("timm_model_name") or "")
    if timm_name.startswith(TIMM_HUB):
        repo_id = timm_name.partition(":")[2]
        folder = hub_folder(repo_id, (("config.json",),), cache_dir=cache_dir, offline=offline)
        vision_cfg["timm_model_name"] = LOCAL_DIR + str(folder)
        tower_configs["vision"] = folder / "config.json"
    return Bundle(
        name=name,
        model_cfg=without_fetching({**model_cfg, "text_cfg": text_cfg, "vision_cfg": vision_cfg}),
        preprocess_cfg=preprocess_cfg,
        weights=weights,
        tokenizer=tokenizer,
        tower_configs=tower_configs,
    )


def _tag_weights(tag_cfg: dict[str, Any], spec: str, cache_dir: Path | None, offline: bool) -> Path:
    repo_id, _, filename = str(tag_cfg.get("hf_hub", "")).rpartition("/")
    if not repo_id:
        raise ModelError(f"open_clip publishes {spec} outside the Hugging Face hub. Fetch its file and give that.")
    stem = Path(filename).stem
    names = (f"{stem}.safetensors", filename) if filename else HUB_WEIGHTS
    folder = hub_folder(repo_id, (names,), cache_dir=cache_dir, offline=offline)
    return next(folder / name for name in names if (folder / name).is_file())


def _first_cached(repo_id: str, names: Sequence[str], cache_dir: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo_id, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetch_first(repo_id: str, names: Sequence[str], cache_dir: Path | None) -> Path:
    for name in names:
        path = _fetch(repo_id, name, cache_dir)
        if path is not None:
            return path
    raise ModelError(f"{repo_id} on the Hugging Face hub holds none of {', '.join(names)}.")


def _fetch(repo_id: str, name: str, cache_dir: Path | None) -> Path | None:
    """Return the local path of one file, fetched; None where the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(repo_id, name, cache_dir=cache_dir))
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):
            return None
        reason: Exception = error
    except GatedRepoError as error:
        raise ModelError(
            f"{repo_id} is given only to those who accept its terms. Accept them at https://huggingface.co/{repo_id}, "
            f"{LOG_IN}, and run again."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hugging Face hub has no repository {repo_id}, or it is private. Check the name; for a private one "
            f"{LOG_IN}."
        ) from error
    except Exception as error:  # a broken connection's class depends on which HTTP library the hub's client is built on
        reason = error
    if getattr(getattr(reason, "response", None), "status_code", None) in (401, 403):
        raise ModelError(
            f"The Hugging Face hub refuses {repo_id}/{name} to this machine's token. "
            f"It may have run out: {LOG_IN} anew, and run again."
        ) from reason
    raise ModelError(
        f"{repo_id}/{name} could not be fetched from the Hugging Face hub ({_first_line(reason)}). "
        "Check the name and the network, or give a folder: --model local:FOLDER."
    ) from reason


def _not_cached(repo_id: str, missing: str, cache_dir: Path | None) -> ModelError:
    return ModelError(
        f"{repo_id} is not in the Hugging Face cache {_cache_path(cache_dir)} (missing: {missing}) and "
        f"the hub is switched off. Run 'hf download {repo_id}' where there is a network and copy the cache, "
        "or give a folder made by 'medvlm-probe models vendor': --model local:FOLDER."
    )


def _cache_path(cache_dir: Path | None) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return cache_dir or Path(HF_HUB_CACHE)


def hub_is_off() -> bool:
    """Return whether `HF_HUB_OFFLINE` is set."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def _first_line(error: BaseException) -> str:
    """Return the first line of what an error began with: the hub's client tells of the network only in its cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0]
