"""Check this machine: does the link carry what is sent, do its placements compute the same, and how fast are they?

torchrun launch/check.py                                  one process, both GPUs if there are two
torchrun --nproc-per-node=2 launch/check.py               one process per tower
"""

from alexnet_mp.commands.check import main

if __name__ == "__main__":
    main()
