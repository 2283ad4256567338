"""How a table becomes sparse: granularity, criterion, schedule, allocation and budget, combined in a recipe."""

from recsparse.sparsity.allocation import BestRows, Global, PopularityGroups, Sensitivity, Uniform
from recsparse.sparsity.criterion import (
    Evidence,
    Frequency,
    Gradient,
    Knowledge,
    LossIncrease,
    Magnitude,
    Piecewise,
    Saliency,
)
from recsparse.sparsity.granularity import Block, Element, Row
from recsparse.sparsity.pruner import Pruner
from recsparse.sparsity.recipe import Recipe
from recsparse.sparsity.schedule import Dynamic, Gradual, OneShot, SoftThreshold, Tickets

__all__ = [
    "BestRows",
    "Block",
    "Dynamic",
    "Element",
    "Evidence",
    "Frequency",
    "Global",
    "Gradient",
    "Gradual",
    "Knowledge",
    "LossIncrease",
    "Magnitude",
    "OneShot",
    "Piecewise",
    "PopularityGroups",
    "Pruner",
    "Recipe",
    "Row",
    "Saliency",
    "Sensitivity",
    "SoftThreshold",
    "Tickets",
    "Uniform",
]
