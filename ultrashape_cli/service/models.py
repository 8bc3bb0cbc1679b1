"""The models that a worker keeps loaded: the one unused for longest goes first."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ultrashape_cli.config.choices import MemoryMode
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.devices import choose_device, empty_cache
from ultrashape_cli.inference.backends import choose_backend
from ultrashape_cli.inference.memory import (
    RefinePlan,
    check_plan,
    free_memory,
    limit_device,
    modes_on,
    plan_refinement,
)
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.models.metering import size_of
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import WeightSource, find_weights
from ultrashape_cli.service.plan import Checkpoint, Plan

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Choice:
    """How a job is refined."""

    refiner: Refiner
    source: WeightSource
    mode: MemoryMode


class LoadedModels:
    """Refiners by checkpoint and memory mode, at most `serve.max_models`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.device = choose_device(plan.config.device)
        self._loaded: OrderedDict[tuple[str, MemoryMode], Refiner] = OrderedDict()
        self._sources: dict[str, WeightSource] = {}

    def load_first(self) -> dict[str, Any]:
        """Loads the checkpoint of jobs that name none; returns what a worker tells of itself."""
        name = next(iter(self.plan.checkpoints))
        config = self.plan.resolve(name, {}).config.refine
        # Every mesh may have as many tokens as the settings allow.
        self.get(name, config, self.plan_for(name, config, config.tokens))
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"model": name, "device": card}

    def source(self, name: str) -> WeightSource:
        """Returns the weights of a checkpoint."""
        if name not in self._sources:
            self._sources[name] = weights_of(self.plan.checkpoints[name])
        return self._sources[name]

    def plan_for(self, name: str, config: RefineConfig, tokens: int) -> RefinePlan:
        """Returns how so many tokens fit, in the mode that is loaded where that does.

        Raises:
            OutOfMemory: No mode fits.
        """
        spec, quantised = model_spec(self.source(name).model), self.source(name).quantised
        config = replace(config, backend=choose_backend(self.source(name), config, self.device))
        # What is loaded makes room for itself, or is what is planned.
        budget = free_memory(config, self.device)
        if not config.max_memory_gib:
            budget += self._held()
        present = [mode for loaded, mode in self._loaded if loaded == name]
        for mode in present if config.memory == "auto" else ():
            fixed = replace(config, memory=mode)
            plan = plan_refinement(
                spec, fixed, self.device, tokens, budget=budget, quantised=quantised
            )
            if plan.fits:
                return plan
        plan = plan_refinement(
            spec, config, self.device, tokens, budget=budget, quantised=quantised
        )
        check_plan(plan, spec, config, self.device)
        return plan

    def get(self, name: str, config: RefineConfig, plan: RefinePlan) -> Choice:
        """Returns a refiner with the settings of a job, loaded where it is not."""
        settings = replace(config, memory=plan.mode, chunk_size=plan.chunk_size)
        limit_device(config, self.device)
        key = (name, plan.mode)
        if key not in self._loaded:
            while len(self._loaded) >= self.plan.serve.max_models:
                dropped, _ = self._loaded.popitem(last=False)
                logger.info("dropped `%s` (%s)", *dropped)
            empty_cache(self.device)
            self._loaded[key] = Refiner.load(self.source(name), settings, self.device)
            logger.info("loaded `%s` (%s)", *key)
        self._loaded.move_to_end(key)
        return Choice(self._loaded[key].with_config(settings), self.source(name), plan.mode)

    def cheaper(self, name: str, mode: MemoryMode) -> MemoryMode | None:
        """Returns the next mode that needs less of the device, None after the last."""
        modes = modes_on(self.device, self.source(name).quantised)
        after = modes[modes.index(mode) + 1 :] if mode in modes else ()
        return after[0] if after else None

    def drop_all(self) -> None:
        """Frees the memory of all models."""
        self._loaded.clear()
        empty_cache(self.device)

    def _held(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_reserved(self.device)
        networks = [n for r in self._loaded.values() for n in r.networks if n is not None]
        return sum(size_of(value) for n in networks for value in (*n.parameters(), *n.buffers()))


def weights_of(checkpoint: Checkpoint) -> WeightSource:
    """Returns the weights that a checkpoint of a plan means."""
    path = None if checkpoint.path is None else Path(checkpoint.path)
    return find_weights(path, checkpoint.named)
