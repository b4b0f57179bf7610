"""The cost model: how long a training step takes and what it holds, split, on one device and data-parallel."""
