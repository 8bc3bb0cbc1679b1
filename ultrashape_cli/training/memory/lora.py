"""Low-rank adapters (Hu et al. 2022) through peft, over a frozen base of 16, 8 or 4 bits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.models.adapters import PREFIX
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.quantised import quantise_linears
from ultrashape_cli.models.view_embedding import EMBEDDER


def adapted_layers(net: nn.Module, *, experts: bool) -> list[str]:
    """Returns the linear layers that get adapters.

    Of the DiT: attention, feed-forward, shared experts and skips of every block, and the routed
    experts when asked; never the gates, which choose and do not compute. Of the VAE: all.
    """
    names = [name for name, layer in net.named_modules() if type(layer) is nn.Linear]
    if not isinstance(net, RefineDiT):
        return names
    return [
        name
        for name in names
        if name.startswith("blocks.")
        and not name.endswith(".gate")
        and (experts or ".moe.experts." not in name)
    ]


def add_adapters(net: nn.Module, settings: TrainConfig, *, seed: int) -> None:
    """Freezes a network and adds fp32 adapters to it, in place.

    With `train.views` the layer for cameras trains beside them: there is nothing to adapt yet.

    Raises:
        DependencyError: peft is not installed.
    """
    peft = _import_peft()
    layers = adapted_layers(net, experts=settings.lora_experts)
    net.requires_grad_(False)
    if settings.lora_base != "auto":
        # The routed experts are the half of the weights: they shrink even without adapters.
        quantise_linears(net, adapted_layers(net, experts=True), settings.lora_base)
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_rank,
        target_modules=layers,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft has no dispatcher for layers it does not know and says so for each.
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, net)
    if settings.views > 1 and isinstance(net, RefineDiT):
        assert net.view_embedder is not None
        net.view_embedder.requires_grad_(True)
    for parameter in _adapters(net).values():
        parameter.data = parameter.data.float()
    for layer in net.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            # Autocast chooses the dtype; inputs cast to fp32 for it would be read three times.
            layer.cast_input_dtype_enabled = False


def adapter_weights(net: nn.Module) -> dict[str, Tensor]:
    """Returns the adapters, and what trains beside them, under peft's file names."""
    return {key: parameter.detach() for key, parameter in _adapters(net).items()}


def adapter_config(net: nn.Module, settings: TrainConfig) -> dict[str, Any] | None:
    """Returns what peft writes to adapter_config.json; None of a network without adapters."""
    if settings.strategy != "lora":
        return None
    beside = [EMBEDDER] if PREFIX + f"{EMBEDDER}.weight" in _adapters(net) else []
    return {
        "peft_type": "LORA",
        **({"modules_to_save": beside} if beside else {}),
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_rank,
        "bias": "none",
        "target_modules": [
            name.removesuffix(".lora_A.default")
            for name, _ in net.named_modules()
            if name.endswith(".lora_A.default")
        ],
    }


def load_adapters(net: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Restores what `adapter_weights` returned.

    Raises:
        CheckpointError: The adapters belong to another network or rank.
    """
    own = _adapters(net)
    if own.keys() != weights.keys() or any(own[k].shape != v.shape for k, v in weights.items()):
        raise CheckpointError(
            f"`{path}` holds the adapters of another network or rank",
            hint="use the run's own config.toml",
        )
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)


def _adapters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the adapters, and what trains beside them, by the names peft gives them in a file."""
    return {
        PREFIX + name.replace(".default", ""): parameter
        for name, parameter in net.named_parameters()
        if "lora_" in name or (name.startswith(EMBEDDER) and parameter.requires_grad)
    }


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            f"adapters need peft: {error}",
            hint="pip install 'ultrashape-cli[lora]', or --set train.strategy=experts-frozen",
        ) from error
    return peft
