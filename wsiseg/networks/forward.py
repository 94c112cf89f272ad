"""Running a trained network: fast settings of the device, whole images, folded batch norm."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsiseg.networks.resunet import STRIDE


def for_inference(network: nn.Module, device: str) -> nn.Module:
    """A copy in evaluation mode on `device`, channels last, batch norm folded into the convolutions.

    On a GPU its weights are halves. The network's own convolutions and norms are told apart by name:
    `conv` goes with `bn`, `conv1` with `bn1`, and a `downsample` pair by its place.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        for conv, norm in _pairs(module):
            fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
            setattr(module, conv, fused)
            setattr(module, norm, nn.Identity())
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return network.half() if torch.device(device).type == "cuda" else network


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    names = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        convs = [n for n, m in names.items() if isinstance(m, nn.Conv2d)]
        candidates = [(n, str(int(n) + 1)) for n in convs]
    else:
        candidates = [(n, n.replace("conv", "bn")) for n in names if n.startswith("conv")]
    for conv, norm in candidates:
        if isinstance(names.get(norm), nn.BatchNorm2d):
            yield conv, norm


def has_bfloat16(device: str) -> bool:
    """Whether autocast to bfloat16 pays: on processors with instructions for it."""
    return torch.device(device).type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def run(network: nn.Module, images: Tensor) -> Tensor:
    """(B, C, H, W) float32 in, (B, K, H, W) float32 out, in the device's fast precision.

    H and W are multiples of 32.
    """
    device = next(network.parameters()).device
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    with torch.inference_mode():
        if device.type == "cuda":
            out = network(images.half())
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
                out = network(images)
        return out.float()


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)


def pad_to_stride(image: NDArray[np.uint8], margin: int = 0) -> tuple[NDArray[np.uint8], tuple[slice, slice]]:
    """The image mirrored out to a multiple of the stride, and where it lies in that."""
    height, width = image.shape[:2]
    after = [-(n + 2 * margin) % STRIDE + margin for n in (height, width)]
    padded = np.pad(image, ((margin, after[0]), (margin, after[1]), (0, 0)), mode="symmetric")
    return padded, (slice(margin, margin + height), slice(margin, margin + width))
