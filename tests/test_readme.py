"""The README says what the program does."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from ultrashape_cli.config.profiles import PROFILES
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.inference.memory import plan_refinement
from ultrashape_cli.models.quantised_file import GROUPS, Quantisation, skipped_layers
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.training.memory.plan import plan_run

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"`(ushape [a-z]+ [^`]+)`", README)))


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_an_example_exists(ushape, command: str) -> None:
    verb, *arguments = command.split()[1:]
    # `weights` and `serve token` have commands of their own.
    path = (verb, arguments[0]) if verb == "weights" else (verb,)
    path = (verb, *arguments[:2]) if arguments[:1] == ["token"] else path
    help_text = ushape(*path, "--help").out
    for option in re.findall(r"--[a-z-]+", " ".join(arguments)):
        assert option in help_text
    settings = [a for flag, a in itertools.pairwise(arguments) if flag == "--set"]
    resolve(overrides=settings, environ={})


@pytest.mark.parametrize("name", PROFILES)
def test_the_profile_table_is_the_programs(name: str) -> None:
    row = re.search(rf"^\| {name} \|.*$", README, re.MULTILINE)
    assert row is not None
    profile = PROFILES[name]
    cells = [cell.strip() for cell in row.group().strip("|").split("|")][1:]
    memory = f"{profile.memory_gib:g} GiB" if profile.memory_gib else "host"
    peak = f"{profile.peak_bf16_tflops:.0f} TFLOP/s" if profile.peak_bf16_tflops else "-"
    checkpointing = profile.activation_checkpointing
    batch = f"{profile.microbatch} x {profile.accumulation}"
    expected = [memory, peak, profile.dtype, profile.strategy, checkpointing, batch]
    assert cells[:-2] == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROFILES if name != "cpu"])
def test_what_a_card_needs_is_what_the_plan_says(name: str) -> None:
    profile = PROFILES[name]
    flags = {"profile": name, "train.strategy": profile.strategy}
    plan = plan_run(resolve(flags=flags, environ={}).config, profile)
    row = re.search(rf"^\| {name} \|.*$", README, re.MULTILINE)
    assert row is not None
    needs = f"{plan.device_bytes / 2**30:.1f} GiB | {plan.seconds_per_step:.1f} s |"
    assert row.group().endswith(needs)


CARDS = re.findall(r"^\| (\d+) GB \| (.*) \|$", README, re.MULTILINE)
SCHEMES = ("16 bit", "int8", "int6", "int4")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_refining_needs_is_what_the_plan_says(scheme: str) -> None:
    spec = model_spec("ultrashape-1.0")
    config = resolve(model=spec.name, flags={"refine.dtype": "bf16"}, environ={}).config.refine
    dit = build(spec, components=("dit",)).dit
    assert dit is not None
    found = None
    if scheme != "16 bit":
        found = Quantisation(scheme, GROUPS[scheme], skipped_layers(dit, scheme))
    assert [card for card, _ in CARDS] == ["8", "12", "16"]
    for card, cells in CARDS:
        # What a card of that size leaves: half a GiB is the screen's and the driver's.
        budget = int((int(card) - 0.5) * 2**30)
        plan = plan_refinement(spec, config, torch.device("cuda"), config.tokens, budget=budget,
                               host=64 << 30, quantised=found)  # fmt: skip
        said = cells.split(" | ")[SCHEMES.index(scheme)]
        assert said == f"{plan.mode}, {plan.needed / 2**30:.1f} GiB"


VERBS = ("show", "prepare", "render", "sample", "split", "train", "distill", "refine", "evaluate",
         "monitor", "report", "doctor", "weights pull", "weights export", "weights convert",
         "weights quantise", "weights inspect", "weights verify", "weights push", "serve",
         "serve token add", "serve token list", "serve token remove", "data pack", "data verify",
         "data push", "data pull", "data unpack", "import")  # fmt: skip


@pytest.mark.parametrize("option", ["--dry-run", "--show-config", "--force", "--json"])
def test_the_verbs_that_have_an_option_are_those_named(ushape, option: str) -> None:
    row = re.search(rf"^\| `{option}` [^|]*\| (.*) \|$", README, re.MULTILINE)
    named = row.group(1).split(", ") if row else VERBS
    has = [verb for verb in VERBS if option in ushape(*verb.split(), "--help").out]
    assert sorted(has) == sorted(named)


def test_the_dataset_has_the_files_named() -> None:
    data, asset = Dataset(Path("data")), "ID"
    named = {Path("data") / name for name in re.findall(r"^      ([\w./]+) ", README, re.MULTILINE)}
    assert named >= {
        *(data.mesh(asset), data.views(asset) / "view_000.png", data.samples(asset)),
        *(data.list_path("train"), data.list_path("split"), data.render_map, data.settings),
        data.record_path(asset),
    }
