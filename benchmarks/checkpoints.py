"""What does a checkpoint cost? Training with one and without, in turns, and a save that training waits for.

OMP_NUM_THREADS=1 torchrun --nproc-per-node=2 benchmarks/checkpoints.py json=checkpoints.json
python benchmarks/checkpoints.py threads=2
"""

from alexnet_mp.performance.benchmark.checkpoints import main

if __name__ == "__main__":
    main()
