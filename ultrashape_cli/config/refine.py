"""Settings of `ushape refine`; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass

from ultrashape_cli.config.choices import (
    Attention,
    Backend,
    Background,
    Bake,
    Colours,
    DtypePolicy,
    FrontAxis,
    MemoryMode,
    MeshFrame,
    Quality,
    Solver,
    Topology,
    UpAxis,
    ViewMode,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Coarse mesh and image to refined mesh."""

    quality: Quality = "standard"
    """`max` is the reference's sampler; `standard` and `draft` set solver, steps and guidance."""
    steps: int = 50
    """Points of the sampler's schedule."""
    solver: Solver = "euler"
    """`euler`, `ab2` and `dpm` ask the network once per step, `heun` and `midpoint` twice."""
    guidance_scale: float = 5.0
    """Classifier-free guidance; 0 samples without guidance."""
    guidance_start: float = 0.0
    """t from which guidance is on; noise is 0."""
    guidance_end: float = 1.0
    """t up to which guidance is on; data is 1."""
    guidance_reuse: int = 1
    """Evaluations that share one prediction without the image; 1 makes a new one each time."""
    guidance_batch: bool = False
    """Both halves of the guidance in one pass of twice the batch, instead of two."""
    cache_context: bool = True
    """Keys and values of the image computed once, not in every step; the result is the same."""
    compile: bool = False
    """Compile the blocks of the DiT; pays off for many meshes of one size."""
    backend: Backend = "auto"
    """What runs the networks: `torch`, `aoti` (compiled for this machine, kept in ~/.cache/ushape),
    `onnx` (onnxruntime, of an exported folder); `auto` is what the checkpoint is for."""
    strength: float = 1.0
    """How much of the way from the input to the result is gone: 1 is the whole of it, 0 only
    encodes and decodes the input."""
    region: str = ""
    """What of the mesh may change, the rest stays exactly: `box=X,Y,Z,X,Y,Z`, `sphere=X,Y,Z,R` in
    the frame of the file, `side=-z` (x, y, z with a sign) of the upright mesh, whose front is z,
    `mask=FILE`, a mesh of the same place whose bright colours are the region. Empty is all."""
    region_feather: float = 3.0
    """Voxels inside the border of the region over which the change sets in."""
    view_mode: ViewMode = "spatial"
    """With several views: `spatial` lets a token listen to those that see it, `mean` to all alike,
    `stochastic` asks one view per evaluation, in turn, `trained` shows all at once to weights that
    were trained with several, which is then the default."""
    view_overlap: float = 0.6
    """Least overlap of a view's outline with the mesh seen from there; 0 takes any."""
    max_views: int = 6
    """Views that are asked, of those given; each is a pass more in every evaluation, but for
    `trained`, where it is at most as many as in training."""
    best_of: int = 1
    """Results made, of seeds in a row, of which the best by images and topology is kept."""
    tokens: int = 32_768
    """Most latent tokens (occupied voxels of the coarse mesh)."""
    grid_resolution: int = 1024
    """Cells along one side of the decoded field."""
    chunk_size: int = 8192
    """Most queries decoded at once; fewer where memory is short."""
    memory: MemoryMode = "auto"
    """Where weights wait: `resident` on the device, `sequential` on the host but for the network
    in use, `streamed` block by block, `int8` as sequential in half the bytes; `auto` takes the
    first that fits."""
    max_memory_gib: float = 0.0
    """Memory of the device that the run may use; 0 takes what is free."""
    attention: Attention = "sdpa"
    """Attention kernel of the DiT; `auto` times those that run here and takes the fastest."""
    surface_points: int = 409_600
    """Surface samples that mark the occupied voxels."""
    up: UpAxis = "auto"
    """Axis of the input that points up; `auto` is z for STL and 3MF and y for the rest."""
    front: FrontAxis = "z"
    """Axis of the upright input that the image looks at; `auto` is x where its symmetry says so."""
    background: Background = "auto"
    """Of an image without transparency: `keep`, `white`, `remove` (rembg), `auto` removes or
    asks."""
    colours: Colours = "keep"
    """`keep` gives the vertices of the result the colours of the coarse mesh, where it has some and
    the format of the result holds them."""
    accept_only_better: bool = False
    """Write the input instead of a result that has strayed from it, or that agrees less with the
    image in outline and shading."""
    repair: bool = False
    """Run the watertight step on the coarse mesh first."""
    faces: int = 0
    """Faces of the result, reduced by quadric edge collapse; 0 keeps all."""
    topology: Topology = "triangles"
    """Of the faces that `faces` counts: `quads` follow the shape, but may leave small holes."""
    uv: bool = False
    """Texture coordinates on the result, in GLB and OBJ."""
    bake: Bake = "none"
    """`normal` puts the detail that reducing the faces loses into a normal map."""
    bake_size: int = 2048
    """Texels along a side of the texture."""
    keep_floaters: bool = False
    """Keep small loose parts of the result."""
    floater_ratio: float = 0.005
    """Parts with a smaller share of the largest one's faces are floaters."""
    frame: MeshFrame = "input"
    """`input` puts the result in the size and place of the coarse mesh, `normalised` leaves it in
    the cube [-1, 1] with y up."""
    dtype: DtypePolicy = "fp32"
    """Autocast of the networks; latents and logits stay fp32."""

    @property
    def encodes(self) -> bool:
        """Says whether the latents of the input are needed, whatever the flow starts from."""
        return self.strength < 1 or bool(self.region)
