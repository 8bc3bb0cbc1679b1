import numpy as np
import pytest

from ultrashape_cli.rendering.film import develop, filter_weights, from_srgb, to_srgb, tone


def test_srgb_of_known_values() -> None:
    assert to_srgb(np.array([0.0, 0.0031308, 0.2140411, 1.0, 2.0])) == pytest.approx(
        [0, 0.04045, 0.5, 1, 1], abs=1e-4
    )
    codes = np.arange(256) / 255
    assert to_srgb(from_srgb(codes)) == pytest.approx(codes, abs=1e-5)


def test_the_tone_curve_rises_and_stays_below_one() -> None:
    light = np.linspace(0, 2, 1000)
    assert (np.diff(tone(light)) > 0).all()
    assert tone(light[light <= 0.7]) == pytest.approx(light[light <= 0.7])
    assert to_srgb(tone(np.array([1.3]))) * 255 < 254.5


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_the_filter_keeps_flat_colours_and_centres(supersample: int) -> None:
    weights = filter_weights(supersample)
    assert weights.sum() == pytest.approx(1)
    assert weights == pytest.approx(weights[::-1])
    samples = np.full((8 * supersample, 8 * supersample, 4), 0.25, np.float32)
    samples[..., 3] = 1
    image = develop(samples, supersample)
    assert (image[2:-2, 2:-2, :3] == round(255 * float(to_srgb(np.array(0.25))))).all()
    assert (image[2:-2, 2:-2, 3] == 255).all()


def test_an_edge_keeps_its_colour_and_loses_alpha() -> None:
    samples = np.zeros((8, 16, 4), np.float32)
    samples[:, 5:] = (0.5, 0.2, 0.1, 1)
    image = develop(samples, 2)
    row = image[2]
    assert (np.diff(row[:6, 3].astype(int)) >= 0).all()
    seen = row[row[:, 3] > 0]
    assert (seen[:, :3] == seen[-1, :3]).all()
