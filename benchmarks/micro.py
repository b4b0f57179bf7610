"""How fast are layers, update and crossing by themselves, beside what each was chosen over? In turns in one run.

python benchmarks/micro.py
python benchmarks/micro.py parts=[normalization,crossing] compiled=true rounds=9 json=micro.json
"""

from alexnet_mp.performance.benchmark.micro import main

if __name__ == "__main__":
    main()
