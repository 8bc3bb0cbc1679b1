"""Refining with a quantised file: where its codes wait, what they weigh, what is planned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ball_networks import ball_networks

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.inference.memory import measure_refinement, modes_on, plan_refinement
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.models.convert import gather_weights, quantise_weights
from ultrashape_cli.models.metering import size_of
from ultrashape_cli.models.quantised_file import SCHEMES
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import WeightSource, resolve_weights
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.synthetic.figurines import make_figurine

SPEC = model_spec("tiny")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = RefineConfig(
    steps=3, guidance_scale=2.0, tokens=100, grid_resolution=16, surface_points=2000
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WeightSource]:
    folder = tmp_path_factory.mktemp("quantised")
    write_safetensors(folder / "a.safetensors", ball_networks(SPEC)._asdict(), {"model": "tiny"})
    gathered = gather_weights(folder / "a.safetensors")
    for scheme in SCHEMES:
        quantise_weights(gathered, SPEC, folder / f"{scheme}.safetensors", scheme)
    return {scheme: resolve_weights(folder / f"{scheme}.safetensors") for scheme in SCHEMES}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_give_the_same_bits_wherever_they_wait(sources, scheme: str) -> None:
    mesh, found = make_figurine(0, resolution=16), []
    for mode in ("resident", "sequential", "streamed"):
        refiner = Refiner.load(sources[scheme], replace(CONFIG, memory=mode), CPU)
        for _ in range(2):  # a second mesh finds the codes where the first left them
            prepared = refiner.prepare(mesh, 0)
            with torch.inference_mode():
                start = refiner.start(prepared)
                inputs = (prepared.voxels, start, torch.ones(1, 5, 64), [5])
                found.append(refiner.sample(*inputs, lambda *a: None))
    assert all(torch.equal(latents, found[0]) for latents in found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_plan_counts_the_codes(sources: dict[str, WeightSource], scheme: str) -> None:
    source = sources[scheme]
    dit = Refiner.load(source, CONFIG, CPU).networks.dit
    assert dit is not None
    found = measure_refinement(SPEC, CONFIG, 100, accelerator=False, quantised=source.quantised)
    assert found.weights["sample"] == sum(map(size_of, (*dit.parameters(), *dit.buffers())))
    plain = measure_refinement(SPEC, CONFIG, 100, accelerator=False)
    assert found.weights["sample"] < plain.weights["sample"]
    assert found.weights["decode"] == plain.weights["decode"]


def test_codes_are_not_quantised_again(sources: dict[str, WeightSource]) -> None:
    source = sources["int6"]
    assert modes_on(CUDA, source.quantised) == ("resident", "sequential", "streamed")
    plan = plan_refinement(
        SPEC, CONFIG, CUDA, 100, budget=0, host=64 << 30, quantised=source.quantised
    )
    assert plan.mode == "streamed"
    asked = replace(CONFIG, memory="int8")
    for act in (
        lambda: plan_refinement(SPEC, asked, CPU, 100, quantised=source.quantised),
        lambda: Refiner.load(source, asked, CPU),
    ):
        with pytest.raises(UsageError, match=r"quantised already \(int6\)") as caught:
            act()
        assert "refine.memory=auto" in (caught.value.hint or "")
