"""Training an image tower's last block on tokens that were computed once: a step costs one block, not the tower."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medvlm_probe.embeddings.precision import device_of
from medvlm_probe.errors import InputError, ModelError
from medvlm_probe.tuning.fine_tune import LONGEST_NORM
from medvlm_probe.tuning.head_layer import HeadLayer, from_probe
from medvlm_probe.tuning.multilabel_losses import binary_cross_entropy
from medvlm_probe.tuning.schedule import warmup_cosine, warmup_steps
from medvlm_probe.tuning.towers import blocks_of, trainable_tower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medvlm_probe.models.contract import VisionLanguageModel
    from medvlm_probe.tuning.fine_tune_settings import FineTuneSettings
    from medvlm_probe.tuning.heads import LinearHead
    from medvlm_probe.types import BoolArray, FloatArray


class _Pass(nn.Module):
    """Hands on what a block would take."""

    def forward(self, given: Tensor, *rest: Any, **options: Any) -> Tensor:
        return given


@dataclass(frozen=True, eq=False)
class TunedBlock:
    """What a training gives.

    Attributes:
        weights: of the last block and what follows it, by name.
        layer: the head, on embeddings of the tuned tower.
        kept_epoch: 0 where no training made the validation loss better.
        validation: the loss after each epoch, that of epoch 0 first.
    """

    weights: dict[str, Tensor]
    layer: HeadLayer
    kept_epoch: int
    validation: tuple[float, ...]


class LastBlock:
    """The last transformer block of a model's image tower and what follows it, to train; the model stays as it is.

    The blocks before it let images pass, and the last one takes kept tokens in place of what reaches it: so the
    model's own code runs, whatever comes after its blocks.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        """Copy the model's image tower.

        Raises:
            ModelError: it has no tower of transformer blocks.
        """
        self.model = model
        self.tower = trainable_tower(model, 1)
        self.device = device_of(model)
        twin: Any = self.tower.model
        name = blocks_of(twin)
        blocks = twin.module.get_submodule(name)
        for number in range(len(blocks) - 1):
            blocks[number] = _Pass()
        self._name = name
        self._tokens: Tensor | None = None
        blocks[len(blocks) - 1].register_forward_pre_hook(self._put)
        self._axis = 0
        probe = self.tokens(torch.zeros(1, 3, model.image_size, model.image_size))
        if probe.ndim != 3 or probe.shape[0] != 1:
            raise ModelError(
                f"The last block of {model.name} takes {tuple(probe.shape)}: expected (images, tokens, C)."
            )

    def tokens(self, pixels: Tensor) -> Tensor:
        """Return what reaches the last block of the untuned model, (N, T, C) on the CPU, of pixels (N, 3, H, W)."""
        with _captured(self.model, self._name) as kept, torch.no_grad():
            self.model.encode_images(pixels.to(self.device))
        (found,) = kept
        if found.shape[0] != len(pixels):
            self._axis = 1
        return found.movedim(self._axis, 0).cpu()

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings (N, D) of tokens; gradients flow to the last block."""
        self._tokens = tokens.to(self.device).movedim(0, self._axis)
        size = self.model.image_size
        return self.tower.model.encode_images(torch.zeros(len(tokens), 3, size, size, device=self.device))

    def logits(self, tuned: TunedBlock, tokens: Tensor) -> Tensor:
        """Return logits (N, L) of tokens by a tuned block."""
        self.tower.load(tuned.weights)
        with torch.no_grad():
            found: Tensor = tuned.layer(self.embed(tokens)).cpu()
        return found

    def train(
        self,
        tokens: Tensor,
        vectors: FloatArray,
        targets: FloatArray,
        validation: BoolArray,
        head: LinearHead,
        settings: FineTuneSettings,
        start: dict[str, Tensor],
        *,
        on_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> TunedBlock:
        """Return the last block and the head of the epoch with the least validation loss, epoch 0 among them.

        Args:
            tokens: (n, T, C).
            vectors: embeddings that the head was fitted on, (m, D): it is standardised by them.
            targets: 1, 0 or NaN, (n, L).
            validation: which images choose the epoch, (n,); the others are learned from.
            head: a linear probe; training begins at it.
            settings: rates, epochs, batch size, patience and seed are used.
            start: the untuned weights, of `TrainableTower.state`.
            on_epoch: told each epoch that is over.

        Raises:
            InputError: nothing to learn from or to choose by, or a loss that is no number.
        """
        y = torch.from_numpy(np.asarray(targets, dtype=np.float32)).to(self.device)
        learned, chosen = np.flatnonzero(~validation), np.flatnonzero(validation)
        if not len(learned) or not len(chosen):
            raise InputError("Training the last block needs images to learn from and others to choose the epoch by.")
        self.tower.load(start)
        layer = from_probe(head, vectors).to(self.device)
        groups = [
            {"params": list(self.tower.parameters.values()), "lr": settings.rate, "full": settings.rate},
            {"params": list(layer.parameters()), "lr": settings.head_rate, "full": settings.head_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.decay)
        steps = -(-len(learned) // settings.batch_size)
        total = steps * settings.epochs
        losses = [self._loss(layer, tokens, y, chosen, settings.batch_size)]
        best = (0, self.tower.state(), _copied(layer))
        for epoch in range(settings.epochs):
            order = learned[np.random.default_rng([settings.seed, epoch]).permutation(len(learned))]
            for step in range(steps):
                rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                share = warmup_cosine(epoch * steps + step, total, warmup_steps(total, settings.warmup))
                for group in optimizer.param_groups:
                    group["lr"] = group["full"] * share
                loss = binary_cross_entropy(layer(self.embed(tokens[rows])), y[rows])
                if not bool(torch.isfinite(loss)):
                    raise InputError(f"The loss is no number any more in epoch {epoch + 1}.")
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                trained = [*self.tower.parameters.values(), *layer.parameters()]
                torch.nn.utils.clip_grad_norm_(trained, LONGEST_NORM)
                optimizer.step()
            losses.append(self._loss(layer, tokens, y, chosen, settings.batch_size))
            on_epoch(epoch + 1)
            if losses[-1] < min(losses[:-1]):
                best = (epoch + 1, self.tower.state(), _copied(layer))
            if epoch + 1 - best[0] >= settings.patience:
                break
        kept, weights, state = best
        layer.load_state_dict(state)
        return TunedBlock(weights, layer.requires_grad_(False), kept, tuple(losses))

    def _loss(self, layer: HeadLayer, tokens: Tensor, y: Tensor, rows: np.ndarray[Any, Any], size: int) -> float:
        with torch.no_grad():
            parts = [rows[at : at + size] for at in range(0, len(rows), size)]
            logits = torch.cat([layer(self.embed(tokens[part])) for part in parts])
            return float(binary_cross_entropy(logits, y[rows]))

    def _put(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._tokens, *given[1:])


@contextmanager
def _captured(model: Any, name: str) -> Iterator[list[Tensor]]:
    """Keep what reaches the last of a model's blocks."""
    kept: list[Tensor] = []
    blocks = model.module.get_submodule(name)

    def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
        kept.append(given[0].detach())

    handle = blocks[len(blocks) - 1].register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _copied(layer: HeadLayer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in layer.state_dict().items()}
