"""The weights a run starts from, fixed in its folder so that a resume finds the same ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.models.convert import model_metadata
from ultrashape_cli.models.initialise import attend_by_position
from ultrashape_cli.models.registry import COMPONENTS, ModelSpec, build, model_spec
from ultrashape_cli.models.sources import (
    WeightSource,
    load_networks,
    resolve_named,
)
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.runs import RunFolder

BASE_FILE = "base.safetensors"
COPY_BELOW_BYTES = 2**30
"""Smaller bases are copied into the run, so that it outlives the run it started from."""


def base_source(run: RunFolder, config: Config) -> WeightSource:
    """Returns the run's starting weights; the first call decides and records them.

    Raises:
        ConfigError: A model with released weights was given none, or those of another model.
    """
    spec = model_spec(config.train.model)
    recorded = read_json(run.base)
    if recorded is None:
        recorded = _decide(run, config, spec)
        write_json(run.base, recorded)
    files = {name: (run.root / file).resolve() for name, file in recorded["components"].items()}
    return WeightSource(recorded["model"], files)


def check_init(config: Config) -> None:
    """Raises ConfigError unless the run's starting weights can be had. Reads headers only."""
    spec = model_spec(config.train.model)
    if config.train.init:
        _resolve(config)
    elif spec.repo_id is not None:
        raise ConfigError(
            f"model `{spec.name}` starts from released weights, and none were given",
            hint="ushape weights pull, then --init ultrashape_v1.pt; or --model tiny",
        )


def _decide(run: RunFolder, config: Config, spec: ModelSpec) -> dict[str, object]:
    head = {"model": spec.name, "trained": config.train.trained_networks}
    if not config.train.init:
        check_init(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            networks = build(spec, device="cpu")
            assert networks.vae is not None
            attend_by_position(networks.vae)
        _write(run.root / BASE_FILE, networks._asdict(), spec)
        return {**head, "components": dict.fromkeys(COMPONENTS, BASE_FILE)}
    source = _resolve(config)
    files = {name: Path(file).absolute() for name, file in source.files.items()}
    if (
        not source.adapters
        and sum(file.stat().st_size for file in set(files.values())) > COPY_BELOW_BYTES
    ):
        return {**head, "components": {name: str(file) for name, file in files.items()}}
    whole = len(set(files.values())) == 1 and files["dit"].suffix == ".safetensors"
    if whole and not source.adapters:
        shutil.copyfile(files["dit"], run.root / BASE_FILE)
    else:
        _write(run.root / BASE_FILE, load_networks(source, dtype=None)._asdict(), spec)
    return {**head, "components": dict.fromkeys(COMPONENTS, BASE_FILE)}


def _resolve(config: Config) -> WeightSource:
    source = resolve_named(Path(config.train.init))
    if source.model != config.train.model:
        raise ConfigError(
            f"`{config.train.init}` holds model `{source.model}`, not `{config.train.model}`",
            hint=f"--model {source.model}",
        )
    return source


def _write(path: Path, components: dict[str, torch.nn.Module], spec: ModelSpec) -> None:
    write_safetensors(path, components, model_metadata(spec))
