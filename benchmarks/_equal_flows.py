"""Whole flows, their networks with equal weights: coupling layers and masked autoregressive ones."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from paramax import Parameterize

from _pair import Pair
from flowlib.bijections import (
    AbstractBijection,
    Affine,
    Chain,
    Coupling,
    Invert,
    MaskedAutoregressive,
    Permute,
    RationalQuadraticSpline,
)
from flowlib.distributions import StandardNormal, Transformed
from flowlib.flows import coupling_flow, masked_autoregressive_flow
from flowlib.parameters import partition_trainable

DIM, COND_DIM, LAYERS, WIDTH = 6, 2, 3, 32
HALF = DIM // 2
SIZES = {"base_dist": StandardNormal((DIM,)), "flow_layers": LAYERS, "nn_width": WIDTH, "nn_depth": 2}


def sigmoid_scale(raw):
    """The scale of nflows' coupling."""
    return jax.nn.sigmoid(raw + 2) + 1e-3


def softplus_scale(raw):
    """The scale of nflows' autoregressive layer."""
    return jax.nn.softplus(raw) + 1e-3


def soft_clipped_scale(raw):
    """The scale of zuko, within (1/1000, 1000)."""
    return jnp.exp(raw / (1 + jnp.abs(raw) / math.log(1000)))


def nflows_coupling(rng, rows) -> Pair:
    from nflows.transforms.coupling import AffineCouplingTransform

    from _torch_networks import same_mlp

    # All shifts and then all scales, where flowlib has the two of one coordinate after the other.
    order = np.arange(2 * HALF).reshape(HALF, 2).T.ravel()

    def same_layer(layer):
        network = same_mlp(layer.conditioner, order)
        return AffineCouplingTransform((np.arange(DIM) >= HALF).astype(int), lambda *_: network)

    flow = coupling_flow(jr.key(0), transformer=affine(sigmoid_scale), **SIZES)
    return _nflows(drawn(flow, rng), same_layer, rng, rows)


def normflows_coupling(rng, rows) -> Pair:
    import normflows as nf

    from _torch_networks import on_rows, same_mlp

    ours, theirs = [], []
    for key in jr.split(jr.key(0), LAYERS):
        layer = couple(key, affine(jnp.exp), rng)
        ours += [layer, Permute(np.roll(np.arange(DIM), HALF))]
        theirs += [nf.flows.AffineCouplingBlock(same_mlp(layer.conditioner, np.arange(2 * HALF)))]
        theirs += [nf.flows.Permute(DIM, mode="swap")]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(DIM, trainable=False), theirs)
    to_data = Chain(ours)
    x = rng.normal(size=(rows, DIM))
    flow = Transformed(StandardNormal((DIM,)), to_data)
    return Pair(to_data, on_rows(model.forward_and_log_det), x, flow=flow, log_prob=on_rows(model.log_prob))


def distrax_coupling(rng, rows) -> Pair:
    import distrax

    knots, interval = 8, 3.0
    spline = RationalQuadraticSpline(knots=knots, interval=interval, min_width=1e-4, min_derivative=1e-4)

    def make_spline(params):
        return distrax.RationalQuadraticSpline(params, -interval, interval, boundary_slopes="identity")

    def make_conditioner(network, mask):
        def conditioner(x):
            params = jax.vmap(network)(x[:, mask]).reshape(len(x), HALF, -1)
            # The slopes at the ends are there, and not used.
            params = jnp.insert(params, jnp.array([2 * (knots + 1), params.shape[-1]]), 7.0, axis=-1)
            return jnp.zeros((len(x), DIM, params.shape[-1])).at[:, ~mask].set(params)

        return conditioner

    ours, theirs = [], []
    for i, key in enumerate(jr.split(jr.key(0), LAYERS)):
        mask = np.arange(DIM) % 2 == i % 2
        # Gentler, for the inverse of a row where the slope is 1e-15 would say nothing.
        layer = couple(key, spline, rng, mask, noise=0.1)
        ours.append(layer)
        theirs.append(distrax.MaskedCoupling(mask, make_conditioner(layer.conditioner, mask), make_spline))
    # A chain of distrax applies its last bijector first.
    to_noise = distrax.Chain(theirs[::-1])
    base = distrax.MultivariateNormalDiag(jnp.zeros(DIM), jnp.ones(DIM))
    log_prob = distrax.Transformed(base, distrax.Inverse(to_noise)).log_prob
    return pair(Chain(ours), to_noise.forward_and_log_det, log_prob, rng, rows)


def zuko_autoregressive(rng, rows) -> Pair:
    import zuko.flows

    from _torch_networks import SquashFirst, fill_masked, on_rows, tensor

    flow = zuko.flows.MAF(DIM, COND_DIM, transforms=LAYERS, hidden_features=(WIDTH, WIDTH))
    ours = []
    for key, theirs in zip(jr.split(jr.key(0), LAYERS), flow.transform.transforms, strict=True):
        order = np.argsort(theirs.order.numpy())
        layer = autoregressive(key, affine(soft_clipped_scale), rng, order=order, cond_dim=COND_DIM)
        fill_masked(list(theirs.hyper)[::2], layer.conditioner, np.arange(2 * DIM))
        theirs.hyper = SquashFirst(theirs.hyper)
        ours.append(layer)
    condition = rng.normal(size=(rows, COND_DIM))
    theirs = flow(tensor(condition))
    made = pair(Chain(ours), on_rows(theirs.transform.call_and_ladj), on_rows(theirs.log_prob), rng, rows)
    return made._replace(condition=condition)


def nflows_autoregressive(rng, rows) -> Pair:
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform

    from _torch_networks import SquashFirst, fill_masked

    # The scale of each coordinate before its shift.
    order = np.arange(2 * DIM).reshape(DIM, 2)[:, ::-1].ravel()

    def same_layer(layer):
        like = MaskedAffineAutoregressiveTransform(DIM, WIDTH, num_blocks=1, use_residual_blocks=False)
        made = like.autoregressive_net
        fill_masked([made.initial_layer, made.blocks[0].linear, made.final_layer], layer.conditioner, order)
        like.autoregressive_net = SquashFirst(made)
        return like

    flow = masked_autoregressive_flow(jr.key(0), transformer=affine(softplus_scale), **SIZES)
    return _nflows(drawn(flow, rng), same_layer, rng, rows)


def _nflows(flow, same_layer, rng, rows):
    """The pair of a flow of flowlib's constructors and the same one in nflows."""
    from nflows.distributions.normal import StandardNormal as Normal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import Permutation

    from _torch_networks import on_rows, tensor

    def same(layer):
        return Permutation(tensor(layer.permutation)) if isinstance(layer, Permute) else same_layer(layer)

    # Those of flowlib go from the base to the data, and are inverses.
    layers = [layer.bijection for layer in reversed(flow.layers[:-1])]
    parts = [part for each in layers for part in (each.bijections if isinstance(each, Chain) else [each])]
    theirs = CompositeTransform([same(part) for part in parts])
    x = 2 * rng.normal(size=(rows, DIM))
    log_prob = on_rows(Flow(theirs, Normal([DIM])).log_prob)
    return Pair(flow.units.bijection.bijection, on_rows(theirs.forward), x, flow=flow, log_prob=log_prob)


def pair(to_noise: Chain, theirs, log_prob, rng, rows) -> Pair:
    """The pair of two flows that go from the data to the noise."""
    x = 2 * rng.normal(size=(rows, DIM))
    flow = Transformed(StandardNormal((DIM,)), Invert(to_noise))
    return Pair(to_noise, theirs, x, flow=flow, log_prob=log_prob)


def affine(scale) -> Affine:
    """An affine transformer with its scale made by this function."""
    return eqx.tree_at(lambda affine: affine.scale, Affine(), Parameterize(scale, jnp.zeros(())))


def couple(key, transformer: AbstractBijection, rng, mask=None, noise=0.2) -> Coupling:
    mask = np.arange(DIM) < HALF if mask is None else mask
    return drawn(Coupling(key, transformer=transformer, dim=DIM, mask=mask, nn_width=WIDTH, nn_depth=2), rng, noise)


def autoregressive(key, transformer: AbstractBijection, rng, **options) -> MaskedAutoregressive:
    sizes = {"dim": DIM, "nn_width": WIDTH, "nn_depth": 2}
    return drawn(MaskedAutoregressive(key, transformer=transformer, **sizes, **options), rng)


def drawn(module, rng, noise=0.2):
    """The layer or flow with weights far from those at the start, where its networks give 0."""
    trained, rest = partition_trainable(module)
    return eqx.combine(jax.tree.map(lambda leaf: leaf + noise * rng.normal(size=leaf.shape), trained), rest)
