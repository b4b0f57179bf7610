"""Train a network.

torchrun launch/train.py                                  one process, both GPUs if there are two
torchrun --nproc-per-node=2 launch/train.py               one process per tower
torchrun --nproc-per-node=8 launch/train.py               four replicas of two towers
"""

from alexnet_mp.commands.train import main

if __name__ == "__main__":
    main()
