"""The decoder on its finest grid: points a second, and whether a sphere comes out."""

from __future__ import annotations

import time
from typing import Any

import torch

from ultrashape_cli.devices import autocast
from ultrashape_cli.diagnosis.card.context import Context, Failed
from ultrashape_cli.diagnosis.card.steered import RADIUS, decoded_points, steer
from ultrashape_cli.diagnosis.card.twins import sphere_error
from ultrashape_cli.inference.decode import CHUNK_SIZE, decode_field, fitting_chunk
from ultrashape_cli.models.flops import vae_flops
from ultrashape_cli.models.random_weights import random_networks

POINTS_PER_S_HOST = 5e6
"""Points that a host gathers and sorts in a second."""
MAX_ERROR = 2e-3
"""Of the field, which saturates at 1: a point in fp32 beside one in fp64, over the truncation."""


@torch.inference_mode()
def measure_decoding(context: Context, tokens: int) -> dict[str, Any]:
    """Returns the seconds of a decoded sphere, from features of so many latents.

    Raises:
        NoTime: It would take longer than is left.
        Failed: The decoded field is not that of the sphere.
    """
    cells, spec = context.sizes.decode_cells, context.spec
    points = decoded_points(cells)
    flops = vae_flops(spec.vae, 0, tokens, points)
    context.need(context.seconds_of(flops) + points / POINTS_PER_S_HOST)
    vae = random_networks(
        spec,
        components=("vae",),
        vae_parts=("decoder",),
        home=context.device,
        drawn_on=context.device,
        dtype=context.half,
    ).vae
    assert vae is not None
    steer(vae)
    latents = torch.randn(1, tokens, spec.vae.latent_channels, device=context.device)
    dtype = "bf16" if context.cuda else "fp32"
    with autocast(context.device, dtype):
        started = time.perf_counter()
        field = vae.field(vae.decode(latents))
        context.synchronise()
        features = time.perf_counter() - started
        chunk = min(CHUNK_SIZE, fitting_chunk(field, None, context.device))
        decode_field(field, 64, min_resolution=64, chunk_size=chunk, device=context.device)
        field.queries = 0  # type: ignore[attr-defined]
        started = time.perf_counter()
        grid = decode_field(field, cells, chunk_size=chunk, device=context.device)
        seconds = time.perf_counter() - started
    asked = field.queries  # type: ignore[attr-defined]
    error = sphere_error(grid, RADIUS, spec.vae.truncation)
    figures = {
        "cells": cells,
        "seconds": seconds,
        "seconds_of_features": features,
        "points": asked,
        "points_per_second": asked / seconds,
        "tflops": vae_flops(spec.vae, 0, tokens, asked) / seconds / 1e12,
        "chunk_size": chunk,
        "error": error,
        "peak_bytes": torch.cuda.max_memory_allocated(context.device) if context.cuda else None,
    }
    if not error <= MAX_ERROR:
        raise Failed(f"the sphere is off by {error:g} of the truncation", figures)
    return figures
