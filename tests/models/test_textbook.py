"""The network against the plain implementation that the benchmark measures it with."""

import runpy
from pathlib import Path

import torch

from ultrashape_cli.models.registry import build, model_spec

TEXTBOOK = Path(__file__).parents[2] / "examples" / "bench" / "textbook.py"


def test_the_network_computes_what_the_textbook_does():
    forward = runpy.run_path(str(TEXTBOOK))["forward"]
    params = model_spec("tiny").dit
    torch.manual_seed(0)
    dit = build(model_spec("tiny"), device="cpu", components=("dit",)).dit
    inputs = (
        torch.randn(2, 40, params.in_channels),
        torch.rand(2),
        torch.randn(2, 9, params.context_channels),
        torch.randint(params.voxel_resolution, (2, 40, 3)),
    )
    with torch.no_grad():
        expected = forward(dict(dit.named_modules()), params, *inputs)
        assert torch.allclose(dit(*inputs).velocity, expected, atol=1e-5)
