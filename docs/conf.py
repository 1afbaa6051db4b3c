"""Sphinx: sphinx-build -W docs build/docs."""

import mlefast

project = "mlefast"
copyright = "the mlefast developers"
version = release = mlefast.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
html_theme = "furo"
html_title = "mlefast"
