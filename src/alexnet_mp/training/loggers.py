"""Sends a run's numbers and pictures to TensorBoard and W&B, in threads; one that fails or hangs stops no run."""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from alexnet_mp.training.log import LOG

LoggerName = Literal["tensorboard", "wandb"]
Values = Mapping[str, float | NDArray[np.uint8]]  # numbers, and pictures [height, width, 3]
# It is given a run's folder, the step after which it goes on, its configuration, and what it logs until it ends.
Logger = Callable[[Path, int, str, Iterable[tuple[int, Values]]], None]
SECONDS_TO_CLOSE = 20.0  # for what is left when a run ends; torchrun kills a process that it has stopped after 30


def tensorboard(folder: Path, after: int, configuration: str, told: Iterable[tuple[int, Values]]) -> None:
    """Event files in the run folder; what an earlier process wrote of later steps is dropped."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=after + 1) as writer:
        for step, values in told:
            for name, value in values.items():
                if isinstance(value, np.ndarray):
                    writer.add_image(name, value, step, dataformats="HWC")
                else:
                    writer.add_scalar(name, value, step)


def weights_and_biases(folder: Path, after: int, configuration: str, told: Iterable[tuple[int, Values]]) -> None:
    """A run of W&B, in `wandb/` of the run folder, offline without a login. One that goes on is a new one there."""
    import wandb

    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "alexnet-mp"),
        group=folder.name,
        dir=folder,
        config=yaml.safe_load(configuration),
        mode=None if os.environ.get("WANDB_MODE") or wandb.login(prompt=False) else "offline",
        settings=wandb.Settings(console="off", finish_timeout=SECONDS_TO_CLOSE / 2),
    ) as run:
        for step, values in told:
            run.log({name: wandb.Image(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}, step=step)


LOGGERS: Mapping[str, Logger] = {"tensorboard": tensorboard, "wandb": weights_and_biases}
INSTALLED: tuple[LoggerName, ...] = ("tensorboard",) if find_spec("tensorboard") else ()  # what is used unasked


class LoggerThread(Thread):
    """A logger in a thread of its own, so that it slows no step; what goes wrong in it is one warning."""

    def __init__(self, name: LoggerName, folder: Path, after: int, configuration: str) -> None:
        super().__init__(name=f"logger {name}", daemon=True)
        self._told: SimpleQueue[tuple[int, Values] | None] = SimpleQueue()
        self._log: Callable[[], None] = lambda: LOGGERS[name](folder, after, configuration, iter(self._told.get, None))
        self.start()

    def run(self) -> None:
        try:
            self._log()
        except Exception as error:
            advice = f" (pip install {error.name})" if isinstance(error, ModuleNotFoundError) else ""
            LOG.warning("%s: %s: %s%s; the run goes on without it", self.name, type(error).__name__, error, advice)

    def tell(self, step: int, values: Values) -> None:
        if self.is_alive():
            self._told.put((step, values))

    def close(self) -> None:
        self._told.put(None)
        self.join(SECONDS_TO_CLOSE)
        if self.is_alive():
            LOG.warning("%s: not done in %.0f s; the run ends without it", self.name, SECONDS_TO_CLOSE)
