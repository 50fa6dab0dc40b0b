"""How Sphinx builds the site; `docs/build.py` gathers the pages and starts it."""

import re
import sys
from pathlib import Path

from sphinx.search.en import SearchEnglish

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from qwen_course import __version__  # noqa: E402

project = "Qwen course"
author = "The qwen-course authors"
copyright = "the qwen-course authors, Apache-2.0"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design"]

# Warnings stop the build, but for one kind: two modules have a class of one name, and a
# signature that names it gets no link.
suppress_warnings = ["ref.python"]

# Pages. The course writes no formulas in TeX, so a "$" is a dollar, and no page needs
# MathJax. A heading's anchor is its text in small letters, as on GitHub.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Notebooks, as they were run: no cell runs here, and widgets are stored as tables.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show the set-up cell"
nb_code_prompt_hide = "Hide the set-up cell"

# The reference.
add_module_names = False
autodoc_use_type_comments = False  # there are none
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

# The look. Nothing here may name another machine: the site works from a folder.
html_theme = "sphinx_book_theme"
html_title = html_short_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_copy_source = html_show_sourcelink = False
html_use_index = html_domain_indices = False  # the search finds every name
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "collapse_navbar": True,
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

CJK = "\u3040-\u30ff\u3400-\u9fff"


class Search(SearchEnglish):
    """English, and the languages that write without spaces, sign by sign.

    Sphinx takes a run of Chinese signs for one word, which nobody types as a whole.
    """

    _word_re = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
    js_splitter_code = (
        f"function splitQuery(query) {{ return query.match(/[{CJK}]|"
        rf"(?:(?![{CJK}])[\p{{L}}\p{{N}}\p{{M}}_])+/gu) || []; }}"
    )


def as_rst(app, what, name, obj, options, lines):
    """Turn a docstring of the course, in place, into what Sphinx reads.

    There `this` is code, what follows "Example:" is code, and nothing else is a mark.
    """
    blocks = re.split(r"\n\n", "\n".join(lines))
    lines[:] = "\n\n".join(map(block_as_rst, blocks)).split("\n")


def block_as_rst(block):
    """Return one paragraph, or one piece of code, as Sphinx reads it.

    >>> block_as_rst("`n` rows of <|im_end|>")
    '``n`` rows of <\\\\|im_end\\\\|>'
    """
    if block.startswith(">>>"):
        return block
    if block.startswith("    "):
        return f"::\n\n{block}"
    first, newline, code = block.partition("\n")
    if first in ("Example:", "Examples:"):
        return f"{first}:{newline}\n{code}"
    parts = re.split(r"(?<!`)`([^`]+)`(?!`)", block)  # the odd ones are code
    for number, part in enumerate(parts):
        if number % 2:
            after = "\\ " if parts[number + 1][:1].isalnum() else ""
            parts[number] = f"``{part}``{after}"
        else:
            parts[number] = re.sub(r"[*|`\\]|_(?!\w)", r"\\\g<0>", part)
    return "".join(parts)


def setup(app):
    app.add_search_language(Search)
    app.connect("autodoc-process-docstring", as_rst)
