"""The names that a saved file may refer to: classes and functions of flowlib and the libraries it builds on.

A name never becomes an import path: it is looked up in tables that are made here, and anything else in a file
is an error. `paramax.Parameterize` calls its function when it is unwrapped, so the functions listed here
are pure mathematics: nothing that reads, writes, prints, compiles or calls another function by name.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx

# Where flowlib's own classes live. All are loaded before a class is looked up by name.
_PACKAGES = ("bijections", "constraints", "distributions", "flows", "nn", "support", "train")

# Those whose public functions may be fields. No others: `save` itself would be a public function of flowlib.
_PURE_PACKAGES = ("constraints", "nn")

_JAX_FUNCTIONS = {
    "jax.numpy": """
        abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil clip copysign cos cosh deg2rad
        divide exp exp2 expm1 fabs float_power floor fmax fmin heaviside hypot log log10 log1p log2 logaddexp
        logaddexp2 maximum minimum mod multiply nan_to_num negative positive power rad2deg reciprocal
        remainder rint round sign sin sinc sinh sqrt square subtract tan tanh trunc where
        cumprod cumsum max mean median min prod std sum var
        concatenate diag diagonal expand_dims flip moveaxis ravel reshape roll squeeze stack swapaxes transpose
        tril triu dot einsum inner matmul outer tensordot trace vdot""",
    "jax.numpy.linalg": "cholesky det inv norm",
    "jax.lax": """
        abs acos acosh add asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp cos cosh cumlogsumexp
        cumprod cumsum digamma div erf erf_inv erfc exp exp2 expm1 floor integer_pow lgamma log log1p logistic max min
        mul neg pow reciprocal rsqrt sign sin sinh sqrt square stop_gradient sub tan tanh""",
    "jax.scipy.special": "erf erfc erfinv expit log_ndtr logit ndtr ndtri xlog1py xlogy",
}


def class_name(cls: type) -> str | None:
    """The name under which a file refers to `cls`, or None for a class that has none here."""
    name = _name_in_library(cls)
    return name if name is not None and find_class(name) is cls else None


def find_class(name: str) -> type | None:
    """The class that a file calls `name`, or None if there is none that a file may name."""
    if name.partition(".")[0] not in ("equinox", "flowlib", "paramax"):
        return None
    found = _classes().get(name)
    if found is None:
        # A module may have been loaded since the table was made.
        _classes.cache_clear()
        found = _classes().get(name)
    return found


@functools.cache
def bare_classes() -> tuple[type, ...]:
    """Classes without fields that are no modules: the place holder that `equinox.nn.Shared` leaves."""
    found = getattr(sys.modules[eqx.nn.Shared.__module__], "SharedNode", None)
    return () if found is None else (found,)


def function_name(fn: Callable) -> str | None:
    """The name under which a file refers to `fn`, or None for a function that has none here."""
    return _names_by_id().get(id(fn))


def find_function(name: str) -> Callable | None:
    """The function that a file calls `name`, or None if there is none that a file may name."""
    return _functions().get(name)


def own_function_name(fn: Callable) -> str | None:
    """The name of a function that can be imported from its module, or None for lambdas, closures and methods."""
    name = getattr(fn, "__qualname__", getattr(fn, "__name__", None))
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    return name if isinstance(name, str) and getattr(module, name, None) is fn else None


@functools.cache
def _classes() -> dict[str, type]:
    for package in _PACKAGES:
        importlib.import_module(f"flowlib.{package}")
    # Private classes are needed too (the marker of a deleted state in `equinox.nn`, say), so this lists all
    # that are loaded. A name that stands for two of them stands for none.
    table: dict[str, type] = {f"equinox.nn.{cls.__name__}": cls for cls in bare_classes()}
    table["equinox.Partial"] = eqx.Partial
    ambiguous = set()
    for cls in _subclasses(eqx.Module):
        name = _name_in_library(cls)
        if name is not None and table.setdefault(name, cls) is not cls:
            ambiguous.add(name)
    return {name: cls for name, cls in table.items() if name not in ambiguous and not inspect.isabstract(cls)}


def _name_in_library(cls: type) -> str | None:
    for library in ("equinox.nn", "flowlib", "paramax"):
        if cls.__module__.startswith(f"{library}."):
            return f"{library}.{cls.__name__}"
    return "equinox.Partial" if cls is eqx.Partial else None


def _subclasses(cls: type) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


@functools.cache
def _functions() -> dict[str, Callable]:
    table = dict(_public_functions("jax.nn", defined_in="jax."))
    for module_name, names in _JAX_FUNCTIONS.items():
        module = importlib.import_module(module_name)
        # JAX renames functions now and then: those that this version lacks are left out.
        table |= {f"{module_name}.{name}": getattr(module, name) for name in names.split() if hasattr(module, name)}
    for package in _PURE_PACKAGES:
        table |= _public_functions(f"flowlib.{package}", defined_in=f"flowlib.{package}.")
    table |= _equinox_functions()
    inverse_softplus = getattr(importlib.import_module("paramax.utils"), "inv_softplus", None)
    return table | ({"paramax.inv_softplus": inverse_softplus} if inverse_softplus else {})


@functools.cache
def _names_by_id() -> dict[int, str]:
    # Reversed, so that of several names for one function the first in the table wins.
    return {id(fn): name for name, fn in reversed(_functions().items())}


def _public_functions(module_name: str, defined_in: str) -> dict[str, Callable]:
    members = sorted(vars(importlib.import_module(module_name)).items())
    return {
        f"{module_name}.{name}": value
        for name, value in members
        if name[0] != "_" and _is_function(value) and f"{value.__module__}.".startswith(defined_in)
    }


def _is_function(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value) and isinstance(getattr(value, "__module__", None), str)


def _equinox_functions() -> dict[str, Callable]:
    """The private functions that Equinox itself puts into the fields of its layers."""
    mlp = inspect.signature(eqx.nn.MLP).parameters
    table = {"equinox.identity": mlp["final_activation"].default}
    weight_norm = getattr(sys.modules[eqx.nn.WeightNorm.__module__], "_norm_except_axis", None)
    if weight_norm is not None:
        table["equinox.weight_norm"] = weight_norm
    return table
