"""Glow: what the gradient costs in memory and time, and a training step beside normflows' Glow on PyTorch.

The gradients are those of the mean `log_prob` of a batch, of a flow first fitted to images. The difference is from the
stored gradient, leaf by leaf, relative to the leaf's norm: the largest. In the second table both flows have equal
levels, steps and widths, and take steps of Adam on equal batches; normflows is skipped where it is not installed.

Usage: python benchmarks/glow.py [--short] [--side 16] [--batch 64]
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import flowlib
from _report import arguments, machine, number, print_table, ratio, spread
from _timing import in_turns
from flowlib import flows
from flowlib.parameters import partition_trainable
from flowlib.train import fit_to_data
from gradient_memory import GRADIENTS, compiled_gradient, difference

CHANNELS, LEVELS = 3, 2


def images(n: int, side: int) -> np.ndarray:
    """Smooth random images: waves of a few frequencies in each channel, and a little noise."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 2 * np.pi, side)
    frequencies, phases = rng.integers(1, 3, (2, n, CHANNELS, 1, 1)), rng.uniform(0, 2 * np.pi, (2, n, CHANNELS, 1, 1))
    down, across = (np.sin(f * axis + p) for f, p, axis in zip(frequencies, phases, (grid[:, None], grid), strict=True))
    return (down * across / 2 + 0.05 * rng.standard_normal((n, CHANNELS, side, side))).astype(np.float32)


def make(side: int, steps: int, width: int, gradient: Any = "store"):
    return flows.glow(
        jr.key(0), shape=(CHANNELS, side, side), n_values=None, n_levels=LEVELS, n_steps=steps, nn_width=width,
        gradient=gradient,
    )  # fmt: skip


def memory_rows(x: np.ndarray, depths: tuple[int, ...], width: int, repeats: int) -> Iterator[dict[str, str]]:
    side = x.shape[-1]
    for steps in depths:
        flow = flowlib.init_from_data(make(side, steps, width), x)
        fitted, _ = fit_to_data(
            jr.key(1), flow, x, max_epochs=5, batch_size=len(x) // 4, standardise=False, show_progress=False
        )
        programs = {}
        for gradient in GRADIENTS:
            structure = jax.tree.structure(make(side, steps, width, gradient))
            programs[gradient] = compiled_gradient(jax.tree.unflatten(structure, jax.tree.leaves(fitted)), x)
        times = in_turns({gradient: call for gradient, (call, _) in programs.items()}, repeats)
        stored = programs["store"][0]()
        for gradient, (call, memory) in programs.items():
            yield {
                "steps a level": str(steps),
                "gradient": gradient,
                "scratch memory, MiB": number(memory / 2**20),
                "time, ms": spread(times[gradient].milliseconds),
                "difference": f"{difference(call(), stored):.0e}",
            }


def flowlib_step(x: np.ndarray, steps: int, width: int) -> tuple[Callable[[], Any], int]:
    """A call that takes one step of Adam, and the number of parameters."""
    flow = flowlib.init_from_data(make(x.shape[-1], steps, width), x)
    params, static = partition_trainable(flow)
    optimizer = optax.adam(1e-3)
    state = [params, optimizer.init(params)]

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, moments, x):
        grad = jax.grad(lambda p: -eqx.combine(p, static).log_prob(x).mean())(params)
        updates, moments = optimizer.update(grad, moments)
        return optax.apply_updates(params, updates), moments

    rows = jnp.asarray(x)

    def call():
        state[:] = step(*state, rows)
        return state

    return call, flowlib.count_parameters(flow)


def normflows_step(x: np.ndarray, steps: int, width: int) -> tuple[Callable[[], Any], int]:
    import torch
    from normflows import MultiscaleFlow, distributions
    from normflows import flows as layers

    bases, levels, merges = [], [], []
    for level in range(LEVELS):
        # The first of its levels is the last one here.
        channels, side = CHANNELS * 2 ** (LEVELS + 1 - level), x.shape[-1] // 2 ** (LEVELS - level)
        levels.append([*(layers.GlowBlock(channels, width) for _ in range(steps)), layers.Squeeze()])
        if level:
            merges.append(layers.Merge())
            channels //= 2
        bases.append(distributions.GlowBase((channels, side, side)))
    model = MultiscaleFlow(bases, levels, merges, class_cond=False)
    rows = torch.tensor(x)
    with torch.no_grad():
        model.log_prob(rows, None)  # sets the activation normalisations
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def call():
        optimizer.zero_grad()
        loss = -model.log_prob(rows, None).mean()
        loss.backward()
        optimizer.step()

    return call, sum(p.numel() for p in model.parameters())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, help="the height and width of the images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="of the networks")
    options = arguments(__doc__, parser)
    side, repeats = options.side or (8 if options.short else 16), 3 if options.short else 9
    x = images(options.batch, side)
    print(f"{machine()}\nGlow of {LEVELS} levels, width {options.width}, {options.batch} images of {x.shape[1:]}\n")
    print_table(list(memory_rows(x, (4, 16) if options.short else (4, 16, 32), options.width, repeats)))
    steps = 4 if options.short else 8
    made = {"flowlib": flowlib_step(x, steps, options.width)}
    if find_spec("normflows"):
        made["normflows"] = normflows_step(x, steps, options.width)
    times = in_turns({name: call for name, (call, _) in made.items()}, 5 * repeats)
    print(f"\nTraining with {steps} steps a level\n")
    print_table(
        [
            {
                "library": name,
                "parameters": f"{parameters:,}",
                "first step, s": number(times[name].first),
                "a step, ms": spread(times[name].milliseconds),
                "to flowlib": ratio(times[name].later, times["flowlib"].later),
            }
            for name, (_, parameters) in made.items()
        ]
    )


if __name__ == "__main__":
    main()
