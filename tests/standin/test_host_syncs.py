"""How often a microbatch makes the host wait for the card."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from syncs import count_syncs

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.dataset import READ_BY_HOST, to_device
from ultrashape_cli.devices import autocast, upload
from ultrashape_cli.inference.decode import decode_field
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.metering import replaced
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.training.benchmark import synthetic_batches
from ultrashape_cli.training.objectives.flow import ConditionedDiT, FlowObjective

CPU = torch.device("cpu")
MICROBATCH = 3


def _microbatch(*, conditioner_trains: bool = False, **settings: Any) -> Counter[str]:
    """Counts forward and backward of the tiny model, every block computed again in the latter."""
    flags = {"profile": "cpu", "train.model": "tiny", "train.microbatch": MICROBATCH}
    flags |= {"train.num_latents": 64, "train.surface_points": 2048}
    flags |= {f"train.{name}": value for name, value in settings.items()}
    config = resolve(flags=flags, environ={}).config
    spec = model_spec("tiny")
    torch.manual_seed(0)
    vae, dit, conditioner = build(spec, device="cpu", vae_parts=("encoder",))
    assert vae is not None
    assert dit is not None
    assert conditioner is not None
    vae.requires_grad_(False)
    dit.checkpoint_blocks = spec.dit.depth
    net = ConditionedDiT(dit, conditioner) if conditioner_trains else dit
    frozen = None if conditioner_trains else conditioner
    objective = FlowObjective(vae, frozen, config.train, params=spec.dit, seed=0, start=spec.start)
    batch = to_device(next(synthetic_batches(config, CPU)), CPU)

    def work() -> None:
        with autocast(CPU, "bf16"):
            loss = objective(net, batch)
        torch.autograd.backward(loss.total)

    on_card = [v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in READ_BY_HOST]
    for network in (vae, dit, conditioner):
        on_card += [*network.parameters(), *network.buffers()]
    # On a card it reads no values.
    with replaced(RefineDiT, "_check", lambda *inputs: None):
        return count_syncs(work, on_card)


ROUTED = {"tolist in moe.split": 2}
"""One for each routed block: the lengths of its experts' products. None in the recomputation."""
VOXELS = {"_unique2 in voxels.occupied_voxels": MICROBATCH}
"""One for each sample: how many voxels are occupied decides the shapes of all that follows."""


@pytest.mark.parametrize("conditioner_trains", [False, True])
def test_a_microbatch_waits_for_voxels_and_routed_blocks_only(conditioner_trains: bool) -> None:
    assert _microbatch(conditioner_trains=conditioner_trains) == ROUTED | VOXELS


def test_noise_on_the_voxels_costs_one_more_for_each_sample() -> None:
    noise = {"voxel_drop": 0.2, "voxel_add": 0.2, "voxel_jitter": 0.2, "voxel_coarse": 1.0}
    merged = {"unique_dim in perturbation.apply": MICROBATCH}
    assert _microbatch(**noise) == ROUTED | VOXELS | merged


def test_decoding_waits_once_for_each_level() -> None:
    def ball(points: torch.Tensor) -> torch.Tensor:
        return ((0.5 - points.norm(dim=1)) * 10).clamp(-1, 1) * weight

    weight = torch.ones(1)
    levels = {"cpu in decode.evaluate": 3}
    assert count_syncs(lambda: decode_field(ball, 64, min_resolution=16), [weight]) == levels


@pytest.mark.parametrize(
    ("work", "found"),
    [
        (lambda card, host: int(card[0]), "_local_scalar_dense in the test"),
        (lambda card, host: card.tolist(), "tolist in the test"),
        (lambda card, host: card[card > 1], "a mask as index in the test"),
        (lambda card, host: card[[0, 1]], "an index of the host in the test"),
        (lambda card, host: card.copy_(host), "copy_ in the test"),
        (lambda card, host: card + host.to("cpu"), "to in the test"),
        (lambda card, host: card + host.to(card), "to in the test"),
        (lambda card, host: card[:1] + torch.tensor([1.0], device="cpu"), "tensor in the test"),
        (lambda card, host: card.new_tensor([1.0]), "new_tensor in the test"),
    ],
)
def test_what_waits_is_counted(work, found: str) -> None:
    card, host = torch.arange(3.0), torch.arange(3.0)
    assert count_syncs(lambda: work(card, host), [card]) == {found: 1}


def test_what_does_not_wait_is_not_counted() -> None:
    card, host = torch.arange(3.0), torch.arange(3.0)

    def work() -> None:
        moved = upload(host, CPU)
        assert int(host.sum()) == 3
        torch.stack([card * 2, moved + torch.ones(3, device=card.device) * torch.tensor(2.0)])

    assert not count_syncs(work, [card])


def test_tensors_of_both_places_are_refused() -> None:
    card, host = torch.arange(3.0), torch.arange(3.0)
    with pytest.raises(AssertionError, match="add has"):
        count_syncs(lambda: card + host, [card])
