"""The presets: Hydra groups `network`, `recipe`, `data` and `experiment`, and one configuration for each command."""
