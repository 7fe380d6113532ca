"""Folders in Hugging Face's own layout: configuration, weights (whole or in shards) and tokenizer, read locally."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm_probe.errors import ModelError
from medvlm_probe.models.bundle import TOKENIZER_EXTRA, TOKENIZER_MAIN, read_json
from medvlm_probe.models.checkpoint import read_state_dict
from medvlm_probe.runs import sha256_file, sha256_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
NOT_PART_OF_THE_MODEL = ("_name_or_path", "transformers_version")
"""Keys of a configuration that say where and by what a file was written; fingerprints leave them out."""


def existing_folder(folder: Path, what: str) -> Path:
    """Return the absolute path of a folder that must exist.

    Raises:
        ModelError: it does not.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ModelError(f"Model folder {folder} does not exist. Expected {what}.")
    return folder


def read_own_config(path: Path) -> dict[str, Any]:
    """Return a JSON configuration that asks for no code of its own.

    Raises:
        ModelError: the file is missing, is no JSON object, or has the key `auto_map`.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing. Add the file to the model's folder.")
    config = read_json(path)
    if "auto_map" in config:
        raise ModelError(f"{path} asks for code from outside (auto_map), which is never run. Remove that key.")
    return config


def find_weights(folder: Path) -> list[Path]:
    """Return the weights files of a folder: a whole file, else the shards that an index names; safetensors first.

    Raises:
        ModelError: there are none, or a shard is missing or lies outside the folder.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    raise ModelError(f"No weights in {folder}: expected {' or '.join(WEIGHTS_NAMES)}, whole or in shards.")


def read_weights(paths: list[Path]) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a whole file or of all shards, and the SHA-256 in hex over the files.

    Raises:
        ModelError: a file is damaged or holds more than tensors, or two shards hold one name.
    """
    if len(paths) == 1:
        return read_state_dict(paths[0]), sha256_file(paths[0])
    tensors: dict[str, Tensor] = {}
    for path in paths:
        shard = read_state_dict(path)
        if twice := sorted(tensors.keys() & shard.keys()):
            raise ModelError(f"Tensor {twice[0]} stands in {path} and in another shard. Fetch all shards again.")
        tensors |= shard
    return tensors, sha256_json({path.name: sha256_file(path) for path in paths})


def find_tokenizer(folder: Path, subfolders: tuple[str, ...] = ()) -> Path:
    """Return the folder itself, else the first of its subfolders, that holds a complete tokenizer.

    Raises:
        ModelError: none does.
    """
    for candidate in (folder, *(folder / name for name in subfolders)):
        if _has_complete_tokenizer(candidate):
            return candidate
    raise ModelError(
        f"No tokenizer in {folder}: add tokenizer.json, or vocab.json with merges.txt (CLIP), or vocab.txt (BERT)."
    )


def load_tokenizer(folder: Path, name: str, tokenizer_class: str, n_embeddings: int) -> Any:
    """Return the tokenizer in a folder; files are read locally and code in them is never run.

    Args:
        folder: where the files lie.
        name: of the model, for messages.
        tokenizer_class: a class of transformers with `from_pretrained`.
        n_embeddings: rows of the text tower's token table.

    Raises:
        ModelError: the files cannot be read, give ids beyond the table, or frame texts by no start and end token.
    """
    import transformers

    if (folder / "tokenizer_config.json").is_file():
        read_own_config(folder / "tokenizer_config.json")
    try:
        tokenizer = getattr(transformers, tokenizer_class).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        ids = tokenizer("a").input_ids
    except Exception as error:  # the tokenizers library raises bare Exceptions on damaged files
        raise ModelError(f"The tokenizer of {name} in {folder} cannot be read: {_brief(error)}") from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= n_embeddings:
        raise ModelError(
            f"The tokenizer of {name} in {folder} gives ids up to {largest}, but the text tower has {n_embeddings} "
            "token embeddings. Copy the tokenizer's files from the model's own repository."
        )
    starts, ends = {tokenizer.bos_token_id, tokenizer.cls_token_id}, {tokenizer.eos_token_id, tokenizer.sep_token_id}
    if len(ids) < 3 or ids[0] not in starts or ids[-1] not in ends or tokenizer.pad_token_id is None:
        raise ModelError(
            f"The tokenizer of {name} in {folder} turns 'a' into {ids}; expected a start token, text and an end token, "
            "and a padding token. Copy the tokenizer's files from the model's own repository."
        )
    return tokenizer


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """Return file name to SHA-256 of the tokenizer's files in a folder."""
    names = (name for name in (*TOKENIZER_MAIN, *TOKENIZER_EXTRA) if (folder / name).is_file())
    return {name: sha256_file(folder / name) for name in names}


def without_origin(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that only say where it came from."""
    return {key: value for key, value in config.items() if key not in NOT_PART_OF_THE_MODEL}


def build_module(model_class: str, config_class: str, config: dict[str, Any], name: str) -> torch.nn.Module:
    """Return one of transformers' models of a configuration, float32, with random weights; nothing is fetched.

    Raises:
        ModelError: transformers cannot build it.
    """
    import torch
    import transformers

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            settings = getattr(transformers, config_class).from_dict(config)
            module = getattr(transformers, model_class)(settings)
    except Exception as error:  # configurations are checked by a library of its own with bare Exceptions
        raise ModelError(f"transformers cannot build {name} from its configuration: {_brief(error)}") from error
    return module.float()  # type: ignore[no-any-return]


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no 'weight_map'. Fetch the model's files again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or "\\" in name:
            raise ModelError(f"{index} names the shard '{name}', which lies outside the model's folder.")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index} names the shard '{name}', which is missing. Add it to the model's folder.")
    return [index.parent / name for name in names]


def _has_complete_tokenizer(folder: Path) -> bool:
    alternatives = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
    return any(all((folder / name).is_file() for name in names) for names in alternatives)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
