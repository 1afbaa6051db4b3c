"""``mlefast info``."""

from __future__ import annotations

import platform
from importlib import metadata

import mlefast as mf
from mlefast.cli.report import new_console

_LIBRARIES = {
    "scikit-learn": "estimators",
    "scipy": "estimators",
    "threadpoolctl": "estimators",
    "typer": "cli",
    "rich": "cli",
    "matplotlib": "cli",
    "jinja2": "cli",
    "pandas": "data",
    "pyarrow": "data",
    "pillow": "data",
    "safetensors": "data",
    "torch": "interop",
    "statsmodels": "interop",
    "cupy-cuda12x": "cuda12",
    "cupy-cuda13x": "cuda13",
}


def info() -> None:
    """Show what this installation runs on."""
    from rich.table import Table

    config = Table("setting", "value", title="mlefast", title_justify="left")
    config.add_row("python", platform.python_version())
    for setting, value in mf.show_config().items():
        config.add_row(setting, ", ".join(value) if isinstance(value, list) else str(value))
    libraries = Table("library", "version", "used by", title="libraries", title_justify="left")
    for library, extra in _LIBRARIES.items():
        libraries.add_row(library, _version(library), extra)
    console = new_console()
    console.print(config)
    console.print(libraries)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
