"""What NVIDIA's driver says of the GPUs: their state and energy, the link between two, and a run's metrics of them."""
