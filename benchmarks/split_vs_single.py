"""Is splitting worth it on this machine? The towers, the same network whole, data-parallel and as a pipeline, in turns.

python benchmarks/split_vs_single.py
python benchmarks/split_vs_single.py batch_size=[64,128] rounds=5 json=split.json chart=split.png
"""

from alexnet_mp.performance.benchmark.split_vs_single import main

if __name__ == "__main__":
    main()
