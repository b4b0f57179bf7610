"""Train a network: torchrun launch/train.py, or anywhere torchrun -m alexnet_mp.commands.train."""

from alexnet_mp.common.cli import run_command
from alexnet_mp.training.train import train


def main() -> None:
    """Entry point of `launch/train.py`; see `conf/train.yaml` for the keys."""
    run_command("train", train)


if __name__ == "__main__":
    main()
