"""How much a network's initial logits vary from image to image: if little, the loss stands at ln(classes) for long."""

from dataclasses import dataclass
from math import log

import torch

from alexnet_mp.model.build import build_model
from alexnet_mp.model.layers.norm import BatchNorm
from alexnet_mp.training.train import PreparedRun

# On Tiny ImageNet at half resolution the text's preset, 0.3 %, did not leave ln(200) within 600 steps, with inverted
# dropout, 0.6 %, neither; run #145 and its weights in conv3 to conv5, 5.3 and 5.5 %, left by step 150. At full size the
# four have 0.9, 1.4, 10.9 and 11.2 % (docs/text-and-code.md).
FLAT_SHARE = 0.03
# The text's on pixels of unit variance, 0.00007, do not begin to learn; the authors' 18 % net on CIFAR-10, 0.0002, did.
FLAT_SPREAD = 0.0001


@dataclass(frozen=True)
class InitialLogits:
    """`spread`: the standard deviation of a logit over `images` images, its root mean square over the classes.

    `share`: the spread as a part of the logits' root mean square over images and classes; the rest of them, mostly what
    comes of the biases, is the same for all images.
    """

    spread: float
    share: float
    images: int
    classes: int
    data: str

    @property
    def flat(self) -> bool:
        """True if networks like it were seen to stand still for hundreds of steps."""
        return self.share < FLAT_SHARE or self.spread < FLAT_SPREAD

    def in_words(self) -> str:
        """A line, and a second one that warns if the logits are flat."""
        found = (
            f"initial logits: from image to image they vary by {self.spread:.2g}, {self.share:.1%} of their size "
            f"({self.images} images of {self.data})"
        )
        if not self.flat:
            return found
        return (
            f"{found}\nwarning: less than {FLAT_SHARE:.0%}, or than {FLAT_SPREAD:g}, is so flat that the loss may "
            f"stand at ln({self.classes}) = {log(self.classes):.2f} for hundreds of steps or for ever; larger initial "
            "weights end that, as ablation=std_of_145 has them in conv3 to conv5; or std: he in every row with weights"
        )


@torch.no_grad()
def initial_logits(run: PreparedRun) -> InitialLogits:
    """Measure the initial weights of a run, by its seed, on its first batch of training images.

    Dropout is off, because its masks differ from image to image; batch normalization is as in training.
    """
    model = build_model(run.settings.network, seed=run.settings.seed, dtype=run.settings.dtype).eval()
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.train()
    batch = next(run.loader.training(0))
    logits = model(run.preprocess(batch, torch.device("cpu"))).double()  # [images, classes]
    spread = logits.var(dim=0, correction=0).mean().sqrt().item()
    size = logits.square().mean().sqrt().item()
    share = spread / size if size else 0.0
    return InitialLogits(spread, share, len(logits), run.settings.network.classes, run.data.name)
