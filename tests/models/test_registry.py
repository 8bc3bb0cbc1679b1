import json

import pytest
from golden_data import golden_file

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.registry import MODELS, build, model_spec


@pytest.mark.parametrize("component", ["vae", "dit", "conditioner"])
def test_keys_and_shapes_are_those_of_the_released_weights(component):
    recorded = json.loads(golden_file("keys_full.json").read_text())
    networks = build(model_spec("ultrashape-1.0"))
    module = getattr(networks, component)
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert shapes == {key: shape for key, (shape, _) in recorded[component].items()}
    counts = recorded["_param_counts"]
    assert sum(p.numel() for p in module.parameters()) == counts[component]
    for name, count in counts.items():
        owner, _, rest = name.partition(".")
        if owner == component and rest.split(".")[0] in {"blocks", "encoder", "t_embedder"}:
            assert sum(p.numel() for p in module.get_submodule(rest).parameters()) == count


def test_the_tiny_model_is_small():
    networks = build(model_spec("tiny"))
    assert sum(p.numel() for network in networks for p in network.parameters()) < 3_000_000
    assert {p.device.type for network in networks for p in network.parameters()} == {"meta"}


def test_unknown_models_list_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        model_spec("ultrashape")
    assert all(name in caught.value.message for name in MODELS)
    assert caught.value.hint == "did you mean `ultrashape-1.0`?"


def test_single_components_can_be_built():
    networks = build(model_spec("tiny"), components=("dit",))
    assert networks.vae is None
    assert networks.conditioner is None
    with pytest.raises(ValueError, match="unknown components"):
        build(model_spec("tiny"), components=("unet",))
