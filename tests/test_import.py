"""What `import flowlib` does not do."""

import subprocess
import sys

import pytest

# With a platform that does not exist, the first thing to run on a device raises.
NO_DEVICE = "no-such-platform"

SCRIPT = """
import sys
import flowlib
{imports}
heavy = {heavy!r}
loaded = sorted(name for name in heavy if name in sys.modules)
assert not loaded, f"importing flowlib imports {{loaded}}"

import jax.numpy as jnp
try:
    jnp.zeros(1) + 1
except RuntimeError:
    print("untouched")
"""

HEAVY = ["optimistix", "lineax", "diffrax", "matplotlib", "sklearn", "scipy.stats", "numpyro", "beartype"]
MODULES = [
    "bijections",
    "distributions",
    "flows",
    "train",
    "masks",
    "plot",
    "tasks",
    "support",
    "parameters",
    "serialisation",
]


@pytest.mark.parametrize("everything", [False, True], ids=["top", "every public module"])
def test_import_touches_no_device_and_no_slow_package(everything, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", NO_DEVICE)
    imports = "\n".join(f"import flowlib.{name}" for name in MODULES) if everything else ""
    script = SCRIPT.format(imports=imports, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "untouched"


def test_version_is_a_release_number():
    import flowlib

    assert flowlib.__version__.split(".")[0].isdigit()


def test_every_public_name_is_there_at_its_first_use():
    script = """
import flowlib, sys
assert "flowlib.bijections" not in sys.modules
names = [name for name in dir(flowlib) if not name.startswith("_")]
assert {"bijections", "distributions", "flows", "train", "fit_to_data", "save", "load", "freeze"} <= set(names)
for name in names:
    assert getattr(flowlib, name) is getattr(flowlib, name)
from flowlib import fit_to_data, flows
from flowlib import *
try:
    flowlib.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "module 'flowlib' has no attribute 'nothing'"
