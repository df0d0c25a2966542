"""Sphinx configuration. Build with `python -m sphinx -W -b html docs <output folder>`; warnings are errors."""

from sphinx.pycode import ModuleAnalyzer

import asyncpar

project = "asyncpar"
author = "the asyncpar developers"
version = release = asyncpar.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False  # types of other projects are not linked to: the build must not need the network

html_theme = "furo"
html_title = "asyncpar"

default_role = "code"  # docstrings write `name` as Markdown does
autodoc_mock_imports = ["joblib"]  # for `asyncpar.joblib.register`; the build does not need it

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

# pmap has twelve overloads, for type checkers; a reader is better served by its one real signature.
_analyzer = ModuleAnalyzer.for_module("asyncpar._map.pmap")
_analyzer.analyze()
_analyzer.overloads.pop("pmap", None)
