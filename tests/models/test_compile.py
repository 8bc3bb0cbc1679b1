"""A block of the transformer compiles as one graph, with and without experts."""

import functools
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.errors import DependencyError
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.models.compiling import compile_regions
from ultrashape_cli.models.dit import DiTBlock, RefineDiT
from ultrashape_cli.models.embeddings import rope_3d, rotation
from ultrashape_cli.models.registry import Networks, model_spec

PARAMS = model_spec("tiny").dit
CPU = torch.device("cpu")


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_regions_train_like_the_plain_network_for_any_lengths(monkeypatch):
    # Traced and differentiated as for the real backend, which takes a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.manual_seed(0)
    plain, fast = (RefineDiT(PARAMS, checkpoint_blocks=PARAMS.depth).train() for _ in range(2))
    fast.load_state_dict(plain.state_dict())
    torch._dynamo.reset()
    compile_regions(fast, torch.device("cpu"))
    assert fast.state_dict().keys() == plain.state_dict().keys()
    counters.clear()
    graphs = []
    # One after another, and in one microbatch, with any image lengths.
    patterns = ((61, [5]), (97, [4]), (128, [6, 6]), (75, [3, 6]), (89, [5, 2]), (66, [6, 1]))
    for tokens, lengths in patterns:
        generator = torch.Generator().manual_seed(tokens)
        count = len(lengths)
        x = torch.randn(count, tokens, PARAMS.in_channels, generator=generator)
        voxels = torch.randint(PARAMS.voxel_resolution, (count, tokens, 3), generator=generator)
        context = torch.randn(count, 6, PARAMS.context_channels, generator=generator)
        for net in (plain, fast):
            net.zero_grad()
            out = net(x, torch.full((count,), 0.3), context, voxels, lengths)
            (out.velocity.square().mean() + out.aux_losses.sum()).backward()
        for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    # Attention with and without skip, keys, feed-forward, experts, a shared one; again for several.
    assert graphs[0] == graphs[1] <= 7
    assert graphs[2] == graphs[-1] <= 13


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    def broken(function, **options):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(DependencyError, match="Failed to find C compiler") as caught:
        compile_regions(RefineDiT(PARAMS), torch.device("cpu"))
    assert "train.compile=false" in caught.value.hint
    config = RefineConfig(compile=True)
    with pytest.raises(DependencyError) as caught:
        Refiner(Networks(None, RefineDiT(PARAMS), None), model_spec("tiny"), config, CPU)
    assert "refine.compile=false" in caught.value.hint
