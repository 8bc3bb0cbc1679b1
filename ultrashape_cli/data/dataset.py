"""Training items. Everything random about one is a function of (seed, sample counter).

So the stream does not depend on the number of workers or processes, nor on a resume.
"""

from __future__ import annotations

import atexit
import multiprocessing.queues
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ultrashape_cli.data.ahead import ReadAhead
from ultrashape_cli.data.images import (
    TRAINING_PADDING,
    jitter_colours,
    load_rgba,
    preprocess_training,
)
from ultrashape_cli.data.layout import Dataset as AssetFolder
from ultrashape_cli.data.posed_views import draw_views, read_directions
from ultrashape_cli.data.samples import QUERY_SETS, open_samples
from ultrashape_cli.errors import AssetError, DatasetError, LoaderError
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.processes import end_with_parent, leave

Item = dict[str, Any]
READ_BY_HOST = ("counter", "variant", "mask", "view", "checksum", "num_views")
"""What decides draws and lengths: on an accelerator, reading it would wait for all work there."""
_OF_VIEWS = ("image", "mask", "view", "checksum", "camera")
"""What a sample of several views has of each; those of a microbatch follow each other."""
_LOADER_LOST = ("DataLoader worker (pid", "shared memory", "No space left on device")
"""Words of torch for a loader process that died, or could not share what it had read."""


class ShapeDataset(Dataset[Item]):
    """Items of one split, indexed by (sample counter, asset index).

    An item holds `uid`, `counter`, `variant`, `surface` [N, 7], and, for the DiT stage, `image`
    [3, S, S] and `mask` [1, S, S] in [-1, 1], which `view` it is and, if asked, the `checksum` of
    its file, or, for the VAE stage, one [Q, 4] array per query set (position, signed distance).
    Where samples may show several views, it has them stacked, [V, 3, S, S] and so on, their number
    `num_views`, and `camera` [V, 2], azimuth and elevation in degrees. A broken asset raises with
    its id; it is never replaced.

    Args:
        root: The dataset.
        ids: Assets of the split.
        seed: With the counter, fixes the view and the points.
        surface_points: Points per item.
        image_size: Sample counter -> pixels; None for no images.
        query_points: Points per query set; 0 for none.
        variants: Different surface draws per asset; 0 draws anew every time and has variant -1.
        views: Most that a sample shows (`draw_views`); 1 for any one of them.
        fixed_view: Always take the first view, or the first `views`.
        checksums: Add that of the view's file, which is read once more for it.
        skip_bad: Leave broken assets out of a microbatch and name them, instead of raising.
        coarse_points: Points of the asset's coarse version, `coarse` [P, 3]; 0 for none.
        coarse_normals: Give them normals and the sharp label too, `coarse` [P, 7].
        colour_jitter: Largest relative change of contrast and colour gains.
        crop_jitter: Largest relative growth of the white border's square.
    """

    def __init__(
        self,
        root: AssetFolder,
        ids: list[str],
        *,
        seed: int,
        surface_points: int,
        image_size: Callable[[int], int] | None = None,
        query_points: int = 0,
        variants: int = 0,
        views: int = 1,
        fixed_view: bool = False,
        checksums: bool = False,
        skip_bad: bool = False,
        coarse_points: int = 0,
        coarse_normals: bool = False,
        colour_jitter: float = 0.0,
        crop_jitter: float = 0.0,
    ) -> None:
        self.root = root
        self.ids = ids
        self.seed = seed
        self.surface_points = surface_points
        self.image_size = image_size
        self.query_points = query_points
        self.variants = variants
        self.views = views
        self.fixed_view = fixed_view
        self.checksums = checksums
        self.skip_bad = skip_bad
        self.coarse_points = coarse_points
        self.coarse_normals = coarse_normals
        self.colour_jitter = colour_jitter
        self.crop_jitter = crop_jitter

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        counter, index = key
        asset_id = self.ids[index]
        rng = np.random.default_rng([self.seed, counter])
        try:
            return self._item(asset_id, counter, rng)
        except AssetError as error:
            raise AssetError(f"asset `{asset_id}`: {error.message}", hint=error.hint) from error

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Item | AssetError] | AssetError:
        """Returns a microbatch, or the error that a loader process cannot raise unharmed."""
        found: list[Item | AssetError] = []
        for key in keys:
            try:
                found.append(self[key])
            except AssetError as error:
                if not self.skip_bad:
                    return error
                found.append(error)
        return found

    def bring(self, keys: list[tuple[int, int]]) -> None:
        """Makes the samples of a microbatch be here; which view it takes is drawn after them."""
        for _, index in keys:
            self.root.fetched(self.root.samples(self.ids[index]))

    def _item(self, asset_id: str, counter: int, rng: np.random.Generator) -> Item:
        samples = open_samples(self.root.fetched(self.root.samples(asset_id)))
        variant, points_rng = -1, rng
        if self.variants:
            variant = int(rng.integers(self.variants))
            points_rng = np.random.default_rng([self.seed, variant_counter(asset_id, variant)])
        surface = torch.from_numpy(samples.draw_surface(self.surface_points, points_rng))
        item: Item = {"uid": asset_id, "counter": counter, "variant": variant, "surface": surface}
        if self.image_size is not None:
            item |= self._images(asset_id, counter, rng)
        if self.query_points:
            for name in QUERY_SETS:
                queries = samples.draw_queries(name, self.query_points, rng)
                item[name] = torch.from_numpy(queries)
        if self.coarse_points:
            coarse = samples.draw_coarse(self.coarse_points, rng, normals=self.coarse_normals)
            item["coarse"] = torch.from_numpy(coarse)
        return item

    def _images(self, asset_id: str, counter: int, rng: np.random.Generator) -> Item:
        assert self.image_size is not None
        size = self.image_size(counter)
        files = self.root.view_files(asset_id)
        if not files:
            raise AssetError("no views", hint=f"ushape render {self.root.root}")
        if self.views == 1:
            view = 0 if self.fixed_view else int(rng.integers(len(files)))
            return self._image(files[view], view, size, rng)
        chosen = list(range(min(self.views, len(files))))
        if not self.fixed_view:
            chosen = draw_views(self.seed, counter, len(files), self.views)
        directions = read_directions(self.root, asset_id, files)
        shown = default_collate([self._image(files[view], view, size, rng) for view in chosen])
        camera = torch.from_numpy(directions[chosen])
        return {**shown, "camera": camera, "num_views": len(chosen)}

    def _image(self, path: Path, view: int, size: int, rng: np.random.Generator) -> Item:
        file = self.root.fetched(path)
        rgba = load_rgba(file)
        padding = TRAINING_PADDING
        # Views are never turned or mirrored: the image would no longer show the shape beside it.
        if self.colour_jitter:
            rgba = jitter_colours(rgba, self.colour_jitter, rng)
        if self.crop_jitter:
            padding *= 1 + rng.uniform(0, self.crop_jitter)
        image, mask = preprocess_training(rgba, size, padding)
        item: Item = {"image": image, "mask": mask, "view": view}
        if self.checksums:
            item["checksum"] = zlib.crc32(file.read_bytes())
        return item


class SampleOrder(Sampler[list[tuple[int, int]]]):
    """Endless microbatches of (sample counter, asset index) for one process.

    Counter n is item n modulo N of the permutation of epoch n // N, so the position in the data
    is one integer. Of each group of `world` microbatches, process `rank` takes its own.
    """

    def __init__(
        self, num_items: int, *, seed: int, start: int, microbatch: int, rank: int, world: int
    ) -> None:
        if num_items == 0:
            raise DatasetError("the training list is empty", hint="`ushape split DATA` writes it")
        self.num_items = num_items
        self.seed = seed
        self.start = start
        self.microbatch = microbatch
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.start + self.rank * self.microbatch
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            batch = []
            for counter in range(first, first + self.microbatch):
                if counter // self.num_items != epoch:
                    epoch = counter // self.num_items
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.num_items)
                batch.append((counter, int(order[counter % self.num_items])))
            yield batch
            first += self.world * self.microbatch


def make_loader(
    dataset: ShapeDataset, order: SampleOrder, *, num_workers: int, pin_memory: bool
) -> Iterator[Item]:
    """Yields collated microbatches without end; `bad` lists what was left out of each.

    Raises:
        AssetError: An asset is broken.
        LoaderError: A loader process ended; raised here only, never in the middle of a step.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=order if dataset.root.is_local else ReadAhead(order, dataset.bring),
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=partial(_start_worker, parent=os.getpid()),
        pin_memory=pin_memory,
        persistent_workers=False,
        prefetch_factor=4 if num_workers else None,
        # Forking after accelerators and threads have started deadlocks.
        multiprocessing_context="spawn" if num_workers else None,
    )
    iterator = iter(loader)
    if num_workers:
        # torch's handler would raise wherever the main thread is when a loader process dies.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        try:
            batch = next(iterator)
        except (RuntimeError, ConnectionError, EOFError) as error:
            text = str(error) or type(error).__name__
            cut = not isinstance(error, RuntimeError)  # in the middle of a sample
            if not (num_workers and (cut or any(phrase in text for phrase in _LOADER_LOST))):
                raise
            raise LoaderError(
                f"a loader process ended ({text.strip().splitlines()[-1]}): killed, out of memory, "
                f"or without shared memory ({_shared_memory()})",
                hint="repeat the command with --set train.num_workers=0, or give it more memory "
                "(containers: --shm-size=8g)",
            ) from error
        # torch would turn an exception of a loader process into its traceback as one long text.
        if isinstance(batch, AssetError):
            raise batch
        yield batch


def _collate(found: list[Item | AssetError] | AssetError) -> Item | AssetError:
    if isinstance(found, AssetError):
        return found
    items = [item for item in found if not isinstance(item, AssetError)]
    bad = [error.message for error in found if isinstance(error, AssetError)]
    return {**(collate(items) if items else {"uid": []}), "bad": bad}


def collate(items: list[Item]) -> Item:
    """Returns samples as a microbatch; views of samples that may show several follow each other."""
    if "num_views" not in items[0]:
        return default_collate(items)
    each = [name for name in _OF_VIEWS if name in items[0]]
    found = default_collate([{k: v for k, v in item.items() if k not in each} for item in items])
    return {**found, **{name: torch.cat([item[name] for item in items]) for name in each}}


def _shared_memory() -> str:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return "no /dev/shm here"
    return f"/dev/shm: {usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB free"


def _start_worker(worker: int, parent: int) -> None:
    # torch's own watch takes for the parent whoever is it by now.
    end_with_parent(signal.SIGKILL, parent)
    # Signals reach the whole process group; the training process decides when the loader ends,
    # and ends it by TERM.
    for number in SignalFlag.SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    # Without room to share a sample the thread that sends it would go on without: the training
    # process would wait for ever.
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_give_up)
    atexit.register(leave, 0)


def _give_up(error: Exception, item: object) -> NoReturn:
    sys.stderr.write(f"loader process {os.getpid()}: {error}\n")
    leave(1)


def sample_generator(seed: int, counter: int) -> torch.Generator:
    """Returns the CPU generator of one sample's draws outside the loader (voxels, t, noise)."""
    state = np.random.SeedSequence([seed, counter, 1]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def variant_counter(asset_id: str, variant: int) -> int:
    """Returns the counter of a fixed draw of an asset, beyond those of training samples."""
    return (1 << 48) + (zlib.crc32(asset_id.encode()) << 12) + variant


def to_device(batch: Item, device: torch.device) -> Item:
    """Returns the batch with its tensors on `device`, but for those that the host reads."""
    return {
        key: value.to(device, non_blocking=True)
        if isinstance(value, Tensor) and key not in READ_BY_HOST
        else value
        for key, value in batch.items()
    }
