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
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# The README links to CONTRIBUTING.md, which lies beside it; inherited docstrings to scikit-learn's own pages.
suppress_warnings = ["myst.xref_missing", "ref.ref"]
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
html_theme = "furo"
html_title = "mlefast"
