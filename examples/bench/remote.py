"""How long training waits for data that lies in S3 behind a slow line.

    python examples/bench/remote.py FOLDER [--steps 60] [--mb-per-s 15] [--latency-ms 100]

Makes assets of full size (5 MB of samples, four views of 1 MB), packs them, serves the pack from
a stand-in for S3 behind a proxy that delays each request and limits all of them together, and
reads training items from it with nothing in the cache, half a second of "step" between them. The
line below is the same from the local dataset.
"""

from __future__ import annotations

import argparse
import http.client
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from moto.server import ThreadedMotoServer
from PIL import Image

from ultrashape_cli.data.dataset import Item, SampleOrder, ShapeDataset, make_loader
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.files import write_json
from ultrashape_cli.packing.location import Location
from ultrashape_cli.packing.opened import open_dataset
from ultrashape_cli.packing.transfer import push_pack
from ultrashape_cli.packing.write import plan_pack, write_pack

STEP_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mb-per-s", type=float, default=15.0)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    options = parser.parse_args()
    dataset = make(Dataset(options.folder / "data"), options.steps + 20)
    pack = write_pack(plan_pack(dataset, 256 << 20), options.folder / "pack")
    item = (dataset.samples("asset-000"), dataset.view_files("asset-000")[0])
    need = sum(path.stat().st_size for path in item) / 1e6
    print(f"an item is {need:.1f} MB: {need / STEP_S:.1f} MB/s at {STEP_S} s a step")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a",
                   "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    place = Location("s3://bucket/set")
    place.fs.mkdir("bucket")
    push_pack(options.folder / "pack", pack, place)
    place.fs.clear_instance_cache()
    proxy = Proxy((host, port), options.latency_ms / 1000, options.mb_per_s * 1e6)
    os.environ["AWS_ENDPOINT_URL"] = proxy.url
    with TemporaryDirectory(dir=options.folder) as cache:
        for name, opened in (
            ("s3, nothing cached", open_dataset("s3://bucket/set", cache)),
            ("local", dataset),
        ):
            waited = wait_share(loader(opened, options.workers), options.steps)
            print(f"{name:22} waits {100 * waited:5.1f} % of a step")
    os._exit(0)


def wait_share(batches: Iterator[Item], steps: int) -> float:
    next(batches)
    waited = 0.0
    for _ in range(steps):
        time.sleep(STEP_S)
        begin = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - begin
    return waited / (steps * STEP_S)


def image_size(counter: int) -> int:
    return 518


def loader(dataset: Dataset, workers: int) -> Iterator[Item]:
    ids = dataset.read_split("train")
    items = ShapeDataset(dataset, ids, seed=0, surface_points=81_920, image_size=image_size)
    order = SampleOrder(len(items), seed=0, start=0, microbatch=1, rank=0, world=1)
    return make_loader(items, order, num_workers=workers, pin_memory=False)


def make(dataset: Dataset, count: int) -> Dataset:
    for index in range(count):
        asset = f"asset-{index:03d}"
        if dataset.record_path(asset).exists():
            continue
        draw = np.random.default_rng(index)
        normals = draw.normal(size=(600_000, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        arrays = {
            "surface_points": quantise_positions(0.9 * normals),
            "surface_normals": encode_normals(normals),
        }
        write_samples(dataset.samples(asset), {"contents": "dit", "num_uniform": 300_000}, arrays)
        views = [dataset.views(asset) / f"view_{view:03d}.png" for view in range(4)]
        views[0].parent.mkdir(parents=True, exist_ok=True)
        for view in views:
            Image.fromarray(draw.integers(1, 255, (512, 512, 4), np.uint8)).save(view)
        steps = {step: StepRecord("done", "key", outputs=dataset.output_sizes(paths))
                 for step, paths in (("watertight", []), ("render", views),
                                     ("sample", [dataset.samples(asset)]))}  # fmt: skip
        dataset.write_record(Record(asset, {"path": asset}, steps))
    write_json(dataset.list_path("train"), [f"asset-{index:03d}" for index in range(count)])
    return dataset


class Proxy(ThreadingHTTPServer):
    """Hands requests on after `latency` seconds, all answers together at most at `rate` bytes/s."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int], latency: float, rate: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.latency, self.rate = target, latency, rate
        self.free, self.lock = time.monotonic(), threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def pay(self, size: int) -> None:
        """Waits until the line has carried so many bytes."""
        with self.lock:
            self.free = max(self.free, time.monotonic()) + size / self.rate
            until = self.free
        time.sleep(max(0.0, until - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.latency)
        connection = http.client.HTTPConnection(*self.server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(key, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        for begin in range(0, len(data), 1 << 16):
            piece = data[begin : begin + (1 << 16)]
            self.server.pay(len(piece))
            self.wfile.write(piece)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = _pass


if __name__ == "__main__":
    main()
