"""The README.md that accompanies uploaded weights."""

from __future__ import annotations

from collections.abc import Sequence

from ultrashape_cli.hub import LICENCES
from ultrashape_cli.models.convert import PartSummary
from ultrashape_cli.models.registry import MODELS, ModelSpec

_REFERENCE = next(spec for spec in MODELS.values() if spec.licence in LICENCES)


def model_card(
    spec: ModelSpec,
    repo: str,
    file_name: str,
    parts: Sequence[PartSummary],
    sha256: str,
) -> str:
    """Return a model card: front matter of the Hub, contents, licence and its limits, usage."""
    licence = LICENCES.get(spec.licence)
    head = ["library_name: ushape", "pipeline_tag: image-to-3d"]
    if licence is None:
        head += [f"license: {spec.licence.lower()}"]
    else:
        head += ["license: other", f"license_name: {licence.card_id}"]
        head += [f"license_link: {licence.url}"]
    if spec is _REFERENCE:
        head += [f"base_model: {spec.repo_id}"]
    rows = [
        f"| {part.component} | {part.keys} | {part.parameters:,} | {part.dtypes} |"
        for part in parts
    ]
    terms = f"{spec.licence}." if licence is None else f"[{licence.name}]({licence.url})."
    limits = [] if licence is None else [licence.limits]
    return "\n".join(
        [
            "---",
            *head,
            "tags: [3d, mesh, refinement]",
            "---",
            f"# {repo.rpartition('/')[2]}",
            "",
            f"Weights of the model `{spec.name}`, which refines a coarse mesh and a reference "
            "image into a detailed mesh.",
            "",
            "| network | tensors | parameters | dtype |",
            "|---|---|---|---|",
            *rows,
            "",
            f"`{file_name}`, sha256 `{sha256}`",
            "",
            "## Use",
            "",
            f"    ushape weights pull {spec.name} --repo {repo} --file {file_name} -o weights",
            "    ushape refine coarse.glb view.png "
            f"--checkpoint weights/{file_name} -o refined.glb",
            "",
            "## Licence",
            "",
            terms,
            *limits,
            "",
        ]
    )
