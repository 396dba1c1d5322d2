"""`vltok recipes`: the recipes that come with vltok, and the text of one."""

from __future__ import annotations

import argparse

from vltok.io.recipe_files import recipe_text, shipped_recipes

_DESCRIPTION = """\
List the recipes that come with vltok, or print one: 'vltok recipes quickstart > mine.yaml'. A recipe that changes
another names it as its base, which is found wherever the copy lies; 'vltok fit --config mine.yaml --print_config' shows
the whole.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok recipes` with what follows the verb.

    Raises:
        UserError: There is no such recipe.
    """
    parser = argparse.ArgumentParser(prog="vltok recipes", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("name", nargs="?", help="the recipe to print; all are listed without it")
    name = parser.parse_args(arguments).name
    if name is not None:
        print(recipe_text(name), end="")
        return
    listed = shipped_recipes()
    width = max(map(len, listed))
    for recipe, title in listed.items():
        print(f"{recipe:<{width}}  {title}")
