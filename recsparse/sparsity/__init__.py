"""How a table becomes sparse: granularity, criterion, schedule, allocation and budget, combined in a recipe."""

from recsparse.sparsity.allocation import Global, Uniform
from recsparse.sparsity.criterion import Evidence, Frequency, Gradient, LossIncrease, Magnitude, Saliency
from recsparse.sparsity.granularity import Block, Element, Row
from recsparse.sparsity.recipe import Recipe
from recsparse.sparsity.schedule import Gradual, OneShot

__all__ = [
    "Block",
    "Element",
    "Evidence",
    "Frequency",
    "Global",
    "Gradient",
    "Gradual",
    "LossIncrease",
    "Magnitude",
    "OneShot",
    "Recipe",
    "Row",
    "Saliency",
    "Uniform",
]
