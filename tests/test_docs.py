"""Every Python block of the documentation runs: a page's blocks in order, in one namespace, in an empty folder."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# The pages are written for the default precision.
pytestmark = pytest.mark.skipif(bool(jax.config.read("jax_enable_x64")), reason="pages run once, in float32")

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[int, str]]:
    """The first line and the code of each Python block."""
    found = BLOCK.finditer(text)
    return [(text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"])) for match in found]


def run(path: Path, found: list[tuple[int, str]]) -> None:
    namespace = {"__name__": "__main__"}
    for line, code in found:
        # Blank lines in front, so that a traceback names the line of the page.
        program = compile("\n" * line + code, str(path), "exec")
        # A user's own code, and optax, need not keep to strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            exec(program, namespace)


def runnable() -> Iterator[tuple[str, Path, str]]:
    """Everything with Python blocks: the pages, and the docstrings of the package."""
    for page in PAGES:
        yield str(page.relative_to(ROOT)), page, page.read_text()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield f"{path.stem}.{getattr(node, 'name', '')}", path, ast.get_docstring(node) or ""


WITH_BLOCKS = {name: (path, found) for name, path, text in runnable() if (found := blocks(text))}


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_code_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(*WITH_BLOCKS[name])


def test_no_block_escapes_the_tests():
    fence = re.compile(r"^ *```(py|pycon|ipython|Python)\b", re.MULTILINE)
    assert not [
        str(page.relative_to(ROOT)) for page in PAGES if fence.search(page.read_text().replace("```python", ""))
    ]


def test_relative_links_lead_somewhere():
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken, broken
