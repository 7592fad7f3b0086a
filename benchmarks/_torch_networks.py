"""flowlib's conditioners in PyTorch, their weights copied."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from flowlib.nn import MLP, MaskedMLP

torch.set_default_dtype(torch.float64)


class SquashFirst(torch.nn.Module):
    """A network of 10 asinh(x / 10), through which flowlib's conditioners see their input; a context is ignored."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x, context=None):
        return self.network(10 * torch.asinh(x / 10))


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def on_rows(fn: Callable) -> Callable:
    """A function of a tensor as one of an array, without gradients."""
    return torch.no_grad()(lambda x: fn(tensor(x)))


def same_mlp(network: Callable, order: np.ndarray) -> SquashFirst:
    """The network of ReLUs, its outputs in this order."""
    if not isinstance(network, MLP):
        raise ValueError(f"expected an MLP, got {type(network).__name__}")
    layers = []
    for each in network.layers:
        weight, bias = np.asarray(each.weight), np.asarray(each.bias)
        if each is network.layers[-1]:
            weight, bias = weight[order], bias[order]
        layers += [_filled(torch.nn.Linear(weight.shape[1], weight.shape[0]), weight, bias), torch.nn.ReLU()]
    return SquashFirst(torch.nn.Sequential(*layers[:-1]))


def fill_masked(layers: Sequence[Any], network: MaskedMLP | MLP, order: np.ndarray) -> None:
    """Copy weights, biases and masks into a peer's masked layers, the outputs in this order."""
    if not isinstance(network, MaskedMLP) or network.skip is not None:
        raise ValueError("expected a masked network without a linear map past the hidden layers: make it wider")
    for layer, ours in zip(layers, (*network.hidden, network.last), strict=True):
        rows = order if ours is network.last else np.arange(len(ours.mask))
        _filled(layer, np.asarray(ours.weight)[rows], np.asarray(ours.bias)[rows])
        layer.mask = tensor(np.asarray(ours.mask)[rows]).to(layer.mask.dtype)


def _filled(layer, weight, bias):
    if layer.weight.shape != weight.shape:
        raise ValueError(f"expected a layer of shape {weight.shape}, got {tuple(layer.weight.shape)}")
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        layer.bias.copy_(tensor(bias))
    return layer
