"""Measure this machine and print it as a hardware description for the cost model, in half a minute.

python benchmarks/device.py > mine.yaml
python launch/plan.py hardware=mine.yaml
"""

from alexnet_mp.performance.benchmark.device import main

if __name__ == "__main__":
    main()
