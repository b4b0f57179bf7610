"""Is splitting worth it on this machine? Two towers in two processes, in one process, and stock PyTorch, side by side.

python benchmarks/split_vs_single.py
python benchmarks/split_vs_single.py network=small network.image=[3,32,32] batch_size=8 rounds=1 json=split.json
"""

from alexnet_mp.benchmark.split_vs_single import main

if __name__ == "__main__":
    main()
