"""Scores of a mesh against its truth, and of pictures of both."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from ultrashape_cli.evaluation.perceptual import PerceptualScore, load_perceptual
from ultrashape_cli.evaluation.scores import LARGEST_PSNR, Sampling, score_mesh, sign_of
from ultrashape_cli.geometry.mesh import Mesh

SAMPLING = Sampling(points=5000, earth_movers_points=128, views=2, view_size=64)


def _ball(radius: float, shift: float = 0.0) -> Mesh:
    ball = trimesh.creation.icosphere(4, radius)
    return Mesh.from_arrays(ball.vertices + np.array([shift, 0, 0]), ball.faces)


def test_the_truth_itself_scores_best() -> None:
    found = score_mesh(_ball(0.9), _ball(0.9), SAMPLING)
    assert found["psnr"] == found["normal_psnr"] == LARGEST_PSNR
    assert found["silhouette_iou"] == found["ssim"] == 1
    assert found["volume_iou"] == found["watertight"] == found["manifold"] == 1
    assert found["components"] == 1
    assert found["view_spread"] == 0
    assert "edge_f_score" not in found


def test_silhouettes_of_balls_overlap_as_their_discs_do() -> None:
    found = score_mesh(_ball(0.6), _ball(0.9), SAMPLING)
    # Seen from outside a ball's outline is a circle, a little larger than its radius for both.
    assert found["silhouette_iou"] == pytest.approx((0.6 / 0.9) ** 2, abs=0.05)
    assert found["volume_iou"] == pytest.approx((0.6 / 0.9) ** 3, abs=0.01)
    assert found["psnr"] < 25


def test_further_away_is_worse_in_every_score_that_has_a_direction() -> None:
    near, far = (score_mesh(_ball(0.9, shift), _ball(0.9), SAMPLING) for shift in (0.02, 0.2))
    unmoved = {"watertight", "manifold", "view_spread"}
    for name in near.keys() - unmoved:
        sign = sign_of(name)
        if sign and not (near[name] == far[name] and "@" in name):
            assert sign * near[name] > sign * far[name], name


def test_detail_has_no_direction() -> None:
    assert sign_of("roughness") == sign_of("faces") == sign_of("dihedral_p95") == 0
    assert sign_of("f_score@0.005") == 1
    assert sign_of("chamfer_l2") == -1


def test_further_picture_scores_are_averaged_over_the_views() -> None:
    seen = []

    def compare(a, b) -> float:
        seen.append((a.shape, b.dtype))
        return float(len(seen))

    found = score_mesh(_ball(0.9), _ball(0.9), SAMPLING, [PerceptualScore("lpips", compare)])
    assert found["lpips"] == 1.5
    assert seen[0] == ((64, 64, 3), np.uint8)


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)

    class Hub:
        @staticmethod
        def create_model_and_transforms(name, pretrained):
            raise OSError("no network\nlong trace")

    monkeypatch.setitem(sys.modules, "open_clip", Hub)
    found, missing = load_perceptual()
    assert found == []
    assert "ultrashape-cli[perceptual]" in missing["lpips"]
    assert missing["clip"] == "does not load: no network"
