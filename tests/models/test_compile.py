"""A block of the transformer compiles as one graph, with and without experts."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from ultrashape_cli.models.dit import DiTBlock
from ultrashape_cli.models.embeddings import rope_3d, rotation
from ultrashape_cli.models.registry import model_spec

PARAMS = model_spec("tiny").dit


def inputs(seed: int = 0, tokens: int = 13) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    x, skip = torch.randn(2, 2, tokens, PARAMS.width, generator=generator)
    voxels = torch.randint(PARAMS.voxel_resolution, (2, tokens, 3), generator=generator)
    context = torch.randn(2, 6, PARAMS.context_channels, generator=generator)
    rope = rotation(*rope_3d(voxels, PARAMS.width // PARAMS.num_heads))
    return x, skip, rope, context, (4, 6)


def compiled_equals_eager(routed: bool, backend: str) -> None:
    torch.manual_seed(0)
    block = DiTBlock(PARAMS, skip=True, routed=routed)
    torch._dynamo.reset()
    counters.clear()
    # The expert counts are numbers of the graph; older torch versions break there without it.
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        compiled = torch.compile(block, fullgraph=True, backend=backend)
        for seed in (0, 1, 2):
            results = []
            for run in (block, compiled):
                block.zero_grad()
                arguments = inputs(seed)
                arguments[0].requires_grad_()
                out, loss, _ = run(*arguments)
                (out.square().mean() + (0 if loss is None else loss)).backward()
                gradients = [p.grad.clone() for p in block.parameters()]
                results.append([out.detach(), arguments[0].grad, *gradients])
            for eager, fast in zip(*results, strict=True):
                assert torch.allclose(eager, fast, atol=1e-5)
    assert not counters["graph_break"]
    # Routing changes with the input and must not compile the block anew.
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("routed", [False, True], ids=["dense", "experts"])
def test_a_block_is_traced_without_graph_breaks(routed):
    compiled_equals_eager(routed, "aot_eager")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_other_numbers_of_tokens_take_the_same_graph():
    block = DiTBlock(PARAMS, skip=True, routed=True)
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(capture_scalar_outputs=True), torch.no_grad():
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
        for tokens in (13, 29, 64, 17):
            arguments = inputs(tokens=tokens)
            assert torch.allclose(compiled(*arguments)[0], block(*arguments)[0], atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("routed", [False, True], ids=["dense", "experts"])
def test_a_compiled_block_equals_the_eager_one(routed):
    compiled_equals_eager(routed, "inductor")
