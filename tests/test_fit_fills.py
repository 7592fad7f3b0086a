"""A fit fills the tree that it is given: structure before is structure after, for every constructor and kind of fit."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from flowlib import flows
from flowlib.bijections import Affine, EmbedCondition, InDataUnits
from flowlib.distributions import Dequantized, Normal, StandardNormal, Transformed, with_support
from flowlib.errors import DataWarning
from flowlib.flows import coupling_flow, masked_autoregressive_flow, simplex_flow
from flowlib.nn import LabelEmbedding
from flowlib.parameters import partition_trainable
from flowlib.support import Circle, Integers
from flowlib.train import (
    ElboLoss,
    decay_mask,
    fit_ensemble_to_data,
    fit_to_data,
    fit_to_key_based_loss,
    fit_to_variational_target,
)

RNG = np.random.default_rng(0)
X = RNG.normal(10, 3, (60, 2))
QUIET: dict[str, Any] = {"show_progress": False}
# The whole way of a fit but for its epochs, of which nothing here depends.
NO_EPOCHS: dict[str, Any] = {"max_epochs": 0, **QUIET}
SMALL: dict[str, Any] = {"flow_layers": 1, "nn_width": 4}
PARTS = RNG.dirichlet([2, 3, 4], 60)
ANGLES = RNG.uniform(-3, 3, (60, 2))
UNIT = np.stack([np.cos(ANGLES[:, 0]), np.sin(ANGLES[:, 0])], 1)
IMAGES = RNG.integers(0, 8, (60, 1, 4, 4))
IMAGE: dict[str, Any] = {"shape": (1, 4, 4), "n_levels": 1}

# The smallest of each constructor, with rows for it; `cond_dim` is 1 where one is given.
CONSTRUCTORS: dict[str, tuple[dict[str, Any], Any]] = {
    "bernstein_flow": (SMALL, X),
    "block_neural_autoregressive_flow": ({"nn_block_dim": 2}, X),
    "circular_spline_flow": ({**SMALL, "dim": 2, "circular": (True, False)}, ANGLES),
    "coupling_flow": (SMALL, X),
    "ffjord": ({"nn_width": 4, "nn_depth": 1}, X),
    "flow_plus_plus": ({**IMAGE, "n_values": 8, "nn_width": 4, "nn_depth": 1, "n_checkerboard": 1}, IMAGES),
    "gaussianization_flow": ({"flow_layers": 1}, X),
    "glow": ({**IMAGE, "n_values": None, "n_steps": 1, "nn_width": 4}, RNG.normal(5, 2, (60, 1, 4, 4))),
    "heavy_tailed_flow": (SMALL, X),
    "inverse_autoregressive_flow": (SMALL, X),
    "logistic_mixture_flow": (SMALL, X),
    "masked_autoregressive_flow": (SMALL, X),
    "neural_autoregressive_flow": (SMALL, X),
    "neural_spline_flow": (SMALL, X),
    "nice": (SMALL, X),
    "ordered_flow": ({**SMALL, "dim": 2}, np.sort(X, 1)),
    "planar_flow": ({"flow_layers": 1}, X),
    "radial_flow": ({"flow_layers": 1}, X),
    "realnvp": (SMALL, X),
    "realnvp_image": ({**IMAGE, "n_values": 8, "preprocess": "logit", "nn_width": 4, "nn_depth": 1}, IMAGES),
    "residual_flow": ({"flow_layers": 1, "nn_width": 4}, X),
    "simplex_flow": ({**SMALL, "dim": 3}, PARTS),
    "sphere_flow": ({**SMALL, "dim": 2}, UNIT),
    "sum_of_squares_flow": (SMALL, X),
    "sylvester_flow": ({"flow_layers": 1}, X),
    "triangular_spline_flow": ({"flow_layers": 1}, X),
    "unconstrained_monotonic_flow": (SMALL, X),
}
# Those whose columns have units that a fit leaves alone: angles, directions, pixels in their range.
OF_THEIR_OWN = {"sphere_flow", "flow_plus_plus", "realnvp_image"}


def build(name: str, **options: Any) -> Any:
    constructor: Callable[..., Any] = getattr(flows, name)
    given, _ = CONSTRUCTORS[name]
    if "base_dist" in inspect.signature(constructor).parameters:
        options = {"base_dist": StandardNormal((2,)), **options}
    return constructor(jr.key(0), **given, **options)


def arrays_of(dist: Any) -> list[Any]:
    return jax.tree.leaves(eqx.filter(dist, eqx.is_array))


def assert_fills(made: Any, twin: Any, fitted: Any, tmp_path: Any) -> None:
    """The structure of `made`, and a file of Equinox's own loads into a flow that was built in the same way."""
    assert jax.tree.structure(fitted) == jax.tree.structure(made)
    types = [[(leaf.shape, leaf.dtype) for leaf in arrays_of(dist)] for dist in (fitted, made)]
    assert types[0] == types[1]
    eqx.tree_serialise_leaves(tmp_path / "flow.eqx", fitted)
    again = eqx.tree_deserialise_leaves(tmp_path / "flow.eqx", twin)
    for one, other in zip(arrays_of(fitted), arrays_of(again), strict=True):
        np.testing.assert_array_equal(one, other)


def location(dist: Any) -> np.ndarray:
    units = dist.units
    assert isinstance(units, InDataUnits)
    return np.asarray(units.location.tree)


def test_every_constructor_is_among_the_cases():
    made = {name for name, item in vars(flows).items() if inspect.isfunction(item)}
    assert made == set(CONSTRUCTORS)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_fit_fills_the_tree_of_every_constructor(name, key, tmp_path):
    x = CONSTRUCTORS[name][1]
    made = build(name)
    fitted, _ = fit_to_data(key, made, x, **NO_EPOCHS)
    assert_fills(made, build(name), fitted, tmp_path)
    np.testing.assert_array_equal(arrays_of(fitted)[0], location(fitted))
    assert (location(fitted) != 0).any() == (name not in OF_THEIR_OWN)
    if name not in {"simplex_flow", "ordered_flow", "circular_spline_flow"} | OF_THEIR_OWN:
        np.testing.assert_allclose(location(fitted), x.mean(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["coupling_flow", "simplex_flow", "sphere_flow", "glow", "planar_flow"])
def test_conditions_are_filled_in_too_and_labels_are_not(name, key, tmp_path):
    x, condition = CONSTRUCTORS[name][1], RNG.integers(2000, 2021, (60, 1))
    for rows in (condition, condition.astype(float)):
        made = build(name, cond_dim=1)
        fitted, _ = fit_to_data(key, made, (x, rows), **NO_EPOCHS)
        assert_fills(made, build(name, cond_dim=1), fitted, tmp_path)
        np.testing.assert_allclose(fitted.units.cond_location.tree, condition.mean(0), rtol=1e-5)
    if name == "coupling_flow":
        embedding = LabelEmbedding(key, 3, 1)
        options: dict[str, Any] = {"cond_dim": 1, "embedding": embedding, "raw_cond_shape": ()}
        made, labels = build(name, **options), RNG.integers(0, 3, 60)
        fitted, _ = fit_to_data(key, made, (x, labels), **NO_EPOCHS)
        assert isinstance(fitted.units.bijection, EmbedCondition)
        assert_fills(made, build(name, **options), fitted, tmp_path)
        assert not fitted.units.cond_location.tree.any()


SUPPORTS = [
    "positive",
    [(0, 40), "real"],
    ["circular", "real"],
    "integer",
    [Integers(-5, 40), "real"],
    Circle(0.0, 60.0),
]


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_the_support_of_a_constructor_of_a_function_and_of_a_fit_are_one(support, key, tmp_path):
    x = np.abs(np.round(X) if "nteger" in str(support) else X)
    if "nteger" in str(support) and support != "integer":
        x[:, 1] = np.abs(X[:, 1])

    def make(**options: Any):
        return coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), **SMALL, **options)

    by_constructor = fit_to_data(key, make(support=support), x, **NO_EPOCHS)[0]
    assert_fills(make(support=support), make(support=support), by_constructor, tmp_path)
    for other in (
        fit_to_data(key, with_support(make(), support), x, **NO_EPOCHS)[0],
        fit_to_data(key, make(), x, support=support, **NO_EPOCHS)[0],
    ):
        assert eqx.tree_equal(by_constructor, other)
    assert isinstance(by_constructor, Dequantized) == ("nteger" in str(support))


def test_every_kind_of_fit_fills(key, tmp_path):
    def make(key=None):
        return coupling_flow(jr.key(0) if key is None else key, base_dist=StandardNormal((2,)), **SMALL)

    file = np.memmap(tmp_path / "rows", X.dtype, "w+", shape=X.shape)
    file[:] = X
    mesh = jax.make_mesh((1,), ("data",))
    for data, options in [
        ([(X[:30],), (X[30:],)], {}),
        (lambda: iter([X[:30], X[30:]]), {}),
        (file, {}),
        (X, {"mesh": mesh}),
        (X, {"checkpoint": tmp_path / "checkpoints"}),
        (X, {"checkpoint": tmp_path / "checkpoints"}),
    ]:
        fitted, _ = fit_to_data(key, make(), data, **options, **NO_EPOCHS)
        assert_fills(make(), make(), fitted, tmp_path)
        # Of a file, the rows for training alone.
        np.testing.assert_allclose(location(fitted), X.mean(0), rtol=0.02 if data is file else 1e-5)
    mixture, _ = fit_ensemble_to_data(key, make, X, members=3, support="real", **NO_EPOCHS)
    stacked: Any = eqx.filter_vmap(make)(jr.split(jr.split(key)[0], 3))
    assert jax.tree.structure(mixture.dist) == jax.tree.structure(stacked)
    np.testing.assert_allclose(location(mixture.dist), np.tile(X.mean(0), (3, 1)), rtol=1e-5)
    target = Normal(jnp.zeros(2)).log_prob
    for fitted in (
        fit_to_variational_target(key, make(), target, steps=0, **QUIET)[0],
        fit_to_key_based_loss(key, make(), loss_fn=ElboLoss(target, 2), steps=0, **QUIET)[0],
    ):
        assert_fills(make(), make(), fitted, tmp_path)


def test_ensembles_on_sets_and_with_supports_are_filled(key):
    fitted, _ = fit_ensemble_to_data(key, lambda key: simplex_flow(key, dim=3, **SMALL), PARTS, members=2, **NO_EPOCHS)
    one, _ = fit_to_data(key, simplex_flow(key, dim=3, **SMALL), PARTS, **NO_EPOCHS)
    np.testing.assert_allclose(location(fitted.dist), np.stack([location(one)] * 2))
    fitted, _ = fit_ensemble_to_data(
        key, lambda key: coupling_flow(key, base_dist=StandardNormal((2,)), **SMALL), np.exp(X / 10),
        members=2, support="positive", **NO_EPOCHS,
    )  # fmt: skip
    np.testing.assert_allclose(location(fitted.dist), np.tile(X.mean(0) / 10, (2, 1)), rtol=1e-5)


def test_masks_labels_and_static_halves_made_before_a_fit_are_of_use_after_it(key):
    made = coupling_flow(key, base_dist=StandardNormal((2,)), **SMALL)
    params, static = partition_trainable(made)
    optimizer = optax.adamw(1e-3, weight_decay=1e-2, mask=decay_mask(params))
    labels = jax.tree.map(lambda leaf: "all", params)
    by_label = optax.multi_transform({"all": optax.adam(1e-3)}, labels)
    for given in (optimizer, by_label):
        fitted, _ = fit_to_data(key, made, X, optimizer=given, max_epochs=1, **QUIET)
    trained, kept = partition_trainable(fitted)
    # The parameters fit into the flow as built; its units are in the other half.
    assert jax.tree.structure(eqx.combine(trained, static)) == jax.tree.structure(made)
    np.testing.assert_array_equal(eqx.combine(trained, kept).log_prob(X), fitted.log_prob(X))


def test_a_model_of_the_users_own_keeps_its_attributes(key):
    model = Transformed(Normal(jnp.zeros(2)), Affine(jnp.zeros(2), jnp.ones(2)))
    x = RNG.normal(0.3, 1, (60, 2))
    fitted, _ = fit_to_data(key, model, x, learning_rate=1e-2, max_epochs=20, **QUIET)
    assert isinstance(fitted.bijection, Affine)
    assert (fitted.bijection.loc != 0).all()
    with pytest.warns(DataWarning, match=r"columns 0, 1 .*It has no units.*with_support"):
        fit_to_data(key, model, X, **NO_EPOCHS)
    with pytest.warns(DataWarning, match=r"far from the Normal .*begin with parameters near"):
        fit_to_data(key, Normal(jnp.zeros(2)), X, **NO_EPOCHS)
    # Far from standard, and where the distribution lies.
    fit_to_data(key, Normal(jnp.full(2, 10.0), jnp.full(2, 3.0)), X, **NO_EPOCHS)
    in_units, _ = fit_to_data(key, with_support(model), X, **NO_EPOCHS)
    np.testing.assert_allclose(location(in_units), X.mean(0), rtol=1e-5)


def test_rows_of_another_scale_warn_with_the_column_and_again_sets_the_units_anew(key):
    """Rows of standard deviation 1000, then 10, then 0.1: refitted as good as built anew."""
    flow = coupling_flow(key, base_dist=StandardNormal((2,)), **SMALL)
    wide, _ = fit_to_data(key, flow, RNG.normal(0, 1000, (300, 2)), **NO_EPOCHS)
    narrow = RNG.normal(0, 0.1, (300, 2))
    with pytest.warns(DataWarning, match=r'columns 0, 1 \(counted from zero\).*standardise="again"'):
        kept, _ = fit_to_data(key, wide, narrow, **NO_EPOCHS)
    np.testing.assert_array_equal(location(kept), location(wide))
    again, _ = fit_to_data(key, wide, narrow, standardise="again", **NO_EPOCHS)
    anew, _ = fit_to_data(key, flow, narrow, **NO_EPOCHS)
    assert eqx.tree_equal(again, anew)
    np.testing.assert_allclose(again.log_prob(narrow).mean(), 2 * (-0.5 * np.log(2 * np.pi * 0.01) - 0.5), atol=0.2)
    # One column alone, by location; and a condition.
    moved = RNG.normal(0, 1000, (300, 2)) + [0, 4000]
    with pytest.warns(DataWarning, match=r"in column 1 \(counted"):
        fit_to_data(key, wide, moved, **NO_EPOCHS)
    conditional = masked_autoregressive_flow(key, base_dist=StandardNormal((2,)), cond_dim=1, **SMALL)
    c = RNG.normal(0, 1, (60, 1))
    once, _ = fit_to_data(key, conditional, (X, c), **NO_EPOCHS)
    fit_to_data(key, once, (X, 2 * c), **NO_EPOCHS)
    with pytest.warns(DataWarning, match=r"condition does not suit.*in column 0"):
        fit_to_data(key, once, (X, c + 10), **NO_EPOCHS)
    anew, _ = fit_to_data(key, once, (X, c + 10), standardise="again", **NO_EPOCHS)
    np.testing.assert_allclose(cast(InDataUnits, anew.units).cond_location.tree, (c + 10).mean(0), rtol=1e-5)


def test_a_file_without_units_is_refused_and_not_misread(key, tmp_path):
    """Equinox's reader ignores what is left at the end of a file, so that what is new comes first."""
    made = coupling_flow(key, base_dist=StandardNormal((2,)), **SMALL)
    bare = Transformed(made.base_dist, cast(InDataUnits, made.units).bijection)
    for written, read in [(bare, made), (made, bare)]:
        eqx.tree_serialise_leaves(tmp_path / "flow.eqx", written)
        with pytest.raises(RuntimeError, match=r"shape|leaf"):
            eqx.tree_deserialise_leaves(tmp_path / "flow.eqx", read)


def test_flows_onto_sets_of_their_own_refuse_another_support(key):
    for name in ("simplex_flow", "ordered_flow", "sphere_flow"):
        with pytest.raises(TypeError, match=f"{name} has a support of its own"):
            getattr(flows, name)(key, dim=3, support="positive")
    fitted, _ = fit_to_data(key, coupling_flow(key, base_dist=StandardNormal((2,)), **SMALL), X, **NO_EPOCHS)
    with pytest.raises(ValueError, match="earlier fit"):
        with_support(fitted, "positive")
