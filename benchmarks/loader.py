"""How fast does the loader alone read, crop and mirror images on one core, and does its memory grow with the data set?

python benchmarks/loader.py json=loader.json
python benchmarks/loader.py images=[1000,5000] rounds=1 scratch=/path/to/a/disk
"""

import os

# The figures are of one core; the variables count only if they are set before the libraries are there.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

if __name__ == "__main__":
    from alexnet_mp.performance.benchmark.loader import main

    main()
