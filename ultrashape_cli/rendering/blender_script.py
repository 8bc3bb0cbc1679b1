"""Runs inside Blender (`blender -b -P`) or a Python with bpy: renders what standard input asks for.

Standard library, numpy and bpy only. One JSON object per line. First answer: `{version}`. A task
is `{mesh, cameras, lights, samples, seed, image}`; its answers are `{view}` as each image is
written to `image`, or `{error}`.
"""

import json
import math
import os
import sys

import bpy
import mathutils
import numpy as np

SENSOR_MM = 36.0


def build_mesh(path):
    """Add the mesh of an npz file: vertices, faces, colours (maybe empty), crease_degrees."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    vertices, faces = arrays["vertices"], arrays["faces"]
    mesh = bpy.data.meshes.new("asset")
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.astype(np.float32).ravel())
    mesh.loops.add(faces.size)
    mesh.loops.foreach_set("vertex_index", faces.astype(np.int32).ravel())
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    mesh.update(calc_edges=True)
    mesh.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    mesh.set_sharp_from_angle(angle=math.radians(float(arrays["crease_degrees"])))
    material = bpy.data.materials.new("surface")
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    surface = tree.nodes.new("ShaderNodeBsdfDiffuse")
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(surface.outputs["BSDF"], output.inputs["Surface"])
    if len(arrays["colours"]):
        layer = mesh.color_attributes.new("colour", "FLOAT_COLOR", "POINT")
        rgba = np.ones((len(vertices), 4), np.float32)
        rgba[:, :3] = arrays["colours"]
        layer.data.foreach_set("color", rgba.ravel())
        node = tree.nodes.new("ShaderNodeAttribute")
        node.attribute_name = "colour"
        tree.links.new(node.outputs["Color"], surface.inputs["Color"])
    else:
        surface.inputs["Color"].default_value = (*[float(arrays["albedo"])] * 3, 1)
    mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("asset", mesh))


def prepare_scene(task):
    """Empty the file, then add mesh, camera, sun lamps and render settings; return the last two."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = task["samples"]
    scene.cycles.seed = task["seed"] % 2**31
    scene.cycles.use_denoising = True
    scene.cycles.denoiser = "OPENIMAGEDENOISE"
    scene.cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
    scene.cycles.max_bounces = 1
    scene.render.use_persistent_data = True
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.image_settings.color_depth = "8"
    scene.view_settings.view_transform = "Standard"
    scene.render.filepath = task["image"]
    build_mesh(task["mesh"])
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    suns = []
    for number in range(3):
        sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
        # Only the key throws shadows.
        sun.data.use_shadow = number == 0
        scene.collection.objects.link(sun)
        suns.append(sun)
    return scene, suns


def place_camera(scene, camera):
    """Give the scene the camera that `Camera.to_dict` describes."""
    scene.render.resolution_x, scene.render.resolution_y = camera["width"], camera["height"]
    data = scene.camera.data
    data.sensor_fit, data.sensor_width = "HORIZONTAL", SENSOR_MM
    data.clip_start, data.clip_end = 1e-3, 1e4
    if camera["model"] == "orthographic":
        data.type = "ORTHO"
        data.ortho_scale = camera["width"] / camera["fx"]
    else:
        data.type = "PERSP"
        data.lens = camera["fx"] * SENSOR_MM / camera["width"]
    # Blender looks along -z with y up.
    turned = np.linalg.inv(np.array(camera["world_to_camera"])) @ np.diag([1.0, -1.0, -1.0, 1.0])
    scene.camera.matrix_world = mathutils.Matrix(turned.tolist())


def place_lights(scene, suns, lights):
    """Aim the lamps. A sun of strength pi lights a white surface to brightness 1."""
    for number, (sun, colour) in enumerate(zip(suns, lights["colours"], strict=True)):
        towards = mathutils.Vector(lights["directions"][number])
        sun.rotation_mode = "QUATERNION"
        sun.rotation_quaternion = towards.to_track_quat("Z", "Y")
        strength = max(max(colour), 1e-9)
        sun.data.energy = math.pi * strength
        sun.data.color = [value / strength for value in colour]
        sun.data.angle = 2 * math.atan(lights["key_radius"]) if number == 0 else 0.0
    node = scene.world.node_tree.nodes["Background"]
    node.inputs["Color"].default_value = (*lights["ambient"], 1)
    node.inputs["Strength"].default_value = 1


def main():
    """Answer tasks until standard input ends."""
    # Blender writes to standard output as it likes; answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"version": list(bpy.app.version)})
    for line in sys.stdin:
        try:
            task = json.loads(line)
            scene, suns = prepare_scene(task)
            for number, camera in enumerate(task["cameras"]):
                place_camera(scene, camera)
                place_lights(scene, suns, task["lights"][number])
                bpy.ops.render.render(write_still=True)
                answer({"view": number})
                # The reader takes the image before it asks for the next.
                sys.stdin.readline()
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


main()
