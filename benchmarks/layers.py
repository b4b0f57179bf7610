"""How fast are the normalizations and the crossing by themselves, beside stock PyTorch? In turns in one run.

python benchmarks/layers.py
python benchmarks/layers.py compiled=true rounds=9 json=layers.json
"""

from alexnet_mp.performance.benchmark.layers import main

if __name__ == "__main__":
    main()
