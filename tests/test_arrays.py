"""What becomes an array of real numbers, with which values, and what is refused."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from flowlib._arrays import check_key, real_array
from flowlib.bijections import Affine
from flowlib.distributions import MultivariateNormal, Normal, StandardNormal, Transformed, init_from_data
from flowlib.flows import coupling_flow
from flowlib.nn import LabelEmbedding

FLOAT = np.dtype(jnp.result_type(float))
WIDE = bool(jax.config.read("jax_enable_x64"))
MASKED = np.ma.masked_equal(np.array([[1.0, 2.0], [3.0, -999.0], [-999.0, 4.0]]), -999.0)


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (3_000_000_000, 3e9),
        ([2**40, -(2**35)], [2.0**40, -(2.0**35)]),
        (np.array([2**63 + 2**40], np.uint64), [2.0**63 + 2**40]),
        (np.arange(3, dtype=">i4"), [0, 1, 2]),
        (np.array([0.5, 3.0], ">f8"), [0.5, 3.0]),
        (np.array([0.5, 3.0], ">f4"), [0.5, 3.0]),
        (np.array([0.5, 3.0], np.longdouble), [0.5, 3.0]),
        (np.array([(1, 2.5), (3, 4.5)], [("a", ">i4"), ("b", "f8")]), [[1, 2.5], [3, 4.5]]),
        (np.array([((1, 2), 0.5)], [("v", "i4", (2,)), ("w", "f4")]), [[1, 2, 0.5]]),
        (np.array([1, 2.5, True, Fraction(1, 4), Decimal("0.5")], object), [1, 2.5, 1, 0.25, 0.5]),
        ([10**20], [1e20]),
        (MASKED[:1], [[1.0, 2.0]]),
    ],
)
def test_numbers_of_every_kind_are_read_as_they_are(value, numbers):
    array = real_array(value, "x")
    assert array.dtype in (FLOAT, np.float32)
    np.testing.assert_allclose(np.asarray(array, np.float64), numbers, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, ">i8"])
def test_labels_stay_integers_unless_they_are_too_wide(dtype):
    assert jnp.issubdtype(real_array(np.array([1, 2], dtype), "x", keep_integers=True).dtype, jnp.integer)
    wide = real_array(np.array([1, 2**40], dtype), "x", keep_integers=True)
    assert wide.dtype == (np.dtype(dtype).newbyteorder("=") if WIDE else np.float32)
    np.testing.assert_array_equal(np.asarray(wide, np.float64), [1, 2.0**40])


def test_a_density_at_a_wide_integer():
    assert Normal(3e9, 1e9).log_prob(3_000_000_000) == pytest.approx(scipy.stats.norm.logpdf(0) - np.log(1e9))
    assert Normal(3_000_000_000, 1_000_000_000).loc == pytest.approx(3e9)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: StandardNormal((2,)).log_prob(x),
        lambda x: Normal(x, 1.0),
        lambda x: Normal(0.0, abs(x)),
        lambda x: Affine(x, 1.0),
        lambda x: MultivariateNormal(jnp.zeros(2), x[1:]),
        lambda x: init_from_data(Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), 1.0)), x),
        lambda x: real_array(list(x), "x"),
        lambda x: real_array([[1.0, 2.0], x[1]], "x"),
    ],
)
def test_what_is_under_a_mask_is_never_read(call):
    with pytest.raises(ValueError, match=r"has a masked number at row \d"):
        call(MASKED)


def test_a_masked_number_is_named_by_row_and_column():
    with pytest.raises(ValueError, match=r"x has a masked number at row 1, column 1 .*; 2 of 3 rows have such"):
        StandardNormal((2,)).log_prob(MASKED)
    condition = np.ma.masked_equal([[1.0], [2.0]], 2.0)
    flow = coupling_flow(jr.key(0), base_dist=StandardNormal((2,)), cond_dim=1, flow_layers=1, nn_width=4)
    for call in (flow.log_prob, lambda x, c: flow.sample(jr.key(0), 2, c)):
        with pytest.raises(ValueError, match="condition has a masked number at row 1, column 0"):
            call(np.ones((2, 2)), condition)
    with pytest.raises(ValueError, match="condition has a masked number"):
        LabelEmbedding(jr.key(0), 3, 2)(np.ma.masked_equal(1, 1))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            scipy.sparse.csr_array(np.eye(2)),
            TypeError,
            r"x expected a dense array, got a sparse csr_array: .*toarray\(",
        ),
        (np.array([(1, "a")], [("n", "i4"), ("word", "U1")]), TypeError, r'x, column 1 \("word"\), must hold real'),
        ({"a": [1.0]}, TypeError, "dtype object: dict. A dict of columns"),
        (np.array([1, None]), TypeError, "got dtype object: None at row 1"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, r"dtype datetime64\[D\]. Make it a number first"),
        (1j, TypeError, "dtype complex128. Give its real and imaginary parts"),
        ([[1.0], [1.0, 2.0]], TypeError, "ragged list"),
        (jr.key(0), TypeError, "x must hold real numbers, got dtype key"),
    ],
)
def test_what_holds_no_real_numbers_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        real_array(value, "x")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (jnp.zeros(3, jnp.uint32), r"an array of dtype uint32 and shape \(3,\)"),
        (jr.split(jr.key(0), 3), r"3 of them, of shape \(3,\)"),
    ],
)
def test_what_is_not_one_key_is_refused(key, message):
    with pytest.raises(TypeError, match=message):
        check_key(key)


def test_both_forms_of_a_key_are_taken():
    assert StandardNormal(()).sample(jr.PRNGKey(1)) == StandardNormal(()).sample(jr.key(1))
