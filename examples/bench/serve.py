"""What a service takes and how soon it answers: `python examples/bench/serve.py [NAME ...]`.

`latency`   /health and GET /jobs/ID while the worker refines and 50 clients poll
`crowd`     1,000 clients that queue a job at the same moment, with limits
`memory`    memory of all processes after 50 and after 500 jobs
`overhead`  a job against `Refiner` with the same model loaded, and against `ushape refine`
`kills`     1,000 jobs, workers, parent and both killed 40 times
`power`     a copy of the files at any moment opens and goes on
`hostile`   uploads that want to do harm
`fuzz`      requests made up from /openapi.json by schemathesis (`pip install schemathesis`)
`join`      two machines that join, of which one vanishes

At the end stands a table of what was measured beside what it has to be. Each starts a service of
its own in a temporary folder: with the tiny model, or, for what is about the queue alone (`crowd`,
`kills`, and `memory --fake`), with a worker that only pretends to.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from serving import Served, files, png, wait_for  # noqa: E402

from ultrashape_cli.meshfiles.save import save_mesh  # noqa: E402
from ultrashape_cli.service.store import prepare  # noqa: E402
from ultrashape_cli.service.views import counts, workers  # noqa: E402
from ultrashape_cli.synthetic.figurines import make_figurine  # noqa: E402

MODEL = "ultrashape_cli.service.worker"
ROWS: list[tuple[str, str, str, bool]] = []
CLIENTS, POLL_S, POLLED_S = 50, 0.5, 20.0
CROWD = 1000
MODULES = ("ultrashape_cli.service.", "fake_worker")
QUICK = {"quality": "draft", "grid_resolution": 48, "tokens": 512}


def body(options: dict, mesh: bytes | None = None, name: str = "a.off") -> tuple[bytes, str]:
    """Return a multipart body and its type."""
    parts = [
        f'name="{field}"; filename="{file}"\r\n\r\n'.encode() + content
        for field, (file, content) in (files() if mesh is None else files(mesh, name=name))
    ]
    parts.append(b'name="options"\r\n\r\n' + json.dumps(options).encode())
    head = b"--ushape\r\nContent-Disposition: form-data; "
    whole = b"\r\n".join(head + part for part in parts) + b"\r\n--ushape--\r\n"
    return whole, "multipart/form-data; boundary=ushape"


class Client:
    """One connection that is kept open."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)

    async def connect(self) -> "Client":
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def ask(self, method: str, path: str, data: bytes = b"", kind: str = "") -> tuple:
        """Return status, JSON and seconds."""
        begin = time.perf_counter()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        head += f"Content-Length: {len(data)}\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
        self.writer.write(head.encode() + b"\r\n" + data)
        status = int((await self.reader.readline()).split()[1])
        length = 0
        while (line := await self.reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        text = await self.reader.readexactly(length)
        return status, json.loads(text or "null"), time.perf_counter() - begin

    def close(self) -> None:
        self.writer.close()


def note(test: str, target: str, measured: str, good: bool) -> None:
    """Keep a row of the table."""
    ROWS.append((test, target, measured, good))


def by_tests(file: str, *arguments: str) -> tuple[int, bool]:
    """Run tests of the suite; return how many passed, and whether all did."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests/service" / file), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-2000:], flush=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(passed[1]) if passed else 0, done.returncode == 0


def tell(name: str, seconds: list[float]) -> float:
    """Print quantiles in milliseconds; return the 99th per cent."""
    low, high, worst = 1000 * np.quantile(seconds, [0.5, 0.99, 1.0])
    print(f"{name:<28} {len(seconds):>6} x  p50 {low:7.1f} ms  p99 {high:7.1f} ms"
          f"  max {worst:7.1f} ms", flush=True)  # fmt: skip
    return high


def processes(service: Served) -> dict[str, float]:
    """Return memory of the parent, the web and the workers, in MiB."""
    assert service.process is not None
    parent = psutil.Process(service.process.pid)
    found = {"parent": parent.memory_info().rss / 2**20}
    for child in parent.children():
        modules = [part for part in child.cmdline() if part.startswith(MODULES)]
        name = modules[0].rpartition(".")[2] if modules else str(child.pid)
        found[name] = child.memory_info().rss / 2**20
    return found


def started(folder: Path, **settings: object) -> Served:
    """Return a service whose worker has loaded."""
    service = Served(folder, **settings).start()
    wait_for(lambda: any(w["state"] == "idle" for w in workers(service.store)), 120)
    return service


async def poll_all(url: str, jobs: list[str]) -> None:
    health: list[float] = []
    shown: list[float] = []

    async def poll() -> None:
        client = await Client(url).connect()
        until = time.monotonic() + POLLED_S
        await asyncio.sleep(random.random() * POLL_S)
        while time.monotonic() < until:
            health.append((await client.ask("GET", "/health"))[2])
            status, _, seconds = await client.ask("GET", f"/jobs/{random.choice(jobs)}")
            assert status == 200
            shown.append(seconds)
            await asyncio.sleep(POLL_S)
        client.close()

    await asyncio.gather(*(poll() for _ in range(CLIENTS)))
    for name, times in (("/health", health), ("GET /jobs/ID", shown)):
        high = tell(name, times)
        note(f"p99 of {name}, {CLIENTS} clients", "50 ms", f"{high:.1f} ms", high <= 50)


async def submit(url: str, count: int, data: bytes, kind: str) -> list[str]:
    client = await Client(url).connect()
    found = [(await client.ask("POST", "/refine", data, kind))[1]["job_id"] for _ in range(count)]
    client.close()
    return found


def latency(folder: Path) -> None:
    """/health and GET /jobs/ID while the worker refines and clients poll."""
    service = started(folder, job=MODEL)
    try:
        save_mesh(make_figurine(3, resolution=32), folder / "figure.ply")
        mesh = (folder / "figure.ply").read_bytes()
        data, kind = body({"quality": "max"}, mesh, "figure.ply")
        jobs = asyncio.run(submit(service.url, 20, data, kind))
        wait_for(lambda: counts(service.store)["running"] == 1)
        asyncio.run(poll_all(service.url, jobs))
        print(f"{counts(service.store)} at the end", flush=True)
    finally:
        service.stop()


def crowd(folder: Path) -> None:
    """Many clients at once, with the default limits of the queue and of the rate."""
    limits = {"submits_per_minute": 300.0, "max_queued_per_token": 100, "max_queued": 1000}
    service = started(folder, **limits)

    async def all_at_once() -> list[tuple[int, float]]:
        async def one() -> tuple[int, float]:
            begin = time.perf_counter()
            client = await Client(service.url).connect()
            status, _, _ = await client.ask("POST", "/refine", *body({"seed": 900}))
            client.close()
            return status, time.perf_counter() - begin

        return await asyncio.wait_for(asyncio.gather(*(one() for _ in range(CROWD))), 120)

    try:
        # What reads uploads loads with the first of them.
        asyncio.run(submit(service.url, 1, *body({"seed": 1})))
        wait_for(lambda: counts(service.store)["done"] == 1)
        before = processes(service)
        found = asyncio.run(all_at_once())
        after = processes(service)
        statuses = {status: sum(s == status for s, _ in found) for status, _ in found}
        print(f"{CROWD} clients: {statuses}")
        high = tell("their answers", [seconds for _, seconds in found])
        note(f"{CROWD} clients at once", "202 or 429, none hangs",
             f"{statuses}, p99 {high / 1000:.1f} s", set(statuses) <= {202, 429})  # fmt: skip
        accepted = sum(counts(service.store).values()) - 1
        assert accepted == statuses.get(202, 0), "what was accepted is in the queue"
        print("MiB", {name: (round(before[name]), round(after[name])) for name in before})
        more = sum(after.values()) / sum(before.values()) - 1
        note("memory of all processes after them", "flat", f"{more:+.1%}", more < 0.1)
    finally:
        service.stop()


def memory(folder: Path, fake: bool, total: int) -> None:
    """Memory after the first tenth of many jobs, and after all."""
    service = started(folder, job="fake_worker" if fake else MODEL)
    try:
        save_mesh(make_figurine(3, resolution=24), folder / "figure.ply")
        mesh = (folder / "figure.ply").read_bytes()
        options = {"seed": 1} if fake else QUICK
        data, kind = body(options, mesh, "figure.ply")
        sums = []
        for goal in (total // 10, total // 2, total):
            asyncio.run(submit(service.url, goal - counts(service.store)["done"], data, kind))
            begin = time.monotonic()
            wait_for(lambda goal=goal: counts(service.store)["done"] >= goal, 3600, 0.5)
            found = {name: round(size) for name, size in processes(service).items()}
            print(f"after {goal} jobs: MiB {found}, sum {sum(found.values())} "
                  f"({time.monotonic() - begin:.0f} s)", flush=True)  # fmt: skip
            sums.append(sum(found.values()))
        more = sums[-1] / sums[0] - 1
        note(f"memory after {total} jobs", f"3 % of that after {total // 10}", f"{more:+.1%}",
             more <= 0.03)  # fmt: skip
    finally:
        service.stop()


def overhead(folder: Path, rounds: int = 5) -> None:
    """A job from upload to download against the same work in one process."""
    import torch

    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.inference import job as jobs
    from ultrashape_cli.inference.candidates import Chosen
    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.models.sources import find_weights

    folder.mkdir(parents=True)
    mesh, image = folder / "figure.ply", folder / "view.png"
    save_mesh(make_figurine(3, resolution=32), mesh)
    image.write_bytes(png())
    config = resolve(flags={"profile": "cpu", "device": "cpu"}, environ={}, model="tiny").config
    source, device = find_weights(None, "tiny"), torch.device("cpu")
    refiner = Refiner.load(source, config.refine, device)

    def direct() -> None:
        job = jobs.Job(name="a", mesh=mesh, image=image, target=folder / "a.glb", seed=0)
        inputs = jobs.read_inputs(job, config.refine)
        recipe = jobs.recipe_of(job, source, config)
        prepared = jobs.prepare_inputs(job, inputs, refiner.spec, config.refine)
        refined = refiner.finish(prepared, refiner.evaluate(prepared, inputs.rgba))
        jobs.write_outputs(job, inputs, Chosen(prepared, refined), recipe, device)

    data, kind = body({}, mesh.read_bytes(), "figure.ply")
    service = started(folder / "data", job=MODEL)

    async def through() -> float:
        client = await Client(service.url).connect()
        begin = time.perf_counter()
        _, told, _ = await client.ask("POST", "/refine", data, kind)
        while told["state"] not in ("done", "failed"):
            await asyncio.sleep(0.02)
            _, told, _ = await client.ask("GET", f"/jobs/{told['job_id']}")
        assert told["state"] == "done", told["error"]
        client.close()
        return time.perf_counter() - begin

    try:
        times: dict[str, list[float]] = {"direct": [], "service": []}
        for n in range(rounds + 1):
            begin = time.perf_counter()
            direct()
            here = time.perf_counter() - begin
            there = asyncio.run(through())
            if n:  # the first warms both
                times["direct"].append(here)
                times["service"].append(there)
        means = {name: float(np.median(each)) for name, each in times.items()}
        print({name: [round(x, 2) for x in each] for name, each in times.items()})
        print(f"median: {means['direct']:.2f} s in one process, {means['service']:.2f} s through "
              f"the service: {means['service'] - means['direct']:+.2f} s", flush=True)  # fmt: skip
        more = means["service"] - means["direct"]
        note("overhead against a loaded model in one process", "2 % or 0.3 s", f"{more:+.2f} s",
             more <= max(0.3, 0.02 * means["direct"]))  # fmt: skip
    finally:
        service.stop()
    begin = time.perf_counter()
    command = [sys.executable, "-m", "ultrashape_cli", "refine", str(mesh), str(image), "-q",
               "--model", "tiny", "--device", "cpu", "-o", str(folder / "b.glb")]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    alone = time.perf_counter() - begin
    print(f"`ushape refine`, start and loading included: {alone:.2f} s")
    more = means["service"] - alone
    note("overhead against `ushape refine`", "2 % or 0.3 s", f"{more:+.2f} s", more <= 0.3)


def kills(folder: Path) -> None:
    """The test of the suite, at its full size."""
    sys.path.insert(0, str(ROOT / "tests" / "service"))
    from test_store_kills import run_kill_test

    begin = time.monotonic()
    run_kill_test(folder, 1000, 40, 1.5)
    found = counts(prepare(folder))
    print(f"1,000 jobs, 40 kills: {found}, none lost, none done twice, order kept "
          f"({time.monotonic() - begin:.0f} s)")  # fmt: skip
    note("1,000 jobs, 40 kills of workers, parent and both", "0 lost, 0 twice, order kept",
         f"{found['done']} done once, order kept", found["done"] == 1000)  # fmt: skip


def power(rounds: int) -> None:
    """The test of the suite, again and again: it stops all at a moment of chance."""
    good = 0
    for _ in range(rounds):
        good += by_tests("test_store_kills.py", "-k", "copy_of_the_files")[1]
    note(f"copies of the files at {rounds} moments", "each opens and goes on", f"{good} did",
         good == rounds)  # fmt: skip


def hostile() -> None:
    """The tests of the suite."""
    passed, good = by_tests("test_hostile.py", "-m", "slow or not slow")
    note("hostile uploads", "4xx or failed with a hint", f"{passed} kinds are", good)


def fuzz(folder: Path, seconds: int, command: str) -> None:
    """Requests of all kinds, made up from the OpenAPI; nothing may be a 5xx."""
    service = started(folder, max_mesh_mb=4.0, max_image_mb=1.0)
    try:
        arguments = [command, "run", f"{service.url}/openapi.json", "--continue-on-failure"]
        arguments += ["--checks=not_a_server_error", f"--max-time={seconds}", "--request-timeout=5"]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        print(done.stdout[-4000:], done.stderr[-1000:], flush=True)
        cases = re.search(r"(\d+) generated", done.stdout)
        bugs = service.log().count("a bug in a request")
        up = asyncio.run(_is_up(service.url))
        note(f"schemathesis, {seconds} s", "no bug, service up",
             f"{cases[1] if cases else '?'} requests, {bugs} bugs, up: {up}",
             bugs == 0 and up and done.returncode == 0)  # fmt: skip
    finally:
        service.stop()


async def _is_up(url: str) -> bool:
    client = await Client(url).connect()
    status, _, _ = await client.ask("GET", "/health")
    client.close()
    return status == 200


def join() -> None:
    """The test of the suite: two processes that join, of which one is killed in its job."""
    passed, good = by_tests("test_join.py", "-k", "vanishes")
    note("a machine that vanishes in its job", "taken over once", f"{passed} of 1", good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="those above; without one all but fuzz")
    parser.add_argument("--fake", action="store_true", help="memory without a model")
    parser.add_argument("--jobs", type=int, default=500, help="of memory")
    parser.add_argument("--seconds", type=int, default=120, help="of fuzz")
    parser.add_argument("--rounds", type=int, default=5, help="of power")
    parser.add_argument("--schemathesis", default="schemathesis", help="its command")
    options = parser.parse_args()
    runs: dict[str, Callable[[Path], Awaitable[None] | None]] = {
        "latency": latency,
        "crowd": crowd,
        "memory": lambda folder: memory(folder, options.fake, options.jobs),
        "overhead": overhead,
        "kills": kills,
        "power": lambda _: power(options.rounds),
        "hostile": lambda _: hostile(),
        "join": lambda _: join(),
        "fuzz": lambda folder: fuzz(folder, options.seconds, options.schemathesis),
    }
    for name in options.names or [name for name in runs if name != "fuzz"]:
        with tempfile.TemporaryDirectory() as folder:
            print(f"# {name}", flush=True)
            runs[name](Path(folder) / "data")
    print("\n| test | target | measured | |\n|---|---|---|---|")
    for test, target, measured, good in ROWS:
        print(f"| {test} | {target} | {measured} | {'ok' if good else 'MISSED'} |")
    sys.exit(not all(row[-1] for row in ROWS))


if __name__ == "__main__":
    main()
