"""phantom-clip while it learns: the image tower's own weights, run faster, with the heads that training alone needs."""

from __future__ import annotations

import math

import numpy as np
import torch
from phantom_clip_bundle import IMAGE_SIZE, INITIAL_LOGIT_SCALE, MEAN, PATCH, STD, WIDTH
from phantom_clip_data import MASKS
from torch import Tensor, nn
from torch.nn import functional as F

from medvlm_probe.cohort.labels import CHEXPERT_LABELS

SIDE = IMAGE_SIZE // PATCH


def normalised(images: np.ndarray) -> Tensor:
    """Return grey uint8 images (N, 224, 224) as the model's preprocessing leaves one channel of them."""
    return (torch.from_numpy(images).float() / 255 - MEAN[0]) / STD[0]


def patches(grey: Tensor) -> Tensor:
    """Return the 16 x 16 patches of grey images (N, 224, 224) as (N, 196, 256)."""
    n = len(grey)
    return grey.view(n, SIDE, PATCH, SIDE, PATCH).permute(0, 1, 3, 2, 4).reshape(n, SIDE * SIDE, PATCH * PATCH)


class Student(nn.Module):
    """The dual encoder with linear heads on its tokens.

    Its forward pass equals the open_clip model's for grey images, and costs less: the patch embedding sums its three
    equal channels, and the last block is computed for CLS alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.mask_head = nn.Linear(WIDTH, len(MASKS))
        self.label_head = nn.Linear(WIDTH, len(CHEXPERT_LABELS))
        self.ratio_head = nn.Linear(WIDTH, 1)
        self.mask_prior = nn.Parameter(torch.zeros(SIDE * SIDE, len(MASKS)))
        self.register_buffer("mask_share", torch.ones(len(MASKS)))
        nn.init.zeros_(self.mask_head.weight)
        nn.init.constant_(self.label_head.bias, -1.5)

    def forward(self, grey: Tensor) -> dict[str, Tensor]:
        """Return `image` (N, 128), logits `masks` (N, 196, 16) and `labels` (N, 14), and `ratio` (N,)."""
        trunk = self.model.visual.trunk
        embed, last = trunk.patch_embed.proj, trunk.blocks[-1]
        x = F.linear(patches(grey), embed.weight.sum(dim=1).flatten(1), embed.bias)
        x = torch.cat([trunk.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1) + trunk.pos_embed
        for block in trunk.blocks[:-1]:
            x = block(x)
        tokens = last.norm1(x)
        cls = x[:, :1] + attend_from_cls(last.attn, tokens)
        cls = trunk.norm(cls + last.mlp(last.norm2(cls)))[:, 0]
        return {
            "image": self.model.visual.head(cls),
            "masks": self.mask_head(tokens[:, 1:]) + self.mask_prior,
            "labels": self.label_head(cls),
            "ratio": self.ratio_head(cls)[:, 0],
        }

    def mask_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the masks' binary cross entropy over that of their prior: 1 is what one knows without the image."""
        by_mask = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(0, 1))
        return (by_mask * self.mask_share).mean()

    @torch.no_grad()
    def set_mask_prior(self, targets: Tensor) -> None:
        """Start each patch's logits at the masks' frequencies there, and weigh masks so that rare ones count alike."""
        frequency = targets.mean(dim=0).clamp(1e-3, 1 - 1e-3)
        self.mask_prior.copy_(frequency.logit())
        entropy = F.binary_cross_entropy(frequency.expand_as(targets), targets, reduction="none").mean(dim=(0, 1))
        self.mask_share.copy_(1 / entropy)


def attend_from_cls(attention: nn.Module, tokens: Tensor) -> Tensor:
    """Return the attention layer's output for the first token alone, (N, 1, C)."""
    n, t, width = tokens.shape
    weight, bias, heads = attention.qkv.weight, attention.qkv.bias, attention.num_heads
    query = F.linear(tokens[:, :1], weight[:width], bias[:width]).view(n, 1, heads, -1).transpose(1, 2)
    key, value = F.linear(tokens, weight[width:], bias[width:]).view(n, t, 2, heads, -1).permute(2, 0, 3, 1, 4)
    shares = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
    return attention.proj((shares @ value).transpose(1, 2).reshape(n, 1, width))


@torch.no_grad()
def initialise(model: nn.Module, images: np.ndarray, rng: np.random.Generator) -> None:
    """Start the image tower where it can learn fine detail soon.

    The patch embedding whitens patches (principal components scaled to equal variance down to the noise, then rotated),
    else a patch's mean brightness drowns its texture; positions start as sines and cosines of row and column.
    """
    trunk = model.visual.trunk
    samples = patches(normalised(images)).reshape(-1, PATCH * PATCH).double().numpy()
    variance, components = np.linalg.eigh(np.cov(samples.T))
    order = np.argsort(variance)[::-1][:WIDTH]
    floor = variance[order[100]]
    whitening = components[:, order] / np.sqrt(variance[order] + floor)
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    weight = 0.7 * rotation @ whitening.T
    trunk.patch_embed.proj.weight.copy_(torch.from_numpy(weight / 3).view(WIDTH, 1, PATCH, PATCH).expand(-1, 3, -1, -1))
    trunk.patch_embed.proj.bias.copy_(torch.from_numpy(-weight @ samples.mean(axis=0)))
    frequency = 100.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    angle = np.arange(SIDE)[:, None] * frequency
    wave = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows, columns = np.repeat(wave, SIDE, axis=0), np.tile(wave, (SIDE, 1))
    trunk.pos_embed[:, 1:].copy_(torch.from_numpy(0.5 * np.concatenate([rows, columns], axis=1)))
    model.logit_scale.fill_(math.log(INITIAL_LOGIT_SCALE))
