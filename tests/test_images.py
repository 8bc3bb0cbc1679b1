"""Images and starting points under examples/, without a Docker daemon or a cloud."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import command_lines
import pytest
from image_steps import DOCKERFILE, TARGETS, StepError, parse

yaml = pytest.importorskip("yaml")
packaging = pytest.importorskip("packaging.requirements")

TOP = Path(__file__).parent.parent
EXAMPLES = TOP / "examples"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
LOCK = EXAMPLES / "docker" / "requirements.txt"
LEFT_OUT = re.findall(r"^\w+$", (EXAMPLES / "docker" / "left-out.txt").read_text(), re.MULTILINE)
YAML = sorted([*EXAMPLES.glob("*/*.yaml")])
SHELL = sorted([*EXAMPLES.glob("slurm/*"), *EXAMPLES.glob("runpod/*.sh")])


def _locked() -> dict[str, list[tuple[str, str]]]:
    """Returns versions and markers of each package of the lock."""
    packages: dict[str, list[tuple[str, str]]] = {}
    for name, version, marker in re.findall(
        r"^([\w.-]+)==(\S+)(?: ; (.*?))? \\$", LOCK.read_text(), re.MULTILINE
    ):
        packages.setdefault(name, []).append((version, marker))
    return packages


def _extras() -> set[str]:
    return set(re.findall(r"--extra (\w+)", DOCKERFILE.read_text()))


def test_the_lock_fits_what_the_package_needs() -> None:
    header = LOCK.read_text().splitlines()[1]
    # The command that renews it, with the extras that images have.
    assert set(re.findall(r"--extra (\w+)", header)) == _extras()
    locked = _locked()
    project = PROJECT["project"]
    needed = [*project["dependencies"]]
    for extra in _extras():
        needed += project["optional-dependencies"][extra]
    for text in needed:
        requirement = packaging.Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in LEFT_OUT:
            assert name not in locked
            continue
        assert name in locked, f"renew the lock: {header}"
        for version, _ in locked[name]:
            assert requirement.specifier.contains(version, prereleases=True), text


def test_every_package_of_the_lock_has_its_hash_and_no_address() -> None:
    text = LOCK.read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text.split("\n", 2)[1]


def test_the_images_are_what_they_should_be() -> None:
    outer, stages = parse(DOCKERFILE.read_text())
    assert "BASE" in outer
    by_name = {stage.name: stage for stage in stages}
    for target in TARGETS:
        steps = {step.name: step for step in by_name[target].steps}
        assert steps["USER"].rest == "1000:1000"
        assert json.loads(steps["ENTRYPOINT"].rest) == ["tini", "--", "ushape"]
    assert "/health" in {s.name: s.rest for s in by_name["inference"].steps}["HEALTHCHECK"]
    # Weights are pulled onto a volume, never copied in.
    copied = [step.rest for stage in stages for step in stage.steps if step.name == "COPY"]
    assert not [line for line in copied if re.search(r"weights|\.pt\b|\s\.\s", line)]
    # The build backend is not of the lock.
    hatchling = re.search(r"hatchling==(\S+)", DOCKERFILE.read_text())
    wanted = packaging.Requirement(PROJECT["build-system"]["requires"][0])
    assert hatchling is not None
    assert wanted.specifier.contains(hatchling[1])
    torch = re.search(r"^ARG TORCH=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert torch is not None
    assert f"torch=={torch[1]}\n" in (TOP / "tests" / "constraints.txt").read_text()


@pytest.mark.parametrize(
    "line", ["FROM x AS y\nADD a b", "FROM x AS y\nRUN <<E\nE", "RUN true", "FROM x",
             'FROM x AS y\nRUN ["true"]']
)  # fmt: skip
def test_an_instruction_that_is_not_understood_is_told(line: str) -> None:
    with pytest.raises(StepError):
        parse(line)


@pytest.mark.parametrize("file", YAML, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_command_of_a_yaml_file_is_known(ushape, file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    if file.name == "compose.yaml":
        lines = [["ushape", *service["command"]] for service in content["services"].values()]
    else:
        text = content.get("run") or "\n".join(content.get("commands", []))
        lines = command_lines.found_in(text)
        assert lines or content["type"] == "fleet"
    for words in lines:
        command_lines.check(ushape, words)
    head = re.findall(r"^#.*docker compose run --rm \w+ (\w.*)$", file.read_text(), re.MULTILINE)
    for line in head:
        command_lines.check(ushape, ["ushape", *line.split()])


@pytest.mark.parametrize("file", SHELL, ids=lambda path: path.name)
def test_every_command_of_a_script_is_known(ushape, file: Path) -> None:
    lines = command_lines.found_in(re.sub(r"'exec|\"\$@\"' ushape", "", file.read_text()))
    assert lines
    for words in lines:
        command_lines.check(ushape, words)


def test_the_service_of_compose_is_closed_to_others_without_a_token(ushape, tmp_path: Path) -> None:
    serve = yaml.safe_load((EXAMPLES / "docker" / "compose.yaml").read_text())["services"]["serve"]
    assert serve["ports"] == ["127.0.0.1:8000:8000"]
    words = serve["command"]
    assert words[words.index("--host") + 1] == "0.0.0.0"
    words[words.index("--data") + 1] = str(tmp_path / "serve")
    words[words.index("--checkpoint") :] = ["--model", "tiny"]
    result = ushape(*words)
    assert result.code == 2
    assert "has no token" in result.err


def test_a_pod_asks_for_machines_with_the_drivers_of_its_image() -> None:
    pod = json.loads((EXAMPLES / "runpod" / "pod.json").read_text())
    cuda = re.search(r"^ARG CUDA=cu(\d\d)(\d)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert cuda is not None
    least = (int(cuda[1]), int(cuda[2]))
    assert tuple(map(int, pod["gpu"]["minCudaVersion"].split("."))) == least
    assert pod["mounts"]["persistent"]["path"] == "/workspace"
    assert not pod["env"]["PUBLIC_KEY"].endswith("=")


@pytest.fixture
def pod(tmp_path: Path) -> dict[str, str]:
    """The environment of a pod whose programs say that they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ushape", "sshd", "ssh-keygen", "sleep", "train"):
        body = f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n'
        body += f"[ ! -e {tmp_path}/no-driver ]\n" if name == "ushape" else ""
        (programs / name).write_text(body)
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path), "VOLUME": str(tmp_path / "vol"),
        "PUBLIC_KEY": "ssh-ed25519 KEY", "HF_TOKEN": "s3cret", "OTHER": "no",
    }  # fmt: skip


START = ["bash", str(EXAMPLES / "runpod" / "start.sh")]


def test_a_pod_lets_its_owner_in_looks_at_the_machine_and_starts(
    pod: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run([*START, "train", "now"], env=pod, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "ssh-keygen -A"
    assert calls[1] == "sshd -o PasswordAuthentication=no"
    assert calls[2:] == ["ushape doctor --require gpu,driver,disk", "train now"]
    assert (tmp_path / ".ssh" / "authorized_keys").read_text() == "ssh-ed25519 KEY\n"
    assert {path.name for path in (tmp_path / "vol").iterdir()} == {"models", "weights", "runs"}
    kept = tmp_path / ".ushape-environment"
    assert kept.stat().st_mode & 0o077 == 0
    assert "s3cret" in kept.read_text()
    assert "OTHER" not in kept.read_text()
    # A restarted pod says it once; without a command it waits.
    subprocess.run(START, env=pod, check=True)
    assert (tmp_path / ".bash_profile").read_text().count("ushape-environment") == 1
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "sleep infinity"


def test_a_pod_of_no_use_ends_before_it_downloads(pod: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "no-driver").touch()
    result = subprocess.run([*START, "train"], env=pod, check=False)
    assert result.returncode == 1
    assert "train" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("program", "files"),
    [("hadolint", sorted(EXAMPLES.glob("*/Dockerfile"))), ("shellcheck", SHELL)],
)
def test_a_linter_finds_nothing(program: str, files: list[Path]) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    more = ["--failure-threshold", "warning"] if program == "hadolint" else []
    result = subprocess.run([program, *more, *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
@pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed")
def test_the_images_build_and_work(tmp_path: Path) -> None:
    work = Path(os.environ.get("IMAGE_STEPS", tmp_path))
    done = subprocess.run(
        [sys.executable, TOP / "tests" / "image_steps.py", work],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr + done.stdout and done.returncode:
        pytest.skip("mounts are not permitted here")
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Of 1,500, with 140 left to the official base, which cannot be weighed here.
    assert found["megabytes"]["processing"] < 1360
