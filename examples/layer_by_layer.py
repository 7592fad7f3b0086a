"""A flow of couplings and leaky rectifiers, layer by layer, on a problem in the plane whose answer is known.

x2 is N(0, 4^2) and x1 given x2 is N(x2^2 / 4, 1) (the data of Eric Jang's tutorial on normalizing flows). About half a
minute on a CPU. Prints the held-out mean log density beside the best possible one and the slopes of the rectifiers, and
draws density, layers, grids and losses. `docs/layer-by-layer.md` explains what is seen.

Usage: python examples/layer_by_layer.py [--epochs 200] [--rectifiers between] [--slope 1.0] [--seed 0]
    [--out out/layer_by_layer] [--docs]
"""

import argparse
import io
import math
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import paramax
from matplotlib.figure import Figure
from PIL import Image

from flowlib.bijections import AbstractBijection, Chain, Coupling, Invert, LeakyRelu, TanhAffine
from flowlib.distributions import StandardNormal, Transformed, with_support
from flowlib.plot import animate_layers, plot_density, plot_layers, plot_losses, plot_warped_grid
from flowlib.train import fit_to_data

N_TRAIN, N_TEST, BATCH = 1024, 20_000, 128
# Pictures of the documentation.
DOCS = ("density", "from-base", "from-data", "grids")
LIMITS = ((-4, 36), (-14, 14))
# The negative entropy of x2 and of x1 given x2, in nats.
BEST = -math.log(2 * math.pi * math.e) - math.log(4)
# Where rectifiers stand, from the data to the base: before the first coupling, between couplings, after the last.
PLACES = {"none": "", "between": "b", "data": "db", "base": "bz", "both": "dbz"}


def draw(key: jax.Array, n: int) -> jax.Array:
    """Draws of (x1, x2)."""
    key1, key2 = jr.split(key)
    x2 = 4 * jr.normal(key2, (n,))
    return jnp.stack([x2**2 / 4 + jr.normal(key1, (n,)), x2], axis=1)


def make_flow(key: jax.Array, rectifiers: str, slope: float) -> Transformed:
    """Couplings that change x1, x2, x1 and x2, written from the data to the base, with rectifiers."""
    places = PLACES[rectifiers]
    layers: list[AbstractBijection] = [LeakyRelu(slope, (2,))] if "d" in places else []
    for i, coupling_key in enumerate(jr.split(key, 4)):
        mask = [False, True] if i % 2 == 0 else [True, False]
        layers.append(
            Coupling(coupling_key, transformer=TanhAffine(), dim=2, mask=mask, nn_width=16, nn_activation=jnp.tanh)
        )
        if ("z" if i == 3 else "b") in places:
            layers.append(LeakyRelu(slope, (2,)))
    # A `Transformed` goes from the base to the data.
    return with_support(Transformed(StandardNormal((2,)), Invert(Chain(layers))))


def inner(layer: AbstractBijection) -> AbstractBijection:
    """A layer of the flow as `make_flow` wrote it, from the data to the base, with plain arrays as parameters."""
    return paramax.unwrap(layer.bijection if isinstance(layer, Invert) else layer)


def pictures(flow: Transformed, losses: Mapping[str, list[float]], x: jax.Array) -> dict[str, Figure]:
    """Figures by name."""
    density, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    plot_density(flow, data=x, limits=LIMITS, resolution=300, ax=axes[0])
    plot_density(flow, samples=len(x), key=jr.key(1), limits=LIMITS, resolution=300, ax=axes[1])
    for ax, title in zip(axes, ["density, and data", "density, and draws"], strict=True):
        ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$")

    grids, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    last = max(i for i, layer in enumerate(flow.layers) if isinstance(inner(layer), Coupling))
    reached = np.quantile(flow.layer_values(x).values[last], [0.01, 0.99], axis=0).T
    plot_warped_grid(LeakyRelu(0.4, (2,)), lines=13, ax=axes[0])
    plot_warped_grid(flow.layers[last], lines=13, limits=reached, ax=axes[1])
    plot_warped_grid(flow, lines=13, limits=(-2.2, 2.2), ax=axes[2])
    for ax, title in zip(axes, ["LeakyRelu(0.4)", f"{last}: Coupling", "the flow, base to data"], strict=True):
        ax.set(title=title)

    curves, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
    plot_losses(losses, ax=ax)
    ax.axhline(-BEST, color="0.4", linestyle=":", label="entropy of the data's distribution")
    ax.legend(frameon=False)
    return {
        "density": density,
        "from-base": plot_layers(flow, key=jr.key(2), n=2000)[0].figure,
        "from-data": plot_layers(flow, x, direction="data")[0].figure,
        "grids": grids,
        "losses": curves,
    }


def save_small(figure: Figure, path: pathlib.Path) -> None:
    """A picture of few colours, which takes a third of the space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description="A flow of couplings and leaky rectifiers, layer by layer.")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rectifiers", choices=PLACES, default="between", help="where rectifiers stand")
    parser.add_argument(
        "--slope", type=float, default=1.0, help="the first slope; with 1 the flow starts as the identity"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/layer_by_layer"))
    parser.add_argument("--docs", action="store_true", help="write the small pictures of docs/pictures too")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    data_key, test_key, flow_key, fit_key = jr.split(jr.key(options.seed), 4)
    x, test = draw(data_key, N_TRAIN), draw(test_key, N_TEST)
    flow = make_flow(flow_key, options.rectifiers, options.slope)
    steps = options.epochs * math.ceil(0.9 * N_TRAIN / BATCH)
    flow, losses = fit_to_data(
        fit_key,
        flow,
        x,
        optimizer=optax.adamw(optax.cosine_decay_schedule(1e-2, steps)),
        max_epochs=options.epochs,
        # The lowest losses come last, when the learning rate is small.
        max_patience=options.epochs,
        batch_size=BATCH,
        ema=0.99,
    )
    print(losses.report)
    print(f"mean log density of {N_TEST} held-out points: {flow.log_prob(test).mean():.3f}, at best {BEST:.3f}")
    for i, layer in enumerate(map(inner, flow.layers)):
        if isinstance(layer, LeakyRelu):
            print(f"layer {i}: slope {layer.negative_slope:.3f} from data to base")

    for name, figure in pictures(flow, losses, x).items():
        figure.savefig(options.out / f"{name}.png", dpi=150)
        if options.docs and name in DOCS:
            save_small(figure, pathlib.Path("docs/pictures") / f"layer-by-layer-{name}.png")
        plt.close(figure)
    animation = animate_layers(flow, x, frames_per_layer=6, frames_between=2, interval=80)
    animation.save(options.out / "layers.gif", writer="pillow", dpi=70)
    print(f"Pictures are in {options.out}.")


if __name__ == "__main__":
    main()
