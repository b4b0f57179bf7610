"""What do the choices behind a step bring? Memory format, fused update, blocks of the LRN, the allocator; in turns.

python benchmarks/choices.py
python benchmarks/choices.py rounds=9 json=choices.json
"""

from alexnet_mp.performance.benchmark.choices import main

if __name__ == "__main__":
    main()
