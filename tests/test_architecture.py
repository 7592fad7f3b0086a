"""The rules of the layout: what each breaks is named in the message."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import pytest

import flowlib
from cases import BIJECTIONS, DISTRIBUTIONS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "flowlib"
MAX_LINES = 400
# Imported only inside the functions that need them: optional, or slow to import.
LAZY = {"optimistix", "lineax", "diffrax", "matplotlib", "scipy", "sklearn", "numpyro", "blackjax", "arviz", "orbax"}
LAZY |= {"pandas", "polars", "pyarrow"}
# Bases that do not say Abstract in their names.
OPEN_BASES = {"Module", "Node", "Support"}


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders or (SOURCE,) for path in folder.rglob("*.py"))


def folder_of(path: Path) -> str:
    """The folder of flowlib that a module belongs to; empty for the modules at the top and for other code."""
    return path.parent.name if SOURCE in path.parent.parents else ""


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


@functools.cache
def modules() -> tuple[types.ModuleType, ...]:
    names = [info.name for info in pkgutil.walk_packages(flowlib.__path__, "flowlib.")]
    return (flowlib, *map(importlib.import_module, names))


@functools.cache
def public_modules() -> tuple[types.ModuleType, ...]:
    return tuple(module for module in modules() if not re.search(r"\._", module.__name__))


def exported(module: types.ModuleType) -> dict[str, object]:
    """The public classes and functions of a module: in a package those it re-exports, else those it defines."""

    def belongs(origin: str) -> bool:
        return origin.startswith(module.__name__) if hasattr(module, "__path__") else origin == module.__name__

    return {
        name: value
        for name, value in ((name, getattr(module, name)) for name in dir(module) if not name.startswith("_"))
        if callable(value) and belongs(getattr(value, "__module__", None) or "")
    }


@functools.cache
def classes() -> tuple[type, ...]:
    found = {cls for module in modules() for cls in vars(module).values() if inspect.isclass(cls)}
    return tuple(sorted((c for c in found if c.__module__.split(".")[0] == "flowlib"), key=lambda c: c.__qualname__))


def may_be_subclassed(cls: type) -> bool:
    return cls.__name__.startswith("Abstract") or cls.__name__ in OPEN_BASES


def is_abstract(cls: type) -> bool:
    # Equinox keeps abstract variables beside Python's abstract methods.
    names = ("__abstractmethods__", "__abstractvars__", "__abstractclassvars__")
    return any(getattr(cls, name, ()) for name in names)


@functools.cache
def built_cases() -> dict[str, tuple[object, frozenset[type]]]:
    """Each case by its name, as shapes only (nothing is computed), with the types of everything inside."""
    built = {}
    for case in [*BIJECTIONS, *DISTRIBUTIONS]:
        if case.name in built:
            continue
        instance = eqx.filter_eval_shape(case.make, jr.key(0))
        seen: set[type] = set()
        jax.tree.leaves(instance, is_leaf=lambda node, seen=seen: bool(seen.add(type(node))))
        built[case.name] = (instance, frozenset(seen))
    return built


@pytest.mark.parametrize("folder", ["bijections", "distributions"])
def test_every_exported_class_has_two_cases(folder):
    base = {"bijections": "AbstractBijection", "distributions": "AbstractDistribution"}[folder]
    package = importlib.import_module(f"flowlib.{folder}")
    missing = {}
    for name, cls in exported(package).items():
        if not inspect.isclass(cls) or not issubclass(cls, getattr(package, base)) or may_be_subclassed(cls):
            continue
        names = {case for case, (_, seen) in built_cases().items() if cls in seen or case.split("_")[0] == name}
        if len(names) < 2:
            missing[name] = sorted(names)
    assert not missing, f"fewer than two cases registered for {missing}"


def test_every_premade_flow_has_two_cases():
    flows = importlib.import_module("flowlib.flows")
    names = {case.name for case in DISTRIBUTIONS}
    premade = [name for name in exported(flows) if name.endswith("_flow") or name in {"nice", "realnvp"}]
    assert premade
    missing = [name for name in premade if sum(case.startswith(name) for case in names) < 2]
    assert not missing, f"fewer than two cases registered for {missing}"


def flowlib_imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def test_no_module_imports_a_private_name_of_another_folder():
    wrong = []
    for path in sources(SOURCE, ROOT / "examples", ROOT / "benchmarks"):
        inside = SOURCE in path.parents
        for node, name in flowlib_imports(parse(path)):
            assert not name.startswith("."), f"{where(path, node)}: relative import"
            parts = name.split(".")
            if parts[0] != "flowlib" or not any(part.startswith("_") for part in parts[1:] if part != "__version__"):
                continue
            shared = parts[1].startswith("_")
            if not inside or (not shared and parts[1] != folder_of(path)):
                wrong.append(f"{where(path, node)}: {name}")
    assert not wrong, "\n".join(wrong)


def private_definitions() -> dict[str, set[str]]:
    """The private functions, methods, classes and fields that each folder defines."""
    defined = defaultdict(set)
    for path in sources():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [t.id if isinstance(t, ast.Name) else getattr(t, "attr", "") for t in targets]
            else:
                continue
            defined[folder_of(path)].update(n for n in names if n.startswith("_") and not n.startswith("__"))
    return defined


def test_no_module_reaches_for_a_private_attribute_of_another_folder():
    defined = private_definitions()
    wrong = []
    for path in sources(SOURCE, ROOT / "examples", ROOT / "benchmarks"):
        own = defined[folder_of(path)] if SOURCE in path.parents else set()
        others = set().union(*defined.values()) - own
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Attribute) and node.attr in others:
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if owner not in ("self", "cls"):
                    wrong.append(f"{where(path, node)}: .{node.attr}")
    assert not wrong, "\n".join(wrong)


def test_abstract_classes_say_so_and_concrete_ones_have_no_subclasses():
    wrong = [f"{c.__qualname__} is abstract by its fields or methods" for c in classes() if is_abstract(c)]
    wrong = [line for line in wrong if not (line.startswith("Abstract") or line.split()[0] in OPEN_BASES)]
    for cls in classes():
        if issubclass(cls, eqx.Module):
            concrete = [base for base in cls.__mro__[1:] if base in classes() and not may_be_subclassed(base)]
            wrong += [f"{cls.__qualname__} subclasses the concrete {base.__qualname__}" for base in concrete]
    assert not wrong, "\n".join(wrong)


def test_what_is_called_abstract_cannot_be_instantiated():
    named = [cls for cls in classes() if cls.__name__.startswith("Abstract")]
    assert named
    assert not [cls.__qualname__ for cls in named if not is_abstract(cls)]
    wrong = []
    for path in sources():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if re.match(r"Abstract[A-Z]", name) or name in OPEN_BASES:
                    wrong.append(f"{where(path, node)}: {name}(...)")
    assert not wrong, "\n".join(wrong)


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): n for path in sources() if (n := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long, f"more than {MAX_LINES} lines: {long}"


def holds_lambda(node: ast.AST | None) -> bool:
    # A lambda that is an argument of a call is used there and then; only wrappers keep it.
    if isinstance(node, ast.Lambda):
        return True
    if isinstance(node, ast.Tuple | ast.List):
        return any(map(holds_lambda, node.elts))
    if isinstance(node, ast.IfExp):
        return holds_lambda(node.body) or holds_lambda(node.orelse)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kept = name in {"Parameterize", "partial"}
        return kept and any(map(holds_lambda, node.args))
    return False


def test_no_field_is_given_a_lambda():
    wrong = []
    for path in sources():
        for node in ast.walk(parse(path)):
            stored = None
            if isinstance(node, ast.Assign) and any(isinstance(target, ast.Attribute) for target in node.targets):
                stored = node.value
            elif isinstance(node, ast.ClassDef):
                wrong += [
                    where(path, line)
                    for line in node.body
                    if isinstance(line, ast.Assign | ast.AnnAssign) and holds_lambda(line.value)
                ]
            elif isinstance(node, ast.Call):
                stored = node
            if holds_lambda(stored):
                wrong.append(where(path, node))
    assert not wrong, "\n".join(wrong)


def functions_within(tree: object) -> Iterator[types.FunctionType | types.MethodType]:
    """Every function in the fields of a module, static ones and those inside containers included."""
    if isinstance(tree, types.FunctionType | types.MethodType):
        yield tree
    elif isinstance(tree, functools.partial):
        yield from functions_within((tree.func, *tree.args, *tree.keywords.values()))
    elif isinstance(tree, eqx.Module):
        for value in vars(tree).values():
            yield from functions_within(value)
    elif isinstance(tree, dict):
        yield from functions_within(tuple(tree.values()))
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from functions_within(value)


def test_fields_hold_module_level_functions_only():
    wrong = defaultdict(set)
    for name, (instance, _) in built_cases().items():
        for function in functions_within(instance):
            # Equinox's own networks hold a lambda of Equinox's, one and the same object in all of them.
            if function.__module__.startswith("equinox."):
                continue
            if isinstance(function, types.MethodType) or "<" in function.__qualname__:
                wrong[name].add(repr(function))
    assert not wrong, dict(wrong)


def module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run at import; not what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from module_level(child)


def test_optional_and_slow_packages_are_imported_where_they_are_used():
    wrong = []
    for path in sources():
        for node in module_level(parse(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            wrong += [f"{where(path, node)}: {name}" for name in names if name.split(".")[0] in LAZY]
    assert not wrong, "\n".join(wrong)


def docstring_of(value: object) -> str | None:
    """The docstring as written: dataclasses make one up for classes that have none."""
    doc = getattr(value, "__doc__", None)
    if inspect.isclass(value) and doc and re.match(rf"{re.escape(value.__name__)}\(", doc):
        return None
    return doc


def test_exported_names_have_docstrings():
    missing = []
    for module in public_modules():
        if not module.__doc__:
            missing.append(module.__name__)
        for name, value in exported(module).items():
            if not docstring_of(value):
                missing.append(f"{module.__name__}.{name}")
            if not inspect.isclass(value):
                continue
            for attribute, member in vars(value).items():
                if attribute.startswith("_") or not isinstance(member, types.FunctionType | property | classmethod):
                    continue
                # Documented here, at the method it overrides, or by a comment above the field it stands for.
                bases = value.__mro__
                documented = any(getattr(getattr(base, attribute, None), "__doc__", None) for base in bases)
                if not documented and not any(attribute in inspect.get_annotations(base) for base in bases[1:]):
                    missing.append(f"{module.__name__}.{name}.{attribute}")
    assert not missing, f"without a docstring: {missing}"


def test_exported_names_are_in_the_api_pages():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    entries = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    names = {f"{module.__name__}.{name}" for module in public_modules()[1:] for name in exported(module)}
    at_the_top = {f"flowlib.{name}" for name in exported(flowlib)}
    # The names at the top are those of the modules below, where they have their entries.
    tops = {f"{v.__module__}.{n}" for n, v in exported(flowlib).items()}
    assert not (unlisted := sorted(names - entries)), f"without an entry in docs/api: {unlisted}"
    assert not (stale := sorted(entry for entry in entries - names - at_the_top if entry.count("."))), (
        f"no such name: {stale}"
    )
    hidden = sorted(n for n in tops if n.split(".")[-1] not in {entry.split(".")[-1] for entry in entries})
    assert not hidden, f"exported at the top only: {hidden}"
