"""How Sphinx builds these pages: `make docs`."""

import sys
from pathlib import Path

from vltok.version import __version__

sys.path.append(str(Path(__file__).parent))

project = "vltok"
copyright = "the authors of vltok"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "documenting"]
exclude_patterns = ["documenting", "runs"]  # what the tutorial leaves where it is run here
suppress_warnings = ["myst.header"]  # a page of the repository may begin below a first heading

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries = False  # they would stand in the navigation of every page, which takes most of the build
maximum_signature_line_length = 72
napoleon_use_ivar = True  # what is an attribute and a member stands once
napoleon_use_rtype = False
# a name in single backticks is a link where there is something of that name
default_role = "py:obj"

html_theme = "furo"
html_title = f"vltok {__version__}"
html_static_path = ["_static"]
html_css_files = ["figures.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
