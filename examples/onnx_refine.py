"""Refine a mesh with an exported model: numpy and onnxruntime, no torch and no ushape.

    ushape weights export tiny --format onnx -o tiny-onnx
    python examples/onnx_refine.py tiny-onnx coarse.glb view.png refined.glb [CELLS]

The image needs a transparent background. onnxruntime, trimesh, pillow and scikit-image is all.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import trimesh
from PIL import Image
from skimage.measure import marching_cubes

folder, mesh_file, image_file, out = map(Path, sys.argv[1:5])
known = json.loads((folder / "export.json").read_text())["settings"]
refine, rng = known["refine"], np.random.default_rng(0)


def run(part: str, *inputs: np.ndarray) -> list[np.ndarray]:
    if part not in sessions:
        sessions[part] = onnxruntime.InferenceSession(folder / f"{part}.onnx")
    names = [given.name for given in sessions[part].get_inputs()]
    return sessions[part].run(None, dict(zip(names, inputs, strict=True)))


sessions: dict[str, onnxruntime.InferenceSession] = {}
mesh = trimesh.load(mesh_file, force="mesh")  # y up, the image shows it from +z
centre, scale = mesh.bounds.mean(0), known["longest_side"] / max(mesh.extents)
placed = trimesh.Trimesh((mesh.vertices - centre) * scale, mesh.faces, process=False)

# The voxels that its surface occupies: one latent each.
points, _ = trimesh.sample.sample_surface(placed, refine["surface_points"], seed=0)
voxels = np.unique(((points + 1) / 2 * known["voxel_resolution"]).astype(np.int64), axis=0)
voxels = rng.permutation(voxels)[: refine["tokens"]][None]

# The object of the image in the middle of a white square; tokens of the patches that show it.
image = Image.open(image_file).convert("RGBA")
image = image.crop(image.getchannel("A").getbbox())
side = round(max(image.size) / (1 - known["image_border"]))
square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
white = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
size = (known["image_size"],) * 2
pixels = np.asarray(white.convert("RGB").resize(size), np.float32).transpose(2, 0, 1)
alpha = np.asarray(square.getchannel("A").resize(size, Image.Resampling.NEAREST), np.float32)
tokens, keep = run("conditioner", pixels[None] / 127.5 - 1, alpha[None, None] / 127.5 - 1)
context, nothing = tokens[:, keep[0]], np.zeros_like(tokens[:, :1])

# Where the flow starts: the latents of the mesh, or noise.
x = rng.standard_normal((1, voxels.shape[1], known["latent_channels"]), np.float32)
if known["start"] == "coarse":
    points, face = trimesh.sample.sample_surface(placed, known["encoder_points"], seed=1)
    label = np.zeros((len(points), 1))
    surface = np.hstack([points, placed.face_normals[face], label]).astype(np.float32)[None]
    centres = ((voxels + 0.5) * (2 / known["voxel_resolution"]) - 1).astype(np.float32)
    x = run("encoder", surface, centres)[0] * np.float32(known["scale_factor"])
times = np.linspace(0, refine["strength"], refine["steps"], dtype=np.float32)
for t, after in itertools.pairwise(times):
    velocity, guidance = run("dit", x, t[None], context, voxels)[0], refine["guidance_scale"]
    if guidance > 0:
        plain = run("dit", x, t[None], nothing, voxels)[0]
        velocity = plain + np.float32(guidance) * (velocity - plain)
    x = x + (after - t) * velocity
keys, values = run("decoder", x / np.float32(known["scale_factor"]))


def field(nodes: np.ndarray, cells: int) -> np.ndarray:
    parts = np.array_split((nodes * (2 / cells) - 1).astype(np.float32), len(nodes) // 4096 + 1)
    return np.concatenate([run("query", part[None], keys, values)[0][0] for part in parts])


# The field on a coarse grid, and on the fine one where the surface is: within the band.
cells = int(sys.argv[5]) if len(sys.argv) > 5 else refine["grid_resolution"]
coarse = max(cells // 4, known["coarsest_cells"])
step = -(-cells // coarse)
cells = coarse * step
rough = field(np.argwhere(np.ones((coarse + 1,) * 3)), coarse).reshape((coarse + 1,) * 3)
fine = np.repeat(np.repeat(np.repeat(rough, step, 0), step, 1), step, 2)[(slice(cells + 1),) * 3]
near = {tuple(node) for node in np.argwhere(np.abs(rough) < known["near_surface"])}
reach = np.argwhere(np.ones((2 * step + 1,) * 3)) - step
nodes = np.unique(np.concatenate([np.array(node) * step + reach for node in near]), axis=0)
nodes = nodes[((nodes >= 0) & (nodes <= cells)).all(1)]
fine[tuple(nodes.T)] = field(nodes, cells)
vertices, faces, _, _ = marching_cubes(fine, 0, gradient_direction="ascent")
vertices = (vertices * (2 / cells) - 1) / scale + centre
trimesh.Trimesh(vertices, faces).export(out)
