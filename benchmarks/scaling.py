"""What do more processes bring on this processor? All towers in one, one a tower, two replicas; in turns.

python benchmarks/scaling.py
python benchmarks/scaling.py device=two_epyc_cores rounds=3 json=scaling.json
"""

from alexnet_mp.performance.benchmark.scaling import main

if __name__ == "__main__":
    main()
