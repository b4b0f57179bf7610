"""Train a network: torchrun launch/train.py, or anywhere torchrun -m alexnet_mp.commands.train."""

import sys
from functools import partial

from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.performance.dry_run import try_run
from alexnet_mp.training.config import gives_classes
from alexnet_mp.training.train import train


def run(configuration: Configuration) -> None:
    """Train; or, with `dry_run`, train one step and print what the run would be. Classes not given are the data's."""
    classes_of_data = not gives_classes(sys.argv[1:])
    if not configuration["dry_run"]:
        train(configuration, classes_of_data)
        return
    plan = try_run(configuration, classes_of_data)
    if plan is not None:
        show(plan)


main = partial(run_command, "train", run, of_all_processes=True)  # what launch/train.py calls

if __name__ == "__main__":
    main()
