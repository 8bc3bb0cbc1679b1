from __future__ import annotations

import contextlib
import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_networks import SMALL, ball_networks

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.inference import streaming
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.streaming import BlockStream, quantise_dit
from ultrashape_cli.models.registry import Networks
from ultrashape_cli.synthetic.figurines import make_figurine

CPU = torch.device("cpu")
CONFIG = RefineConfig(
    steps=3, guidance_scale=2.0, tokens=100, grid_resolution=16, surface_points=2000
)
INPUTS = (
    torch.randn(1, 20, SMALL.dit.in_channels, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0.4]),
    torch.randn(1, 5, SMALL.dit.context_channels, generator=torch.Generator().manual_seed(1)),
    torch.arange(60).view(1, 20, 3) % 16,
)


def latents(networks: Networks, memory: str, dtype: str = "fp32") -> torch.Tensor:
    config = replace(CONFIG, memory=memory, dtype=dtype)  # type: ignore[arg-type]
    refiner = Refiner(networks, SMALL, config, CPU)
    prepared = refiner.prepare(make_figurine(0, resolution=16), 0)
    rgba = np.full((20, 20, 4), 255, np.uint8)
    rgba[:4] = 0
    found = []
    for _ in range(2):  # a second mesh finds the weights where the first left them
        with torch.inference_mode():
            context, lengths = refiner.condition(rgba)
            found.append(
                refiner.sample(
                    prepared.voxels, refiner.start(prepared), context, lengths, lambda *a: None
                )
            )
    assert torch.equal(*found)
    return found[0]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["sequential", "streamed"])
def test_where_the_weights_wait_changes_no_bit(mode: str, dtype: str) -> None:
    plain = latents(ball_networks(), "resident", dtype)
    assert torch.equal(plain, latents(ball_networks(), mode, dtype))


@pytest.mark.parametrize("depth", [1, 2, 5])
@torch.no_grad()
def test_blocks_stream_in_any_number_and_come_back(depth: int) -> None:
    dit = ball_networks().dit
    assert dit is not None
    expected = dit(*INPUTS).velocity
    blocks = dit.blocks
    before = [p.clone() for p in blocks.parameters()]
    stream = BlockStream(torch.nn.ModuleList(list(blocks)[:depth]), CPU)
    for _ in range(2):
        assert torch.equal(dit(*INPUTS).velocity, expected)
    assert stream.device_bytes <= 2 * max(
        sum(p.numel() * 4 + 256 for p in block.parameters()) for block in blocks
    )
    stream.close()
    assert all(torch.equal(a, b) for a, b in zip(before, blocks.parameters(), strict=True))
    assert torch.equal(dit(*INPUTS).velocity, expected)


@torch.no_grad()
def test_int8_blocks_stream_too_and_stay_near() -> None:
    dit = ball_networks().dit
    assert dit is not None
    expected = dit(*INPUTS).velocity
    size = sum(p.numel() * 4 for p in dit.blocks.parameters())
    quantise_dit(dit)
    resident = dit(*INPUTS).velocity
    error = (resident - expected).norm() / expected.norm()
    assert 0 < error < 0.05
    tensors = [*dit.blocks.parameters(), *dit.blocks.buffers()]
    assert sum(t.numel() * t.element_size() for t in tensors) < 0.4 * size
    stream = BlockStream(dit.blocks, CPU)
    assert torch.equal(dit(*INPUTS).velocity, resident)
    stream.close()


def _bytes(tensors) -> int:
    return sum(-(-t.numel() * t.element_size() // 256) * 256 for t in tensors)


@torch.no_grad()
def test_all_blocks_wait_in_one_buffer_of_their_size_and_may_stream_again() -> None:
    dit = ball_networks().dit
    assert dit is not None
    expected = dit(*INPUTS).velocity
    for _ in range(2):
        stream = BlockStream(dit.blocks, CPU)
        assert torch.equal(dit(*INPUTS).velocity, expected)
        stream.close()
        weights = [*dit.blocks.parameters(), *dit.blocks.buffers()]
        assert len({w.untyped_storage().data_ptr() for w in weights}) == 1
        assert weights[0].untyped_storage().nbytes() == _bytes(weights)


class Driver:
    """Pins nothing, and knows what it was asked for."""

    def __init__(self, failure: int = 0) -> None:
        self.failure = failure
        self.pinned: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        if not self.failure:
            self.pinned[address] = size
        return self.failure

    def cudaHostUnregister(self, address: int) -> int:
        del self.pinned[address]
        return 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "cudart", lambda: self)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())


class Owner:
    """Stands for a stream."""


@pytest.mark.parametrize("closed", [True, False])
def test_pinned_memory_is_unpinned_once_before_it_is_freed(monkeypatch, closed: bool) -> None:
    driver = Driver()
    driver.install(monkeypatch)
    memory, owner = torch.empty(5000, dtype=torch.uint8), Owner()
    freed = []
    weakref.finalize(memory, lambda: freed.append(dict(driver.pinned)))
    unpin = streaming._pin(memory, owner, CPU)
    assert driver.pinned == {memory.data_ptr(): 5000}
    assert unpin is not None
    del memory
    if closed:
        unpin()
    del owner
    gc.collect()
    assert freed == [{}]


def test_memory_that_cannot_be_pinned_is_told_and_used_as_it_is(monkeypatch, caplog) -> None:
    Driver(failure=2).install(monkeypatch)
    memory = torch.empty(3 * 2**20, dtype=torch.uint8)
    assert streaming._pin(memory, Owner(), CPU) is None
    assert "0.0 GiB of host memory cannot be pinned (CUDA error 2)" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_streaming_on_a_gpu_equals_resident_weights() -> None:
    device = torch.device("cuda")
    config = replace(CONFIG, dtype="bf16")
    results = []
    for mode in ("resident", "sequential", "streamed"):
        networks = ball_networks()
        home = device if mode == "resident" else CPU
        for network in networks:
            assert network is not None
            network.to(home, torch.bfloat16)
        refiner = Refiner(networks, SMALL, replace(config, memory=mode), device)
        prepared = refiner.prepare(make_figurine(0, resolution=16), 0)
        with torch.inference_mode():
            results.append(
                refiner.sample(
                    prepared.voxels, refiner.start(prepared), None, None, lambda *a: None
                ).cpu()
            )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
