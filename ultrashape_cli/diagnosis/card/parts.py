"""The parts of the report and their cases, in order of value. Free of torch: the runner waits here.

A case is named PART/REST, as `steps/full-8bit` or `refine/8192/streamed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

TWINS = (
    *("layer-norm", "rms-norm", "attention-sdpa", "attention-cudnn", "attention-flash"),
    *("experts-looped", "experts-grouped", "ties", "dit", "field", "sphere", "int8", "nf4"),
    *("adamw-8bit", "adamw-compiled", "rounding", "offload", "stream", "resume"),
)
"""Checks of kernels and of what training and refining rest on; the functions are in `twins`."""
STRATEGIES = ("full", "full-8bit", "full-offload", "experts-frozen", "lora")
COMPILED = ("compile-refine", "compile-train")
MODES = ("resident", "streamed", "int8", "sequential")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large the cases are."""

    product_sides: tuple[int, ...]
    """Rows and columns of square products."""
    copied_bytes: int
    train_tokens: int
    surface_points: int
    refine_tokens: tuple[int, ...]
    coarse_cells: int
    """Grid of the refinements, whose decoding is about memory."""
    decode_tokens: tuple[int, ...]
    decode_cells: int
    attention_tokens: tuple[int, ...]
    guidance_scale: float = 5.0


SIZES = {
    "cuda": Sizes(
        product_sides=(4096, 8192),
        copied_bytes=2**30,
        train_tokens=8192,
        surface_points=163_840,
        refine_tokens=(8192, 32_768),
        coarse_cells=128,
        decode_tokens=(8192, 32_768),
        decode_cells=1024,
        attention_tokens=(8192, 32_768),
    ),
    "cpu": Sizes(
        product_sides=(256, 512),
        copied_bytes=2**26,
        train_tokens=32,
        surface_points=512,
        refine_tokens=(32, 64),
        coarse_cells=64,
        decode_tokens=(16,),
        decode_cells=64,
        attention_tokens=(64, 128),
    ),
}
"""By the kind of device: a CPU is for the tests of the report itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What all cases of a report share."""

    device: str
    """`cuda` or `cpu`."""
    model: str
    profile: str
    """Row of the hardware profile table: the peak of the datasheet, and what a run would take."""
    seed: int = 0

    @property
    def sizes(self) -> Sizes:
        """Returns how large the cases are."""
        return SIZES[self.device]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Cases that belong together."""

    name: str
    share: float
    """Of the time; what a part leaves goes to those behind it."""
    cases: tuple[str, ...]
    alone: bool = False
    """On a card each case has a process of its own, as its memory is measured."""
    names: tuple[str, ...] = field(init=False)
    """The cases with the part in front."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(f"{self.name}/{case}" for case in self.cases))


def all_parts(sizes: Sizes) -> tuple[Part, ...]:
    """Returns the parts of a report, the most valuable first."""
    tokens = [str(count) for count in sizes.refine_tokens]
    attention = [f"attention-{count}" for count in sizes.attention_tokens]
    return (
        Part(name="device", share=0.05, cases=("products", "bandwidth")),
        Part(name="twins", share=0.12, cases=TWINS),
        Part(name="steps", share=0.38, cases=STRATEGIES, alone=True),
        Part(
            name="refine",
            share=0.25,
            cases=tuple(f"{count}/{mode}" for count in tokens for mode in MODES),
            alone=True,
        ),
        Part(name="kernels", share=0.1, cases=(*attention, "experts", *COMPILED)),
        Part(name="decode", share=0.1, cases=tuple(map(str, sizes.decode_tokens)), alone=True),
    )


def all_names(parts: Sequence[Part]) -> Iterator[str]:
    """Yields the names of all cases in the order of the report."""
    for part in parts:
        yield from part.names
