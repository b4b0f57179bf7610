"""Training: the recipe, the optimizer, the loop, and what a run writes."""
