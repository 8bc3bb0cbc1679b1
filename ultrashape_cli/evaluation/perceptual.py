"""Picture similarities by networks of others, where their packages and weights are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.formatting import cause

Picture = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, slots=True)
class PerceptualScore:
    """A named similarity or distance of two pictures."""

    name: str
    compare: Callable[[Picture, Picture], float]

    def __call__(self, a: Picture, b: Picture) -> float:
        """Returns the score of two pictures of one size."""
        return self.compare(a, b)


def load_perceptual(device: str = "cpu") -> tuple[list[PerceptualScore], dict[str, str]]:
    """Returns the scores that load here, and for each other one why it is not measured."""
    found, missing = [], {}
    for name, load in (("lpips", _lpips), ("clip", _clip)):
        try:
            found.append(PerceptualScore(name, load(device)))
        except ImportError as error:
            package = error.name or name
            missing[name] = f"needs {package}: pip install 'ultrashape-cli[perceptual]'"
        except Exception as error:  # weights that cannot be had, in any library's words
            missing[name] = f"does not load: {cause(error)}"
    return found, missing


def _lpips(device: str) -> Callable[[Picture, Picture], float]:
    import lpips
    import torch

    net = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    def compare(a: Picture, b: Picture) -> float:
        with torch.inference_mode():
            return float(net(_tensor(a, device) * 2 - 1, _tensor(b, device) * 2 - 1))

    return compare


def _clip(device: str) -> Callable[[Picture, Picture], float]:
    import open_clip
    import torch
    from PIL import Image

    net, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained="openai")
    net = net.to(device).eval()

    def embed(picture: Picture) -> Any:
        pixels = preprocess(Image.fromarray(picture))[None].to(device)
        return torch.nn.functional.normalize(net.encode_image(pixels).float(), dim=-1)

    def compare(a: Picture, b: Picture) -> float:
        with torch.inference_mode():
            return float((embed(a) * embed(b)).sum())

    return compare


def _tensor(picture: Picture, device: str) -> Any:  # [1, 3, H, W] in [0, 1]
    import torch

    return torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(255).to(device)
