"""Train a network: torchrun launch/train.py, or anywhere torchrun -m alexnet_mp.commands.train."""

from functools import partial

from alexnet_mp.common.cli import run_command
from alexnet_mp.training.train import train

main = partial(run_command, "train", train)  # what launch/train.py calls

if __name__ == "__main__":
    main()
