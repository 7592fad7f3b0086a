"""Class labels as conditions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from flowlib.bijections import (
    AbstractBijection,
    AdditiveCondition,
    Chain,
    Concatenate,
    EmbedCondition,
    Flip,
    Identity,
    InDataUnits,
    Indexed,
    Invert,
    NumericalInverse,
    Reshape,
    Sandwich,
    Scan,
    Stack,
    Vmap,
    backward,
    forward,
)
from flowlib.distributions import Dequantized, Folded, Joint, Mixture, StandardNormal, Transformed, VmapMixture
from flowlib.nn import LabelEmbedding
from flowlib.parameters import freeze
from flowlib.train import fit_to_data

X = np.zeros((3, 2))


def embedded(key, num_classes=10) -> EmbedCondition:
    shift = AdditiveCondition(eqx.nn.Linear(4, 2, key=key), (2,), (4,))
    return EmbedCondition(shift, LabelEmbedding(key, num_classes, 4), ())


def labelled(key) -> Transformed:
    return Transformed(StandardNormal((2,)), embedded(key))


def test_each_label_has_its_row_whether_an_integer_or_a_whole_number_in_floating_point(key):
    net = LabelEmbedding(key, 3, 5)
    for label in range(3):
        for kind in (int, float, np.int8, np.uint8, np.float32):
            np.testing.assert_array_equal(net(kind(label)), net.weight[label])
    grads = jax.grad(lambda net: net(jnp.asarray(1)).sum())(net)
    np.testing.assert_array_equal(grads.weight, np.eye(3)[1][:, None] * np.ones(5))
    assert LabelEmbedding(key, 300, 2)(np.uint8(200)).shape == (2,)


@pytest.mark.parametrize(
    ("label", "got"), [(12, "12"), (-1, "-1"), (10, "10"), (1.5, "1.5"), (np.nan, "nan"), (10.0, "10.0")]
)
def test_a_label_out_of_range_is_one_clear_line(label, got, key):
    message = f"^condition expected a class label from 0 to 9, got {got}\\.$"
    for call in (
        LabelEmbedding(key, 10, 4),
        lambda label: embedded(key).transform(X[0], label),
        lambda label: labelled(key).log_prob(X[0], label),
        lambda label: labelled(key).sample(key, 3, label),
    ):
        with pytest.raises(ValueError, match=message):
            call(label)


def test_the_row_of_a_label_out_of_range_is_named(key):
    with pytest.raises(ValueError, match=r"from 0 to 9, got 12 at row 1\.$"):
        labelled(key).log_prob(X, np.array([0, 12, 40]))
    with pytest.raises(ValueError, match=r"from 0 to 9, got -3 at row \(1, 0\)\.$"):
        labelled(key).sample(key, (), np.array([[0], [-3]]))


def wrapped(key):
    """What holds a labelled bijection."""
    flow = labelled(key)
    yield Transformed(flow.base_dist, Invert(Chain([flow.bijection])))
    yield Transformed(flow.base_dist, InDataUnits(flow.bijection))
    yield Transformed(flow, Identity((2,)))
    yield Dequantized(flow)
    yield VmapMixture(eqx.filter_vmap(labelled)(jr.split(key, 2)), jnp.ones(2))
    yield Mixture([flow, StandardNormal((2,))])
    yield Folded(flow)
    one = scalar(key)
    for bijection in (
        Reshape(Reshape(flow.bijection, (2, 1)), (2,)),
        Concatenate([one, one]),
        Concatenate([Identity((1,)), Chain([one])]),
        Reshape(Stack([Reshape(one, ()), Reshape(one, ())], axis=0), (2,)),
        Sandwich(flow.bijection, Flip((2,))),
        Sandwich(Flip((2,)), flow.bijection),
        Indexed(one, [1], (2,)),
        Reshape(Vmap(Reshape(one, ()), axis_size=2), (2,)),
        NumericalInverse(flow.bijection),
        Scan(eqx.filter_vmap(embedded)(jr.split(key, 3))),
        freeze(flow.bijection),
        AdditiveCondition(LabelEmbedding(key, 10, 2), (2,), ()),
        EmbedCondition(embedded(key).bijection, eqx.nn.Sequential([LabelEmbedding(key, 10, 4)]), ()),
        Passes(part=flow.bijection),
    ):
        yield Transformed(flow.base_dist, bijection)
    yield Joint([Transformed(StandardNormal((1,)), one), StandardNormal(())])


class Passes(AbstractBijection):
    """A composite of a user's own."""

    part: AbstractBijection
    shape: tuple[int, ...] = (2,)
    cond_shape: tuple[int, ...] | None = ()

    def _transform_and_log_det(self, x, condition=None):
        return forward(self.part, x, condition)

    def _inverse_and_log_det(self, y, condition=None):
        return backward(self.part, y, condition)


def scalar(key) -> EmbedCondition:
    """Of vectors of one coordinate."""
    shift = AdditiveCondition(eqx.nn.Linear(4, 1, key=key), (1,), (4,))
    return EmbedCondition(shift, LabelEmbedding(key, 10, 4), ())


def test_what_holds_a_labelled_bijection_checks_labels_too(key):
    for dist in wrapped(key):
        with pytest.raises(ValueError, match=r"from 0 to 9, got 12\.0 at row 2"):
            dist.log_prob(X, np.array([0.0, 1.0, 12.0]))
        with pytest.raises(ValueError, match=r"from 0 to 9, got 10"):
            dist.sample(key, 2, 10)


def test_labels_in_another_place_of_the_condition_are_checked_too(key):
    mapped = Vmap(scalar(key), axis_size=2, in_axes_condition=0)
    reshaped = Reshape(mapped, (2,), (1, 2))
    for bijection, labels in ((mapped, [3, 10]), (reshaped, [[3, 10]])):
        with pytest.raises(ValueError, match="from 0 to 9, got 10"):
            bijection.transform(jnp.zeros(bijection.shape), np.array(labels))


def test_a_fit_refuses_labels_out_of_range(key):
    options: Any = {"max_epochs": 1, "show_progress": False}
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(ValueError, match="class label from 0 to 9, got 10 at row 15"):
        fit_to_data(key, labelled(key), (x, np.where(np.arange(20) < 15, 3, 10)), **options)
    fit_to_data(key, labelled(key), (x, np.arange(20) % 10), **options)


def test_a_traced_label_out_of_range_gives_nan_and_leaves_the_others_alone(key):
    flow = labelled(key)
    labels = jnp.array([2, 12, -1])

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(flow, labels):
        return jnp.where((labels >= 0) & (labels < 10), flow.log_prob(X, labels), 0).sum()

    density = eqx.filter_jit(lambda flow, labels: flow.log_prob(X, labels))
    assert np.isnan(density(flow, labels)).tolist() == [False, True, True]
    value, grads = loss(flow, labels)
    np.testing.assert_allclose(value, flow.log_prob(X[0], 2), rtol=1e-6)
    rows = np.flatnonzero(np.asarray(grads.bijection.embedding_net.weight).any(1))
    assert rows.tolist() == [2]


def test_bad_sizes(key, unchecked_annotations):
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 1, got 0"):
        LabelEmbedding(key, 0, 2)
    with pytest.raises(ValueError, match=r"size must be an integer of at least 1, got 2\.5"):
        LabelEmbedding(key, 2, 2.5)  # pyright: ignore[reportArgumentType]
