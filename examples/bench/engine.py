"""Simulates a night of `ushape prepare` with faults and kills, and times the engine.

    python examples/bench/engine.py simulate FOLDER [--assets 30000] [--kills 20] [--ray]
    python examples/bench/engine.py speed FOLDER [--records 30000]

`simulate` prepares tiny assets of which 1 % crash, 1 % hang and 1 % run out of memory, with two
shards and one unsharded run (with --ray: on Ray) on one folder at once, kills runs and workers with
SIGKILL at random and starts killed runs again. Then it counts: nothing lost, nothing done twice
(beyond what a kill interrupted), exact counts in the report. `speed` measures overheads.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil

from ultrashape_cli.claims import in_shard
from ultrashape_cli.config.schema import Config, EngineConfig
from ultrashape_cli.data.layout import STEPS, Dataset, Record, StepRecord
from ultrashape_cli.preparation.discover import find_meshes, new_records
from ultrashape_cli.preparation.pipeline import plan_steps, run_plan
from ultrashape_cli.preparation.report import write_report
from ultrashape_cli.preparation.steps import StepKeys

FAULTS = {"crash": "crash", "hang": "timeout", "memory": "memory"}
RETRIED = {"crash", "hang"}
FAILS_IN = {"crash": "render", "hang": "watertight", "memory": "sample"}


def config_of(args: argparse.Namespace) -> Config:
    engine = EngineConfig(
        kind="ray" if args.ray else "local",
        workers=args.workers,
        timeout_s=args.timeout,
        memory_gib=1.0,
    )
    return replace(Config(), engine=engine)


def run_once(args: argparse.Namespace) -> None:
    """One process of the simulation: what `ushape prepare --shard` does."""
    dataset, config = Dataset(args.folder / "data"), config_of(args)
    known = dataset.load_records()
    records = list(new_records(find_meshes(args.folder / "models"), known))
    records = [r for r in records if in_shard(r.id, args.shard, args.shards)]
    plan = plan_steps(dataset, records, STEPS, config)
    for record in records:
        if record.id not in known:
            dataset.add_record(record)
    run_plan(dataset, plan, config, worker="simulated_worker")


def make_sources(folder: Path, assets: int) -> Counter[str]:
    folder.mkdir(parents=True)
    kinds: Counter[str] = Counter()
    for number in range(assets):
        kind = {0: "crash", 1: "hang", 2: "memory"}.get(number % 100, "fine")
        kinds[kind] += 1
        (folder / f"{kind}-{number}.obj").write_text(f"{number}")
    return kinds


def start(args: argparse.Namespace, shard: int, shards: int, ray: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "once", args.folder, "--workers", args.workers]
    command += ["--shard", shard, "--shards", shards, "--timeout", args.timeout]
    return subprocess.Popen([str(part) for part in [*command, *(["--ray"] if ray else [])]])


def simulate(args: argparse.Namespace) -> bool:
    shutil.rmtree(args.folder, ignore_errors=True)
    kinds = make_sources(args.folder / "models", args.assets)
    rng = random.Random(args.seed)
    jobs = [(1, 2, False), (2, 2, False), (1, 1, args.ray)]
    runs = {job: start(args, *job) for job in jobs}
    kills = Counter[str]()
    began = time.perf_counter()
    while any(run.poll() is None for run in runs.values()):
        time.sleep(rng.uniform(0.5, 1.5) * args.pause)
        # Ray's own processes are children of its run: killing them ends the cluster.
        alive = {job: run for job, run in runs.items() if run.poll() is None and not job[2]}
        if not alive or sum(kills.values()) >= args.kills:
            continue
        job, run = rng.choice(list(alive.items()))
        if rng.random() < 0.5:
            kills["parents"] += 1
            run.send_signal(signal.SIGKILL)
            run.wait()
            runs[job] = start(args, *job)
        else:
            kills["workers"] += kill_worker(run.pid, rng)
    if any(run.returncode for run in runs.values()):
        print("a run failed:", {job: run.returncode for job, run in runs.items()})
        return False
    seconds = time.perf_counter() - began
    print(f"{args.assets} assets, {seconds:.0f} s, killed {dict(kills)}")
    return check(args, kinds, kills)


def kill_worker(pid: int, rng: random.Random) -> int:
    try:
        children = psutil.Process(pid).children()
        if children:
            rng.choice(children).kill()
    except psutil.NoSuchProcess:
        return 0
    return bool(children)


def check(args: argparse.Namespace, kinds: Counter[str], kills: Counter[str]) -> bool:
    dataset = Dataset(args.folder / "data")
    began = time.perf_counter()
    report = json.loads(write_report(dataset).with_suffix(".json").read_text())
    records = dataset.load_records()
    wrong = [r.id for r in records.values() if not as_expected(r)]
    calls: Counter[str] = Counter()
    for log in (dataset.root / "calls").iterdir():
        calls.update(log.read_text().splitlines())
    extra = sum(n - expected_calls(key) for key, n in calls.items())
    expected = {FAULTS[kind]: n for kind, n in kinds.items() if kind in FAULTS}
    # A kill may interrupt what each worker of the run was doing; that alone is done again. Of a
    # step at its second attempt both are, for nothing is recorded before the last.
    allowed = kills["workers"] + 2 * kills["parents"] * args.workers
    rows = [
        ("records", len(records), args.assets, len(records) == args.assets),
        ("wrong or lost", len(wrong), 0, not wrong),
        ("done again", extra, f"<= {allowed}", 0 <= extra <= allowed),
        ("usable in report", report["usable"], kinds["fine"], report["usable"] == kinds["fine"]),
        ("failures in report", report["failures_by_cause"], expected,
         report["failures_by_cause"] == expected),
        ("left half written", len(dataset.partial_files()), 0, not dataset.partial_files()),
    ]  # fmt: skip
    for name, found, wanted, good in rows:
        print(f"{name:20} {found!s:42} expected {wanted!s:42} {'ok' if good else 'WRONG'}")
    print("wrong:", wrong[:5]) if wrong else None
    print(f"report in {time.perf_counter() - began:.1f} s")
    return all(good for *_, good in rows)


def as_expected(record: Record) -> bool:
    kind = Path(record.source["path"]).stem.split("-")[0]
    if kind == "fine":
        return all(record.done(step) for step in STEPS)
    error = record.error
    return bool(error) and (error["cause"], error["step"]) == (FAULTS[kind], FAILS_IN[kind])


def expected_calls(key: str) -> int:
    asset_id, step = key.split(" ")
    kind = asset_id.split("-")[0]
    return 2 if kind in RETRIED and step == FAILS_IN[kind] else 1


def speed(args: argparse.Namespace) -> bool:
    shutil.rmtree(args.folder, ignore_errors=True)
    rows = [overhead(args), dispatch(args), *scan(args)]
    for name, value, target, good in rows:
        print(f"{name:44} {value:>12} target {target:>10} {'ok' if good else 'MISSED'}")
    return all(good for *_, good in rows)


def overhead(args: argparse.Namespace) -> tuple[str, str, str, bool]:
    """Wall time per asset of steps that do nothing, one worker, without its start."""
    seconds = {}
    for count in (50, 550):
        folder = args.folder / f"overhead-{count}"
        seconds[count] = _timed_run(folder, "fine", count, args, workers=1)
    each = (seconds[550] - seconds[50]) / 500 * 1000
    return "engine overhead per asset, 4 steps", f"{each:.1f} ms", "20 ms", each <= 20


def dispatch(args: argparse.Namespace) -> tuple[str, str, str, bool]:
    """Lost time of 16 workers that sleep, against 16 that never wait; starts left out."""
    os.environ["SIMULATED_SECONDS"] = str(args.sleep)
    seconds = {}
    for rounds in (2, 12):
        folder = args.folder / f"dispatch-{rounds}"
        seconds[rounds] = _timed_run(folder, "sleep", 16 * rounds, args, workers=16)
    ideal = 10 * len(STEPS) * args.sleep
    lost = 100 * ((seconds[12] - seconds[2]) / ideal - 1)
    return f"dispatch, 16 workers sleeping {args.sleep:g} s", f"{lost:.2f} %", "2 %", lost <= 2


def _timed_run(
    folder: Path, kind: str, count: int, args: argparse.Namespace, *, workers: int
) -> float:
    (folder / "models").mkdir(parents=True)
    for number in range(count):
        (folder / "models" / f"{kind}-{number}.obj").write_text(str(number))
    dataset = Dataset(folder / "data")
    records = list(new_records(find_meshes(folder / "models"), {}))
    for record in records:
        dataset.add_record(record)
    engine = EngineConfig(workers=workers, memory_gib=1.0)
    config = replace(Config(), engine=engine)
    plan = plan_steps(dataset, records, STEPS, config)
    began = time.perf_counter()
    outcome = run_plan(dataset, plan, config, worker="simulated_worker")
    assert outcome.made == count
    return time.perf_counter() - began


def scan(args: argparse.Namespace) -> list[tuple[str, str, str, bool]]:
    """Records and files of finished assets: reading, planning, the report."""
    dataset, config = Dataset(args.folder / "scan"), Config()
    keys = StepKeys(STEPS, config)
    for number in range(args.records):
        source = {"path": f"/m/{number}.obj", "sha256": str(number), "bytes": 1, "mtime_ns": 1}
        record = Record(f"asset-{number}", source)
        files = {
            "watertight": [dataset.mesh(record.id)],
            "render": [dataset.views(record.id) / f"view_{view:03d}.png" for view in range(8)],
            "sample": [dataset.samples(record.id)],
        }
        measured = {"detail": number % 97, "lost_share": number % 13, "descriptor": "A" * 176,
                    **{f"figure {n}": 0.123456789 for n in range(12)}}  # fmt: skip
        for step, key in keys.of(record).items():
            for path in files.get(step, []):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"12345")
            sizes = dataset.output_sizes(files.get(step, []))
            params = {f"setting {n}": 0 for n in range(6)}
            record.steps[step] = StepRecord("done", key, params, 1.0, measured, sizes)
        dataset.write_record(record)
    best = {"scan": 1e9, "report": 1e9}
    for _ in range(3):
        began = time.perf_counter()
        records = dataset.load_records()
        plan = plan_steps(dataset, list(records.values()), STEPS, config)
        best["scan"] = min(best["scan"], time.perf_counter() - began)
        assert len(plan.finished) == args.records
        began = time.perf_counter()
        page = write_report(dataset, list(records.values()))
        best["report"] = min(best["report"], time.perf_counter() - began)
    size = page.stat().st_size / 1e6
    name = f"{args.records} records"
    return [
        (f"{name}: scan", f"{best['scan']:.2f} s", "3 s", best["scan"] <= 3),
        (f"{name}: report", f"{best['report']:.2f} s", "60 s", best["report"] <= 60),
        (f"{name}: report.html", f"{size:.2f} MB", "25 MB", size <= 25),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("simulate", "speed", "once"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--assets", type=int, default=30_000)
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of a step")
    parser.add_argument("--kills", type=int, default=20, help="of runs and workers, at random")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--sleep", type=float, default=0.5, help="seconds of a sleeping step")
    parser.add_argument("--ray", action="store_true", help="the unsharded run uses Ray")
    parser.add_argument("--shard", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what == "once":
        run_once(args)
    elif not (simulate if args.what == "simulate" else speed)(args):
        sys.exit(1)


if __name__ == "__main__":
    main()
