"""How fast: the benchmark, the cost model, and the check of a machine."""
