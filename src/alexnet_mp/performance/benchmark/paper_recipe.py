"""The recipe of timed steps: the paper's, for any batch size."""

from dataclasses import replace

from omegaconf import OmegaConf

from alexnet_mp.common.presets import preset_path
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.training.recipe import Recipe


def paper_recipe(batch_size: int) -> Recipe:
    """The preset `paper` for another batch; speed does not depend on its numbers."""
    preset = from_mapping(Recipe, OmegaConf.to_container(OmegaConf.load(preset_path("recipe", "paper"))), "recipe")
    return replace(preset, batch_size=batch_size)
