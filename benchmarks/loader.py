"""Crops per second out of the training loader, and how long a lean network on the CPU waits for them.

    python benchmarks/loader.py [crops]

Data: the real `fib25` and `snemi3d` with the crops, targets and networks of their quick recipes, else a phantom.
Every loader is the one that `emloom.nn.train` makes: plans are drawn, volumes in memory read, samples rendered,
affinities and descriptors computed, batches collated, in the training process (0 workers) or in processes of
their own. `plain` changes nothing, `full` is the chain for the kind of data (`AugmentSpec.isotropic`,
`AugmentSpec.serial_sections`). Wall-clock time after warm-up. `waiting` is the share of the step time that
training with the full chain spends waiting for data, as the progress bar shows it after 60 steps, when the start
of the workers no longer counts.

The last line is the speed that augmentation leaves: crops/s of `full` divided by crops/s of `plain`, without
workers, alternating, medians of CPU time; geometric mean of the sets. 1 would be augmentation for nothing.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean, median

import torch
from lightning_fabric import Fabric

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn.augment import AugmentSpec
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, build
from emloom.nn.samples import Sample, SampleMaker, TrainingSamples
from emloom.nn.train import Progress, TrainingData, TrainingSpec, crop_shape, train, training_loader
from emloom.recipes import fib25, phantom, snemi3d
from emloom.tasks.data import open_stack
from emloom.tasks.job import NeuronsJob
from emloom.testing.phantom import PhantomSpec, write_phantom

CROPS = int(sys.argv[1]) if len(sys.argv) > 1 else 24
STEPS = 60
WARM_UP = 3
WORKERS = (0, 1, 2)


def jobs(scratch: Path) -> Iterator[NeuronsJob]:
    found = False
    for recipe in (fib25, snemi3d):
        try:
            job = recipe.quick()
        except InputError:
            continue
        found = True
        yield job
    if not found:
        write_phantom(PhantomSpec(), scratch)
        yield phantom.demo(str(scratch))


@dataclass
class Set:
    """One data set, its model and its two augmentations."""

    name: str
    maker: SampleMaker
    chains: dict[str, AugmentSpec]
    training: TrainingSpec

    @classmethod
    def of(cls, job: NeuronsJob) -> Set:
        stack = open_stack(job.data[0])
        size = stack.raw.info.grid.voxel_size_nm
        model = ModelSpec(objective=job.objective, network=job.network, voxel_size_nm=size)
        crop = crop_shape(build(model), job.training.crop_shape_vox)
        full = AugmentSpec.serial_sections() if size[0] > 2 * size[1] else AugmentSpec.isotropic()
        chains = {"plain": AugmentSpec.none(), "full": full}
        return cls(job.name, SampleMaker(model, [stack.labelled], crop), chains, job.training)

    def batches(self, chain: str, workers: int, count: int) -> Iterator[Sample]:
        """Iterate over the batches of the training loader."""
        asked = self.training.model_copy(update={"augment": self.chains[chain], "steps": count})
        hardware = Hardware(accelerator="cpu", workers=workers)
        samples = TrainingSamples(self.maker, asked, asked.steps * asked.batch_size)
        return iter(training_loader(samples, asked, hardware, Fabric(accelerator="cpu"), 0))

    def seconds_per_crop(self, chain: str, workers: int) -> float:
        # Loaders work ahead (4 batches a worker): warm-up ends when that store is used up.
        before = WARM_UP + 4 * workers
        arrivals = [time.perf_counter() for _ in self.batches(chain, workers, before + CROPS)]
        return (arrivals[-1] - arrivals[before - 1]) / CROPS / self.training.batch_size

    def remaining_speed(self) -> float:
        """Return crops/s with the full chain over crops/s without, in turn and in this process."""
        streams = {chain: self.batches(chain, 0, WARM_UP + CROPS) for chain in self.chains}
        seconds: dict[str, list[float]] = {chain: [] for chain in self.chains}
        for _ in range(WARM_UP + CROPS):
            for chain, stream in streams.items():
                start = time.process_time()
                next(stream)
                seconds[chain].append(time.process_time() - start)
        return median(seconds["plain"][WARM_UP:]) / median(seconds["full"][WARM_UP:])

    def waiting(self, workers: int) -> float:
        """Return the share of the step time that training waits for data."""
        asked = self.training.model_copy(
            update={"augment": self.chains["full"], "steps": STEPS, "validate_every": STEPS}
        )
        reports: list[Progress] = []
        box = Box(self.maker.volumes[0].region.start, self.maker.crop.output)
        with tempfile.TemporaryDirectory() as folder:
            data = TrainingData(self.maker.volumes, [(0, box)])
            hardware = Hardware(accelerator="cpu", workers=workers)
            train(self.maker.model, asked, data, Path(folder), hardware, reports.append)
        return reports[-2].wait_share  # the last one validates, too


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    left = []
    print(f"{CROPS} crops each, on {os.cpu_count()} processors")
    print(f"{'set':<16}{'output (z, y, x)':<18}{'workers':>8}{'plain':>10}{'full':>10}   {'waiting':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for job in jobs(Path(scratch)):
            data = Set.of(job)
            left.append(data.remaining_speed())
            for workers in WORKERS:
                plain, full = (1 / data.seconds_per_crop(chain, workers) for chain in data.chains)
                shape = " x ".join(map(str, data.maker.crop.output))
                print(
                    f"{data.name:<16}{shape:<18}{workers:>8}{plain:>8.1f}/s{full:>8.1f}/s   "
                    f"{data.waiting(workers):>8.1%}",
                    flush=True,
                )
    print(f"RATIO loader {exp(fmean(map(log, left))):.2f}")


if __name__ == "__main__":
    main()
