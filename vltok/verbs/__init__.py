"""What the commands do, as functions that a notebook calls with the same arguments; the command line only calls them.

One file a verb, which holds a function of the verb's name. Such a function

- takes objects, or what names them: a bundle's path, a component's name, its `class_path` and `init_args`;
- returns a frozen dataclass that says what came of it, and writes files only where it is told to;
- prints nothing: `progress` is told how many of how many are done (`vltok.verbs.counting`), the rest is in the result,
  warned of, or logged by `vltok`'s logger;
- raises `UserError`, whose message names an argument as the command line does: `--shard-size` is `shard_size`;
- declares the options of the command line by its signature and its docstring (`vltok.verbs.options`).

`vltok/cli/<verb>.py` is then a parser, one call, and the lines that are printed of the result. What imports torch is
imported inside its `run`, once `--help` has been answered. `vltok/__init__.py` names the
functions, and imports them on first use.
"""
