"""The strategies: which weights train, in which precision, and where the optimizer's state is.

| strategy        | trained          | kept in          | optimizer state               |
|-----------------|------------------|------------------|-------------------------------|
| full            | all              | fp32             | fp32                          |
| full-8bit       | all              | fp32             | 8 bits                        |
| full-offload    | all              | bf16, fp32 host  | fp32, on the host             |
| experts-frozen  | all but experts  | bf16, stochastic | 8 bits                        |
| lora            | adapters         | fp32             | fp32                          |
| sharded         | all              | fp32, in shards  | fp32, in shards               |

bf16 needs `train.dtype=bf16`; with fp32 every strategy keeps fp32 weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from ultrashape_cli.config.schema import Config, TrainConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.view_embedding import EMBEDDER
from ultrashape_cli.training.memory.adamw8bit import AdamW8bit
from ultrashape_cli.training.memory.lora import add_adapters
from ultrashape_cli.training.memory.offload import OffloadedAdamW

ADAM_BETAS = (0.9, 0.99)
ADAM_EPS = 1e-6
LOSSY_BELOW = 1e-3
"""Learning rate below which bf16 rounded to nearest swallows most updates: at 1e-5 nine tenths."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of the table."""

    name: str
    reason: str
    frozen_experts: bool = False
    adapters: bool = False
    half_weights: bool = False
    eight_bits: bool = False
    offloaded: bool = False
    sharded: bool = False

    def weight_dtype(self, parameter: nn.Parameter, autocast: str) -> torch.dtype:
        """Returns what a parameter is kept in on the device, frozen or trained."""
        frozen_base = self.adapters and autocast == "bf16" and not parameter.requires_grad
        return torch.bfloat16 if self.half_weights or frozen_base else parameter.dtype


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("full", "everything in fp32 fits the card"),
        Strategy("full-8bit", "fp32 weights fit once Adam's state takes 8 bits", eight_bits=True),
        Strategy(
            "full-offload",
            "the host has room for fp32 weights and Adam's state",
            half_weights=True,
            offloaded=True,
        ),
        Strategy(
            "experts-frozen",
            "the routed experts, half of the weights, stay as they are",
            frozen_experts=True,
            half_weights=True,
            eight_bits=True,
        ),
        Strategy("lora", "only small adapters train", adapters=True),
        Strategy("sharded", "every process holds its share", sharded=True),
    )
}
"""From the most memory to the least; `sharded` divides that of `full` by the processes."""


def resolve_strategy(config: Config) -> Strategy:
    """Returns the strategy after the overrides `train.optimizer` and `train.weights`.

    Raises:
        ConfigError: A combination that loses most of the progress, or does not exist; an engine
            that does not fit it.
    """
    settings, processes = config.train, config.launch.num_processes
    row = STRATEGIES[settings.strategy]
    half = {"auto": row.half_weights and settings.dtype == "bf16", "fp32": False, "bf16": True}
    eight = {"auto": row.eight_bits, "adamw": False, "adamw-8bit": True}
    strategy = replace(
        row, half_weights=half[settings.weights], eight_bits=eight[settings.optimizer]
    )
    if strategy.half_weights and settings.dtype != "bf16":
        raise ConfigError(
            "train.weights=bf16 needs train.dtype=bf16", hint="--set train.dtype=bf16"
        )
    if row.name in ("lora", "full-offload", "sharded") and eight[settings.optimizer]:
        raise ConfigError(
            f"strategy `{row.name}` has its own optimizer state",
            hint="--set train.optimizer=auto",
        )
    if row.name in ("lora", "sharded") and half[settings.weights]:
        raise ConfigError(f"strategy `{row.name}` trains fp32", hint="--set train.weights=auto")
    rounds = strategy.half_weights and not strategy.offloaded and not strategy.eight_bits
    if rounds and settings.learning_rate < LOSSY_BELOW:
        raise ConfigError(
            "bf16 weights rounded to nearest lose about 90 % of the progress at learning rate "
            f"{settings.learning_rate:g}: most updates are smaller than half a bf16 step",
            hint="--set train.optimizer=adamw-8bit (rounds stochastically) "
            "or --set train.weights=fp32",
        )
    if row.sharded and settings.stage == "vae":
        raise ConfigError(
            "the autoencoder fits one GPU: it trains in copies", hint="--set train.strategy=full"
        )
    if row.sharded and processes == 1:
        raise ConfigError(
            "strategy `sharded` needs several processes", hint="--num-processes N, one per GPU"
        )
    if row.sharded and settings.skip_bad and settings.accumulation > 1:
        # Weights are gathered in every microbatch, of which all processes need the same number.
        raise ConfigError(
            "train.skip_bad may leave the processes different numbers of microbatches, and "
            "strategy `sharded` would wait forever for those left out",
            hint="--set train.skip_bad=false, or --set train.accumulation=1",
        )
    if config.launch.engine == "deepspeed":
        _check_deepspeed(config, strategy)
    return strategy


def _check_deepspeed(config: Config, strategy: Strategy) -> None:
    settings = config.train
    native = "--set launch.engine=native"
    plain = strategy.name == "full" and not (strategy.eight_bits or strategy.half_weights)
    if settings.stage == "vae":
        raise ConfigError("the autoencoder fits one GPU: it trains in copies", hint=native)
    if not plain:
        raise ConfigError(
            "launch.engine=deepspeed divides strategy `full` with fp32 weights and Adam, not "
            f"`{strategy.name}` with train.optimizer={settings.optimizer} and "
            f"train.weights={settings.weights}",
            hint=f"--set train.strategy=full, or {native}",
        )
    if config.launch.num_processes == 1:
        raise ConfigError(
            "launch.engine=deepspeed needs several processes: there is nothing to divide in one",
            hint=f"--num-processes N, one per GPU; or {native}",
        )
    if settings.skip_bad and settings.accumulation > 1:
        # Gradients are exchanged in every microbatch, not once a step as by DDP.
        raise ConfigError(
            "train.skip_bad may leave the processes different numbers of microbatches, "
            "and deepspeed would wait forever for those left out",
            hint=f"--set train.skip_bad=false, --set train.accumulation=1, or {native}",
        )
    if config.launch.zero_stage == 3 and (settings.ema_decay or settings.train_conditioner):
        off = "ema_decay=0" if settings.ema_decay else "train_conditioner=false"
        raise ConfigError(
            f"train.{off.partition('=')[0]} needs whole weights on every process, "
            "which ZeRO-3 does not have",
            hint=f"--set launch.zero_stage=2, or --set train.{off}",
        )


def whole_weights(config: Config) -> bool:
    """Says whether every process holds all weights; without, all compute each pass together."""
    zero_3 = config.launch.engine == "deepspeed" and config.launch.zero_stage == 3
    return config.train.strategy != "sharded" and not zero_3


def select_parameters(
    net: nn.Module, settings: TrainConfig, strategy: Strategy, *, seed: int
) -> list[nn.Parameter]:
    """Freezes what the strategy does not train, or adds its adapters; returns what trains."""
    if strategy.adapters:
        add_adapters(net, settings, seed=seed)
    else:
        for name, parameter in net.named_parameters():
            frozen = strategy.frozen_experts and ".moe.experts." in f".{name}"
            # DINOv2's own training masks patches; nothing here reads the token.
            frozen = frozen or name.endswith(".embeddings.mask_token")
            # Of weights that were trained with several views: decay alone would change it.
            frozen = frozen or (settings.views == 1 and f".{EMBEDDER}." in f".{name}")
            parameter.requires_grad_(not frozen)
    return [p for p in net.parameters() if p.requires_grad]


def make_optimizer(
    net: nn.Module,
    settings: TrainConfig,
    strategy: Strategy,
    *,
    seed: int,
    masters: dict[nn.Parameter, torch.Tensor] | None = None,
    compiled: bool | None = None,
) -> torch.optim.Optimizer | OffloadedAdamW:
    """Returns AdamW as the strategy wants it: decay on matrices, none on biases and norms.

    Args:
        net: With its trained parameters selected, on its device.
        settings: Learning rate and weight decay.
        strategy: From `resolve_strategy`.
        seed: Of stochastic rounding.
        masters: fp32 values by parameter, for `full-offload`.
        compiled: As in `AdamW8bit`.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    options = {"lr": settings.learning_rate, "betas": ADAM_BETAS, "eps": ADAM_EPS}
    if strategy.offloaded:
        assert masters is not None
        return OffloadedAdamW(groups, masters, **options)
    if strategy.eight_bits:
        return AdamW8bit(groups, seed=seed, compiled=compiled, **options)  # type: ignore[arg-type]
    # The foreach path makes temporaries as large as the parameters.
    fused = trained[0].device.type in {"cuda", "cpu"}
    return torch.optim.AdamW(groups, fused=fused, **options)  # type: ignore[arg-type]
