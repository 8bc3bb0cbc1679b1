"""The named choices of settings and options. Apart from the schema: every --help reads them."""

from typing import Literal

Contents = Literal["dit", "full"]
SampleFormat = Literal["compact", "reference"]
GroupBy = Literal["none", "folder", "prefix", "duplicates", "series", "author"]
EngineKind = Literal["local", "ray"]
UpAxis = Literal["y", "z", "auto"]
FrontAxis = Literal["z", "-z", "x", "-x", "auto"]
Stage = Literal["dit", "vae"]
Strategy = Literal["full", "full-8bit", "full-offload", "experts-frozen", "lora", "sharded"]
Checkpointing = Literal["auto", "all", "none"]
DtypePolicy = Literal["fp32", "bf16"]
Attention = Literal["auto", "sdpa", "cudnn", "flash"]
Lights = Literal["studio", "soft", "random"]
MapName = Literal["depth", "normal", "mask"]
Renderer = Literal["rays", "blender"]
Quality = Literal["draft", "standard", "max"]
Solver = Literal["euler", "heun", "midpoint", "ab2", "dpm"]
MemoryMode = Literal["auto", "resident", "sequential", "streamed", "int8"]
MeshFrame = Literal["input", "normalised"]
Colours = Literal["keep", "none"]
Background = Literal["auto", "keep", "white", "remove"]
