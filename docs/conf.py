"""The documentation site: `make docs`."""
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = 'univip_mm'
author = copyright = 'The univip_mm contributors'
release = re.search(r"'([^']+)'",
                    (ROOT / 'univip_mm/version.py').read_text())[1]
extensions = [
    'myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon',
    'sphinx.ext.viewcode'
]
exclude_patterns = ['_build', 'examples']
html_theme = 'furo'
html_title = f'univip_mm {release}'

myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings have them
autodoc_mock_imports = []
napoleon_use_rtype = False
