"""`ushape refine --compare-speed`: what each speed option costs in likeness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultrashape_cli.commands.refine.plan import planned
from ultrashape_cli.commands.refine.request import make_job, naming_the_command

if TYPE_CHECKING:
    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.speed import Trial
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def refine_compare(ui: UI, request: Request, source: WeightSource, resolved: Resolved) -> None:
    """Samples one mesh in every way and prints seconds and deviations; writes no mesh."""
    from ultrashape_cli.config.models import plain_steps
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.inference.job import read_inputs
    from ultrashape_cli.inference.prepared import prepare_mesh
    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.inference.speed import compare_speed, variants
    from ultrashape_cli.models.registry import model_spec

    config, spec = resolved.config.refine, model_spec(source.model)
    device = choose_device(resolved.config.device)
    job = make_job(request, resolved)
    inputs = read_inputs(job, config)
    prepared = prepare_mesh(inputs.mesh, job.seed, spec, config, inputs.up)
    ways = list(variants(config, plain_steps(source.model)))
    with naming_the_command():
        settings = planned(ui, source, config, device, prepared.voxels.shape[1])
        refiner = Refiner.load(source, settings, device)
        trials: list[Trial] = []
        with ui.progress("compare", len(ways)) as bar:
            for trial in compare_speed(refiner, prepared, inputs.rgba, iter(ways)):
                trials.append(trial)
                bar.update(len(trials), trial.name)
    columns = ("way", "passes", "s", "velocity", "worst", "latents", "Chamfer", "F")
    ui.table(columns, [_row(trial) for trial in trials])
    ui.info(
        "passes through the network; mean and worst error of a step's velocity and error of the "
        "latents, relative to the plain way; Chamfer-L1 in the cube [-1, 1] and F-score at 0.01 "
        "against the plain mesh, whose own row shows what the samples alone differ by"
    )
    ui.result(
        inputs={"mesh": str(job.mesh), "image": str(job.image), "model": source.model},
        trials=[trial.as_dict() for trial in trials],
    )


def _row(trial: Trial) -> tuple[str, ...]:
    found = trial.as_dict()
    return (
        trial.name,
        str(trial.passes),
        f"{trial.seconds:.1f}",
        f"{found['velocity_error_mean']:.1%}",
        f"{found['velocity_error_max']:.1%}",
        f"{trial.latent_error:.1%}",
        f"{trial.chamfer_l1:.5f}",
        f"{trial.f_score:.4f}",
    )
