"""What the scripts print: the machine, and tables in Markdown."""

import argparse
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

PACKAGES = ("jax", "equinox", "flowlib", "flowjax")


def arguments(description: str, parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The command line: `--short`, and what the parser given has."""
    parser = parser or argparse.ArgumentParser()
    parser.description = description.splitlines()[0]
    parser.add_argument("--short", action="store_true", help="fewer cases and repeats")
    return parser.parse_args()


def machine() -> str:
    """Processor, device, versions, and how busy the machine was, in one line."""
    device = jax.devices()[0]
    parts = [f"{_processor()}, {os.cpu_count()} cores", f"on {device.platform} ({device.device_kind})"]
    parts += [f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))]
    return ", ".join([*parts, f"load average {os.getloadavg()[0]:.1f}"])


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """A row is its cells by the names of the columns."""
    header = list(rows[0])
    lines = [header, *([row[name] for name in header] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def number(value: float) -> str:
    """Three digits, without an exponent where one can do without."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, and the quartiles where there are enough values for them."""
    median = number(statistics.median(values))
    if len(values) < 3:
        return median
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median} ({number(low)} to {number(high)})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The ratio of the medians."""
    return f"{number(statistics.median(slow) / statistics.median(fast))}x"


def side_by_side(ours: Sequence[float], theirs: Sequence[float], unit: str) -> dict[str, str]:
    """The cells of a row that compares the two libraries."""
    return {
        f"flowlib, {unit}": spread(ours),
        f"FlowJAX, {unit}": spread(theirs),
        "FlowJAX / flowlib": ratio(theirs, ours),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return ""
