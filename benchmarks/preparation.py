"""How fast are pictures prepared? This library with one and two workers, and a plain Pillow loop, in turns in one run.

python benchmarks/preparation.py source=PHOTOS json=preparation.json
"""

import os

# NumPy's matrix product would use every core, and the loops are of one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

if __name__ == "__main__":  # worker processes import this file too, and do not need the rest
    from alexnet_mp.performance.benchmark.preparation import main

    main()
