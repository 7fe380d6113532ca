"""The contract on open_clip models: native CLIP text towers, and Hugging Face ones as in BiomedCLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medvlm_probe.errors import ModelError
from medvlm_probe.models import open_clip_vision
from medvlm_probe.models.bundle import FORMAT, Bundle, refuse_remote_code, without_locations
from medvlm_probe.models.checkpoint import hash_tensors, load_strictly, read_state_dict
from medvlm_probe.models.contract import PromptTokens, SaliencyLayer
from medvlm_probe.models.image_transform import EvalTransform, build_transform
from medvlm_probe.models.open_clip_text import TextTower, start_tokens, text_tower, token_lengths
from medvlm_probe.runs import sha256_file, sha256_json

if TYPE_CHECKING:
    import PIL.Image

TEXTS_PER_BATCH = 64
RANDOM_WEIGHTS_SEED = 0


@dataclass(frozen=True, eq=False)
class OpenClipModel:
    """An open_clip model as a `VisionLanguageModel` (see there for what each member means).

    Besides the contract: `module` is open_clip's own model (frozen, float32, in evaluation mode), `device` where it
    lies, `tokenizer` open_clip's tokenizer.
    """

    name: str
    fingerprint: str
    embedding_dim: int
    image_size: int
    context_length: int
    logit_scale: float
    module: Any
    device: torch.device
    tokenizer: Any
    transform: EvalTransform
    tower: TextTower
    n_start_tokens: int

    def preprocess(self, image: PIL.Image.Image) -> Tensor:
        """Return an "L" or "RGB" image as (3, image_size, image_size) float32, as open_clip's own transform does."""
        return self.transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return (N, D) float32 embeddings, not normalised, of (N, 3, H, W) pixels (moved to the model's device).

        Raises:
            ModelError: the pixels have another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise ModelError(f"Pixels of shape {tuple(pixels.shape)} given; {self.name} takes (N, *{expected}).")
        embeddings: Tensor = self.module.encode_image(pixels.to(self.device, non_blocking=True))
        return embeddings.float()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised. Padding that cannot matter is cut before the tower runs.

        Raises:
            ModelError: a text is longer than the context.
        """
        ids = self._token_ids(texts, n_context=0)
        parts = [self._encode(self._tokens(part, 0)) for part in torch.split(ids, TEXTS_PER_BATCH)]
        return torch.cat(parts)

    def embed_tokens(self, texts: Sequence[str], n_context: int) -> PromptTokens:
        """Return the texts' word embeddings (constants) with room for `n_context` context vectors.

        Raises:
            ModelError: a text and the context together are longer than the model's context length.
        """
        with torch.no_grad():
            return self._tokens(self._token_ids(texts, n_context), n_context)

    def encode_prompts(self, prompts: PromptTokens) -> Tensor:
        """Return (K, D) float32 embeddings, not normalised; gradients flow to the context vectors.

        Raises:
            ModelError: the context is not set.
        """
        return self._encode(prompts)

    def saliency_layer(self) -> SaliencyLayer:
        """Return the layer for class activation maps.

        Raises:
            ModelError: the image tower has no layer with a known spatial layout.
        """
        return open_clip_vision.saliency_layer(self.module)

    def _token_ids(self, texts: Sequence[str], n_context: int) -> Tensor:
        if isinstance(texts, str) or not texts:
            raise ModelError(f"Expected a list of at least one text, got {texts!r}.")
        if n_context < 0:
            raise ModelError(f"n_context is {n_context}; expected 0 or more.")
        for text, length in zip(texts, token_lengths(self.tokenizer, texts), strict=True):
            if length + n_context > self.context_length:
                context = f" and {n_context} context vectors" if n_context else ""
                raise ModelError(
                    f"Text '{text[:60]}' has {length} tokens{context}; {self.name} takes {self.context_length} "
                    "in all and no text is cut. Shorten it."
                )
        ids: Tensor = self.tokenizer(list(texts), context_length=self.context_length - n_context)
        return ids.to(self.device)

    def _tokens(self, ids: Tensor, n_context: int) -> PromptTokens:
        lengths = self.tower.lengths(ids)
        if self.tower.ignores_padding:
            ids = ids[:, : int(lengths.max())]
        return PromptTokens(
            embeddings=self.tower.embed(ids),
            lengths=lengths,
            pooled_at=self.tower.pooled_at(ids),
            n_context=n_context,
            position=self.n_start_tokens,
        )

    def _encode(self, prompts: PromptTokens) -> Tensor:
        return self.tower.forward(prompts.spliced(), prompts.spliced_mask(), prompts.spliced_pooled_at()).float()


def load_bundle(bundle: Bundle, device: torch.device) -> OpenClipModel:
    """Build the model that a bundle describes, with its weights as float32, and put it on a device.

    Raises:
        ModelError: a configuration that open_clip cannot build, or weights that do not fit it.
    """
    refuse_remote_code(bundle)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_WEIGHTS_SEED)
        module = build_module(bundle.model_cfg, bundle.name)
    if bundle.weights is None:
        weights_sha256 = hash_tensors(module.state_dict())
    else:
        weights_sha256 = sha256_file(bundle.weights)
        load_strictly(module, _as_open_clip(module, read_state_dict(bundle.weights)), bundle.name)
    preprocess_cfg = resolve_preprocess(bundle.preprocess_cfg, module)
    return _wrap(
        bundle.name,
        bundle.fingerprint(weights_sha256, preprocess_cfg),
        module,
        bundle.model_cfg,
        preprocess_cfg,
        build_tokenizer(bundle),
        device,
    )


def wrap_module(
    name: str,
    module: torch.nn.Module,
    model_cfg: Mapping[str, Any],
    tokenizer: Any,
    *,
    preprocess_cfg: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> OpenClipModel:
    """Return an open_clip model made elsewhere (random weights, one in training) as a `VisionLanguageModel`.

    The module is frozen, put into evaluation mode and moved. Its fingerprint covers its tensors as they are now.
    """
    resolved = resolve_preprocess(preprocess_cfg or {}, module)
    fingerprint = sha256_json(
        {
            "format": FORMAT,
            "model": without_locations(model_cfg),
            "preprocess": resolved,
            "tensors": hash_tensors(module.state_dict()),
        }
    )
    return _wrap(name, fingerprint, module, model_cfg, resolved, tokenizer, torch.device(device))


def build_module(model_cfg: Mapping[str, Any], name: str) -> torch.nn.Module:
    """Return open_clip's model of a configuration, with random weights, float32; no tower's weights are fetched.

    Raises:
        ModelError: open_clip cannot build it, or it is a captioning model (CoCa).
    """
    from open_clip.model import CLIP, CustomTextCLIP

    cfg = deepcopy(dict(model_cfg))
    if "multimodal_cfg" in cfg:
        raise ModelError(f"{name} is a captioning model (CoCa), which is not supported. Choose a CLIP-like model.")
    text_cfg, vision_cfg = cfg["text_cfg"], cfg["vision_cfg"]
    custom = cfg.pop("custom_text", False)
    text_cfg["output_tokens"] = vision_cfg["output_tokens"] = False
    if "timm_model_name" in vision_cfg:
        vision_cfg["timm_model_pretrained"] = False
    if "hf_model_name" in text_cfg:
        custom = True
        text_cfg["hf_model_pretrained"] = False
    try:
        module = (CustomTextCLIP if custom else CLIP)(**cfg)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, OSError) as error:
        raise ModelError(f"open_clip cannot build {name} from its configuration: {error}") from error
    return module.float()  # type: ignore[no-any-return]


def resolve_preprocess(given: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """Return open_clip's complete preprocessing configuration; the size is always the image tower's own."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict
    from open_clip.utils import to_2tuple

    merged: dict[str, Any] = merge_preprocess_dict(asdict(PreprocessCfg()), dict(given))
    return merged | {
        "size": list(to_2tuple(module.visual.image_size)),  # type: ignore[union-attr]
        "mean": _per_channel(merged["mean"]),
        "std": _per_channel(merged["std"]),
    }


def _per_channel(value: float | Sequence[float]) -> list[float]:
    return list(value) if isinstance(value, Sequence) else [value] * 3


def build_tokenizer(bundle: Bundle) -> Any:
    """Return open_clip's tokenizer for a bundle; files are read locally and code in them is never run.

    Raises:
        ModelError: the tokenizer's files cannot be read.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text_cfg = bundle.model_cfg["text_cfg"]
    context_length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    if bundle.tokenizer is None:
        return SimpleTokenizer(context_length=context_length, **options)
    options |= {"local_files_only": True, "trust_remote_code": False}
    try:
        return HFTokenizer(
            str(bundle.tokenizer),
            context_length=context_length,
            tokenizer_mode=text_cfg.get("tokenizer_mode"),
            **options,
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions on damaged files
        raise ModelError(f"The tokenizer of {bundle.name} in {bundle.tokenizer} cannot be read: {error}") from error


def _as_open_clip(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under open_clip's current names: other projects' layouts and old text towers are renamed."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    renamed: dict[str, Tensor] = convert_state_dict(module, dict(tensors))
    if "positional_embedding" in renamed and not hasattr(module, "positional_embedding"):
        renamed = convert_to_custom_text_state_dict(renamed)
    for key in ("logit_scale", "logit_bias"):
        own = getattr(module, key, None)
        if own is not None and key in renamed and renamed[key].numel() == own.numel():
            renamed[key] = renamed[key].reshape(own.shape)
    return renamed


def _wrap(
    name: str,
    fingerprint: str,
    module: torch.nn.Module,
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any],
    tokenizer: Any,
    device: torch.device,
) -> OpenClipModel:
    height, width = preprocess_cfg["size"]
    if height != width:
        raise ModelError(f"{name} takes images of {height} x {width} pixels; only square ones are supported.")
    module = module.to(device).eval().requires_grad_(False)
    return OpenClipModel(
        name=name,
        fingerprint=fingerprint,
        embedding_dim=int(model_cfg["embed_dim"]),
        image_size=int(height),
        context_length=int(tokenizer.context_length),
        logit_scale=float(module.logit_scale.exp()),  # type: ignore[operator]
        module=module,
        device=device,
        tokenizer=tokenizer,
        transform=build_transform(preprocess_cfg),
        tower=text_tower(module),
        n_start_tokens=start_tokens(tokenizer),
    )
