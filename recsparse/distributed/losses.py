"""Losses of known pairs and drawn negatives, as :mod:`recsparse.kernels.sgd` steps them, for torch's autograd."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Loss = Callable[[Tensor, Tensor, float], Tensor]


def _bpr(known: Tensor, drawn: Tensor, weight: float) -> Tensor:
    return softplus(drawn - known[:, None]).sum(dim=1)


def _softmax(known: Tensor, drawn: Tensor, weight: float) -> Tensor:
    return torch.logsumexp(torch.cat([known[:, None], drawn], dim=1), dim=1) - known


def _squared(known: Tensor, drawn: Tensor, weight: float) -> Tensor:
    return 0.5 * ((1.0 - known).square() + weight * drawn.square().sum(dim=1))


LOSSES: dict[str, Loss] = {"bpr": _bpr, "softmax": _softmax, "squared": _squared}


def sample_losses(loss: str, users: Tensor, items: Tensor, *, reg: float, negative_weight: float) -> Tensor:
    """The loss of each sample, (B,).

    Args:
        loss: one of :data:`LOSSES`.
        users: (B, D).
        items: (B, 1 + N, D), the known item first.
        reg: strength of the regularisation; every occurrence of a row is drawn to zero by it.
        negative_weight: of the squared loss.

    Example:
        >>> users, items = torch.ones(1, 2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> sample_losses("bpr", users, items, reg=0.0, negative_weight=1.0)  # scores are equal: log 2
        tensor([0.6931])
    """
    scores = torch.bmm(items, users[:, :, None])[:, :, 0]
    losses = LOSSES[loss](scores[:, 0], scores[:, 1:], negative_weight)
    if reg:
        losses = losses + 0.5 * reg * (users.square().sum(dim=1) + items.square().sum(dim=(1, 2)))
    return losses
