"""`ushape weights export --format onnx|aoti`: the networks for another runtime."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ultrashape_cli.commands.weights.options import Dtype, attribute, size

if TYPE_CHECKING:
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


class GraphRequest(NamedTuple):
    """What the user asked for."""

    weights: Path
    out: Path | None
    checkpoint: str
    ema: bool
    merge_lora: bool
    dtype: Dtype | None
    force: bool


def export_graphs(ui: UI, request: GraphRequest, format_name: str) -> None:
    """Exports a checkpoint as ONNX files, or compiles its model for this machine; shows errors."""
    _check(request, format_name)
    source = _source(request)
    inputs = {"weights": str(request.weights), "model": source.model, "format": format_name}
    if format_name == "aoti":
        _compile(ui, source, inputs)
    else:
        _write_onnx(ui, request, source, inputs)


def _check(request: GraphRequest, format_name: str) -> None:
    """Raises UsageError for options that have no meaning with a format."""
    from ultrashape_cli.errors import UsageError

    for name, given, hint in (
        ("--dtype", request.dtype not in (None, Dtype.FP32), "leave it out: graphs are in fp32"),
        ("--no-merge-lora", not request.merge_lora, "leave it out: adapters are merged"),
        ("--out", format_name == "aoti" and request.out is not None,
         "leave it out: packages are for this machine and any weights of the model, and `refine "
         "--backend aoti` finds them where they are kept"),
        ("--force", format_name == "aoti" and request.force, "leave it out"),
    ):  # fmt: skip
        if given:
            raise UsageError(f"`{name}` has no meaning with --format {format_name}", hint=hint)


def _source(request: GraphRequest) -> WeightSource:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.models.sources import choose_checkpoint, resolve_named, resolve_weights
    from ultrashape_cli.runs import RunFolder

    folder = RunFolder(request.weights)
    if folder.is_run():
        return resolve_weights(choose_checkpoint(folder, request.checkpoint), averaged=request.ema)
    if request.checkpoint != "latest" or request.ema:
        raise UsageError(
            f"`{request.weights}` is no run: it has no checkpoints to choose from",
            hint="leave --checkpoint and --ema out",
        )
    return resolve_named(request.weights)


def _write_onnx(
    ui: UI, request: GraphRequest, source: WeightSource, inputs: dict[str, Any]
) -> None:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.evaluation.export import check_place, export_onnx
    from ultrashape_cli.exporting.parts import PARTS
    from ultrashape_cli.files import check_outputs

    target = request.out or Path(f"{request.weights.resolve().stem}-onnx")
    check_outputs([target], source.inputs, hint=f"-o {target.name}-onnx")
    if problem := check_place(target, request.force):
        replace = ", or --force to replace it" if problem.endswith("exists") else ""
        raise UsageError(problem, hint=f"-o OTHER{replace}")
    names = PARTS
    with ui.progress("export", len(names)) as bar:
        manifest = export_onnx(source, target, lambda name: bar.update(names.index(name), name))
        bar.update(len(names), "written")
    rows = []
    for name, part in manifest["parts"].items():
        written = sum((target / f"{name}.onnx{end}").stat().st_size for end in ("", ".data")
                      if (target / f"{name}.onnx{end}").exists())  # fmt: skip
        rows.append((name, size(written), *_errors(part)))
    ui.table(("part", "size", "error", "at"), rows)
    first, last = manifest["dense_experts"][0], manifest["dense_experts"][-1]
    ui.info(
        f"errors in onnxruntime, relative to the largest value; every expert runs on every token: "
        f"{first['extra_flops']:+.0%} FLOPs of a step at {first['tokens']:,} tokens, "
        f"{last['extra_flops']:+.0%} at {last['tokens']:,}"
    )
    ui.info(f"{target}: {manifest['seconds']:.0f} s")
    ui.hint(f"ushape refine MESH IMAGE --checkpoint {shlex.quote(str(target))}")
    outputs = {"folder": str(target), **attribute(request.weights, target)}
    ui.result(inputs=inputs, outputs=outputs, manifest=manifest)


def _compile(ui: UI, source: WeightSource, inputs: dict[str, Any]) -> None:
    from ultrashape_cli.evaluation.export import compile_for_this_machine

    found = compile_for_this_machine(source, ui.info)
    rows = []
    for name, part in found["parts"].items():
        pairs = zip(part["seconds"]["torch"], part["seconds"]["aoti"], strict=True)
        gains = ", ".join(f"{plain / fast:.2f}" for plain, fast in pairs)
        rows.append((name, *_errors(part), gains))
    ui.table(("part", "error", "at", "times as fast as torch"), rows)
    ui.info("errors relative to the largest value")
    ui.hint("ushape refine MESH IMAGE --backend aoti")
    ui.result(inputs=inputs, outputs={"folder": found["folder"]}, parts=found["parts"])


def _errors(part: dict[str, Any]) -> tuple[str, str]:
    """Returns the errors of a part and the sizes they were measured at, as cells."""
    errors = ", ".join(f"{each['error']:.1e}" for each in part["parity"])
    sizes = ", ".join(" x ".join(map(str, each["sizes"].values())) for each in part["parity"])
    return errors, sizes.strip(", ") or "images"
