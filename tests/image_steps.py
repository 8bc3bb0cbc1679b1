"""Runs the steps of examples/docker/Dockerfile in a Debian root, where no Docker is to be had.

    python tests/image_steps.py WORK [TARGET ...]

As root, with debootstrap and packages in reach. Each target is built stage by stage in chroots, its
layers as overlays, and then used as a container would be: as its USER, by its ENTRYPOINT, with a
root that is read-only but for /data, /cache and /tmp. The last line is JSON: seconds, and
the megabytes of each target above its base.

What this cannot show: the real base image (its Python is 3.12; this one's is Debian's 3.11, for
which the lock has other versions of numpy, scipy, networkx and tifffile), torch for CUDA and its
size, Docker's own reading of the file, a GPU, and how long a registry takes.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile import Step, StepError, fill, pair, parse

REPO = Path(__file__).parent.parent
DOCKERFILE = REPO / "examples" / "docker" / "Dockerfile"
TARGETS = ("processing", "inference", "training")
WRITABLE = ("data", "cache")

_PACKAGES = "python3,python3-dev,python3-pip,python3-venv,ca-certificates"
# What the machine needs to reach packages; never part of an image.
_REACH = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http", "no_proxy")


@dataclass
class Image:
    """A stage that was built: its layers, lowest first, and what is said about it."""

    layers: list[Path]
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    said: dict[str, str] = field(default_factory=dict)

    def command(self, name: str) -> list[str]:
        """Returns the words of ENTRYPOINT, CMD or HEALTHCHECK."""
        words: list[str] = json.loads(self.said[name][self.said[name].index("[") :])
        return words


class Builder:
    """Builds stages below a folder; in a mount namespace of its own."""

    def __init__(self, work: Path, build_args: dict[str, str]) -> None:
        self.work = work
        self.build_args = build_args
        self.outer, stages = parse(DOCKERFILE.read_text())
        self.stages = {stage.name: stage for stage in stages}
        self.images: dict[str, Image] = {}

    def build(self, name: str) -> Image:
        """Returns the stage, built with all that it needs."""
        if name in self.images:
            return self.images[name]
        stage = self.stages[name]
        parent = fill(stage.parent, self.outer)
        below = self.build(parent) if parent in self.stages else Image([stand_in(self.work)])
        layer = self.work / "layers" / name
        layer.mkdir(parents=True)
        image = Image(
            [*below.layers, layer], dict(below.env), dict(below.args), below.workdir, below.user,
            dict(below.said),
        )  # fmt: skip
        for step in stage.steps:
            for source in re.findall(r"from=([\w-]+)", " ".join(step.flags)):
                self.build(source)
        root = mount(image.layers, self.work / "roots" / name)
        for step in stage.steps:
            print(f"{name}: {step.name} {step.rest[:90]}", flush=True)
            self._take(step, image, root)
        self.images[name] = image
        return image

    def _take(self, step: Step, image: Image, root: Path) -> None:
        values = {**image.args, **image.env}
        if step.name == "ARG":
            key, value = pair(step.rest)
            image.args[key] = self.build_args.get(key, fill(value, values))
        elif step.name == "ENV":
            for word in shlex.split(step.rest):
                key, value = pair(word)
                image.env[key] = fill(value, {"PATH": _PATH, **values})
        elif step.name == "WORKDIR":
            image.workdir = step.rest
            (root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "USER":
            image.user = step.rest
        elif step.name == "COPY":
            self._copy(step, image, root)
        elif step.name == "RUN":
            self._run(step, image, root)
        else:
            image.said[step.name] = step.rest

    def _copy(self, step: Step, image: Image, root: Path) -> None:
        *sources, target = step.rest.split()
        start = REPO
        for flag in step.flags:
            if not flag.startswith("--from="):
                raise StepError(f"not known here: COPY {flag}")
            start = self.work / "roots" / flag.removeprefix("--from=")
        to = root / os.path.join(image.workdir, target).lstrip("/")
        for source in sources:
            path = start / source.lstrip("/")
            if path.is_dir():
                to.mkdir(parents=True, exist_ok=True)
                _call("cp", "-a", "--no-preserve=ownership", f"{path}/.", str(to))
                for cache in to.rglob("__pycache__") if start == REPO else ():
                    shutil.rmtree(cache)
            else:
                _call("cp", "-a", "--no-preserve=ownership", str(path), str(to))

    def _run(self, step: Step, image: Image, root: Path) -> None:
        reach, undo = open_to_packages(root)
        made: list[Path] = []
        for flag in step.flags:
            if not flag.startswith("--mount="):
                raise StepError(f"not known here: RUN {flag}")
            options = dict(pair(part) for part in flag.removeprefix("--mount=").split(","))
            to = root / options["target"].lstrip("/")
            if options["type"] == "cache":
                source = self.work / "caches" / options["target"].replace("/", "_")
                source.mkdir(parents=True, exist_ok=True)
            elif options["type"] == "bind" and "from" in options:
                source = self.work / "roots" / options["from"] / options["source"].lstrip("/")
            else:
                raise StepError(f"not known here: {flag}")
            made.append(_bind(source, to))
        environment = {"PATH": _PATH, **reach, **image.args, **image.env}
        try:
            enter(root, image.user, image.workdir, environment, ["/bin/sh", "-c", step.rest])
        finally:
            for path in reversed([*undo, *made]):
                _call("umount", "--lazy", str(path))
                # Empty: what was made for the mount is no part of the layer.
                path.rmdir() if path.is_dir() and not any(path.iterdir()) else None
                path.unlink() if path.is_file() and not path.stat().st_size else None


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def stand_in(work: Path) -> Path:
    """Returns a Debian root with Python where the official image has it."""
    root = work / "layers" / "python"
    if not root.exists():
        partial = work / "python-partial"
        shutil.rmtree(partial, ignore_errors=True)
        print("debootstrap", flush=True)
        _call("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm",
              str(partial), mirror())  # fmt: skip
        for name in ("python", "pip"):
            (partial / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}3")
        # As the official images do: nothing of apt's is kept.
        (partial / "etc/apt/apt.conf.d/docker-clean").write_text(
            'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
            'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
        )
        for path in (partial / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
            path.unlink()
        _call(
            "sh",
            "-c",
            f"rm -rf {partial}/var/cache/apt/archives/*.deb {partial}/var/lib/apt/lists/*",
        )
        root.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(root)
    return root


def mirror() -> str:
    """Returns where this machine gets Debian's packages."""
    files = glob.glob("/etc/apt/sources.list.d/*") + glob.glob("/etc/apt/sources.list")
    text = "\n".join(Path(name).read_text() for name in files)
    found = re.search(r"https?://\S+/debian/?(?=\s)", text)
    return found[0] if found else "http://deb.debian.org/debian"


def mount(layers: list[Path], root: Path) -> Path:
    """Mounts layers, the last of them writable, and what a container has of its kernel."""
    spare = root.parent / f"{root.name}-spare"
    for path in (root, spare):
        path.mkdir(parents=True)
    lower = ":".join(str(layer) for layer in reversed(layers[:-1]))
    _call("mount", "-t", "overlay", "overlay", "-o",
          f"lowerdir={lower},upperdir={layers[-1]},workdir={spare}", str(root))  # fmt: skip
    for name in ("proc", "dev"):
        _call("mount", "--rbind", f"/{name}", str(root / name))
    return root


def open_to_packages(root: Path) -> tuple[dict[str, str], list[Path]]:
    """Lends a root this machine's ways to packages; returns variables and what was mounted."""
    reach = {k: v for k, v in os.environ.items() if k.startswith(_REACH)}
    lent = [Path("/etc/ssl/certs"), Path("/etc/resolv.conf"), Path("/etc/hosts")]
    if wheels := reach.get("PIP_FIND_LINKS"):
        reach["UV_FIND_LINKS"] = wheels
        lent += [Path(wheels)] if Path(wheels).is_dir() else []
    return reach, [_bind(path, root / str(path).lstrip("/")) for path in lent if path.exists()]


def _bind(source: Path, to: Path) -> Path:
    if source.is_dir():
        to.mkdir(parents=True, exist_ok=True)
    elif not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        to.touch()
    _call("mount", "--bind", str(source), str(to))
    return to


def enter(
    root: Path, user: str, workdir: str, environment: dict[str, str], command: list[str],
    check: bool = True,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Runs a command inside a root, and nothing of this process's environment with it."""
    words = ["chroot", f"--userspec={user}", str(root), "/usr/bin/env", "-i"]
    words += [f"{key}={value}" for key, value in environment.items()]
    words += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', workdir, *command]
    done = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if check and done.returncode:
        raise StepError(
            f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}"
        )
    return done


def _call(*words: str) -> None:
    done = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise StepError(f"{shlex.join(words)}: {done.stdout[-2000:]}")


class Container:
    """A built image in use: the root read-only, /data and /cache kept, /tmp in memory."""

    def __init__(self, image: Image, work: Path, name: str) -> None:
        self.image = image
        empty = work / "layers" / f"{name}-in-use"
        empty.mkdir()
        self.root = mount([*image.layers, empty], work / "roots" / f"{name}-in-use")
        for folder in WRITABLE:
            volume = work / "volumes" / folder
            if not volume.exists():
                volume.mkdir(parents=True)
                os.chown(volume, 1000, 1000)
            _bind(volume, self.root / folder)
        _call("mount", "-t", "tmpfs", "tmpfs", str(self.root / "tmp"))
        _call("mount", "-o", "remount,ro", str(self.root))
        self.environment = {"PATH": _PATH, **image.env}

    def run(self, *words: str, entry: bool = True, check: bool = True) -> str:
        """Runs the entry point with these words, or the words alone; returns what it printed."""
        command = [*(self.image.command("ENTRYPOINT") if entry else []), *words]
        print("$", shlex.join(command), flush=True)
        done = enter(self.root, self.image.user, self.image.workdir, self.environment, command,
                     check)  # fmt: skip
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts the entry point and returns it."""
        command = [*self.image.command("ENTRYPOINT"), *words]
        print("$", shlex.join(command), "&", flush=True)
        inner = [f"{key}={value}" for key, value in self.environment.items()]
        return subprocess.Popen(
            ["chroot", f"--userspec={self.image.user}", str(self.root), "/usr/bin/env", "-i",
             *inner, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def megabytes(layers: list[Path]) -> int:
    """Returns the size of layers, as a registry would unpack them."""
    words = [
        "du",
        "--summarize",
        "--total",
        "--apparent-size",
        "--block-size=1000000",
        *map(str, layers),
    ]
    return int(subprocess.run(words, check=True, capture_output=True, text=True)
               .stdout.splitlines()[-1].split()[0])  # fmt: skip


def use(containers: dict[str, Container], work: Path) -> None:
    """The whole way with the tiny model, each command in the image that is for it."""
    first = next(iter(containers.values()))
    data = work / "volumes" / "data"
    for name in ("make_shapes.py", "tiny/quickstart.toml"):
        shutil.copy(REPO / "examples" / name, data)
    tiny = ["--config", "quickstart.toml", "--set", "watertight.resolution=64"]
    first.run(
        "python", "make_shapes.py", "models", "--count", "3", "--resolution", "32", entry=False
    )
    refused = first.run("touch", "/opt/ushape/x", "/x", entry=False, check=False)
    if refused.count("Read-only file system") != 2:
        raise StepError(f"the root can be written to: {refused}")
    for name, container in containers.items():
        found = container.run("doctor", "--no-network", "--json", check=False)
        if '"command": "doctor"' not in found:
            raise StepError(f"doctor in {name}: {found[-2000:]}")
        # On a machine without a card it fails for that alone.
        print(re.sub(r"\s+", " ", found)[-1500:])
    first.run("prepare", "models", "-o", "dataset", *tiny)
    if "training" in containers:
        trained = containers["training"].run(
            "train", "--data", "dataset", "--init", "tiny", "--steps", "5", "--out", "run", *tiny
        )
        print(trained[-800:])
    if "inference" in containers:
        refine_and_serve(containers["inference"], data)


def refine_and_serve(container: Container, data: Path) -> None:
    """One refinement by the command, and a service that its own health check finds."""
    mesh = next((data / "dataset" / "meshes").iterdir())
    view = data / "dataset" / "renders" / mesh.stem / "view_000.png"
    inside = [f"/data/{path.relative_to(data)}" for path in (mesh, view)]
    run = ["--checkpoint", "run"] if (data / "run").exists() else ["--model", "tiny"]
    print(container.run("refine", *inside, *run, "--quality", "draft", "-o", "refined.glb")[-800:])
    serve = [*container.image.command("CMD"), "--model", "tiny"]
    closed = container.run(*serve, check=False)
    if "has no token" not in closed:
        raise StepError(f"serve without a token: {closed}")
    container.run("serve", "token", "add", "anna", "--data", "/data/serve")
    service = container.start(*serve)
    try:
        for _ in range(60):
            time.sleep(1)
            asked = enter(container.root, container.image.user, "/", container.environment,
                          container.image.command("HEALTHCHECK"), check=False)  # fmt: skip
            if not asked.returncode:
                print("healthy", flush=True)
                break
        else:
            raise StepError(f"never healthy: {asked.stdout}")
    finally:
        # To tini alone, as a container's runtime would.
        service.terminate()
        said, _ = service.communicate(timeout=60)
    if service.returncode not in (0, 143):
        raise StepError(f"serve ended with {service.returncode}: {said[-2000:]}")


def main() -> None:
    work, targets = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(TARGETS)
    if os.environ.get("USHAPE_IMAGE_STEPS") != "inside":
        os.environ["USHAPE_IMAGE_STEPS"] = "inside"
        # All mounts end with this process.
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private",
                              sys.executable, __file__, str(work), *targets])  # fmt: skip
    start = time.monotonic()
    for name in ("roots", "volumes", *(f"layers/{path.name}" for path in work.glob("layers/*")
                                       if path.name != "python")):  # fmt: skip
        shutil.rmtree(work / name, ignore_errors=True)
    arguments = {}
    if "PIP_FIND_LINKS" in os.environ:
        # This machine keeps torch for the CPU itself, and finds it beside the index.
        index = "https://pypi.org/simple"
        arguments = {"CPU_TORCH_INDEX": index, "TORCH_INDEX": index}
    else:
        arguments = {"CUDA": "cpu"}
    builder = Builder(work, arguments)
    images = {name: builder.build(name) for name in targets}
    built = time.monotonic()
    use({name: Container(image, work, name) for name, image in images.items()}, work)
    print(json.dumps({
        "megabytes": {name: megabytes(image.layers[1:]) for name, image in images.items()},
        "base_megabytes": megabytes([stand_in(work)]),
        "build_seconds": round(built - start), "use_seconds": round(time.monotonic() - built),
    }))  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except StepError as error:
        sys.exit(f"error: {error}")
