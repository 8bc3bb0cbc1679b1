"""The weights a run starts from, fixed in its folder so that a resume finds the same ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ultrashape_cli.config.distilled import Distilled
from ultrashape_cli.config.schema import Config
from ultrashape_cli.config.trained_views import KEY, TrainedViews
from ultrashape_cli.errors import CheckpointError, ConfigError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.models.convert import model_metadata
from ultrashape_cli.models.initialise import attend_by_position
from ultrashape_cli.models.quantised_file import require_plain
from ultrashape_cli.models.registry import COMPONENTS, ModelSpec, build, model_spec
from ultrashape_cli.models.sources import (
    WeightSource,
    load_networks,
    packaged_weights,
    require_base,
    resolve_named,
)
from ultrashape_cli.models.weights import read_state_dict, write_safetensors
from ultrashape_cli.runs import RunFolder, digest

BASE_FILE = "base.safetensors"
PENDING_FILE = "base.pending.json"
RANDOM = "random"
"""As `train.init`: start from random weights."""
COPY_BELOW_BYTES = 2**30
"""Smaller bases are copied into the run, so that it outlives the run it started from."""


def base_source(run: RunFolder) -> WeightSource:
    """Returns the run's starting weights as recorded."""
    return _source(run, read_json(run.base))


def _source(run: RunFolder, recorded: dict[str, Any]) -> WeightSource:
    files = {name: (run.root / file).resolve() for name, file in recorded["components"].items()}
    distilled = Distilled.parse(recorded.get("start_distilled"))
    return WeightSource(recorded["model"], files, distilled=distilled)


@contextmanager
def deciding_base(
    run: RunFolder, config: Config, accelerator: Accelerator
) -> Iterator[WeightSource]:
    """Yields the run's starting weights; a new run records them once the block has loaded them.

    Raises:
        ConfigError: A model with released weights was given none, or those of another model.
    """
    recorded = read_json(run.base)
    pending = run.root / PENDING_FILE
    if recorded is None and accelerator.is_main_process:
        write_json(pending, _decide(run, config, model_spec(config.train.model)))
    accelerator.wait_for_everyone()
    decided = recorded or read_json(pending)
    if accelerator.is_main_process:
        require_base(run)
    yield _source(run, decided)
    accelerator.wait_for_everyone()
    if recorded is None and accelerator.is_main_process:
        copies = {name for name in decided["components"].values() if not Path(name).is_absolute()}
        digests = {name: digest(run.root / name) for name in sorted(copies)}
        write_json(run.base, {**decided, "digests": digests})
        pending.unlink(missing_ok=True)
    accelerator.wait_for_everyone()


def find_start(config: Config) -> WeightSource | None:
    """Returns the weights a new run starts from; None stands for random ones. Reads headers only.

    Those of `train.init`; without, those that come with the package, else random ones.

    Raises:
        CheckpointError: They are missing or quantised, or hold not all networks.
        ConfigError: A model with released weights was given none, or those of another model.
    """
    settings = config.train
    spec = model_spec(settings.model)
    if settings.init == RANDOM:
        return None
    name = settings.init or packaged_weights(settings.model)
    if not name and spec.repo_id is None:
        return None
    if not name:
        raise ConfigError(
            f"model `{spec.name}` starts from released weights, and none were given",
            hint="ushape weights pull, then --init weights/ultrashape_v1.pt; or --model tiny; "
            "or --init random to train from scratch",
        )
    source = resolve_named(Path(name))
    for file in set(source.files.values()):
        require_plain(file, "trained or adapted")
        present = read_state_dict(file)
        lacking = [n for n, path in source.files.items() if path == file and n not in present]
        if lacking:
            raise CheckpointError(
                f"`{file}` holds no weights of {', '.join(lacking)}",
                hint="pass a complete checkpoint or the run it belongs to",
            )
    if source.model != spec.name:
        raise ConfigError(
            f"`{name}` holds model `{source.model}`, not `{spec.name}`",
            hint=f"--model {source.model}",
        )
    return source


def _decide(run: RunFolder, config: Config, spec: ModelSpec) -> dict[str, object]:
    head: dict[str, object] = {"model": spec.name, "trained": config.train.trained_networks}
    source = find_start(config)
    start = source.distilled if source else None
    if start:
        head["start_distilled"] = start.as_dict()
    if config.train.objective == "distill":
        head["distilled"] = _student(config, start).as_dict()
    elif start and config.train.objective != "flow":
        # What learns from its own generations is sampled as those were.
        head["distilled"] = start.as_dict()
    if views := _views(config, source):
        head[KEY] = views.as_dict()
    if source is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            networks = build(spec, device="cpu")
            assert networks.vae is not None
            attend_by_position(networks.vae)
        _write(run.root / BASE_FILE, networks._asdict(), spec)
        return {**head, "components": dict.fromkeys(COMPONENTS, BASE_FILE)}
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


def _views(config: Config, source: WeightSource | None) -> TrainedViews | None:
    """Returns how the weights are shown several views that a run will have made."""
    if config.train.views > 1:
        return TrainedViews(config.train.views)
    return None if source is None else source.views


def checkpoint_metadata(run: RunFolder, model: str, step: int) -> dict[str, str]:
    """Returns what a file of a run's weights says of itself."""
    views = TrainedViews.parse((read_json(run.base) or {}).get(KEY))
    return {"model": model, "step": str(step), **(views.metadata() if views else {})}


def _student(config: Config, teacher: Distilled | None) -> Distilled:
    """Returns how the weights are sampled that a run will have made."""
    guidance = teacher.guidance if teacher else config.distill.guidance_scale
    name = Path(config.train.init).name if config.train.init else config.train.model
    return Distilled(config.distill.evaluations, guidance, name)


def _write(path: Path, components: dict[str, torch.nn.Module], spec: ModelSpec) -> None:
    write_safetensors(path, components, model_metadata(spec))
