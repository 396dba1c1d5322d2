"""The `vltok` command: finds the verb, runs it, and turns errors into one line. Imports no torch of its own."""

import importlib
import keyword
import sys
import traceback

from vltok.cli.process import fail_in_lines, prepare, stop_by_signals
from vltok.cli.streams import print_leniently
from vltok.cli.verdicts import verdict
from vltok.errors import SaidElsewhere, one_line, unknown
from vltok.version import __version__

#: Every verb, which is a module `vltok.cli.<verb>` (`import_`) with a function `run(arguments)`, and what it does.
VERBS = {
    "fit": "Train a tokenizer, or a prior on its codes, from a recipe",
    "ablate": "Train every row of a table of ablations with several seeds, and write the table",
    "evaluate": "Measure a tokenizer, a prior or a codec, and say under which protocol",
    "rate": "Calibrate which rates a tokenizer can be asked for, and draw its rate-distortion curve",
    "compare": "Put what 'evaluate' found side by side: a table and plots",
    "reconstruct": "Encode and decode pictures, and draw where the codes went",
    "tokenize": "Write the code sequences of pictures as shards",
    "merge": "Join exports of one tokenizer, or say which parts of one are missing",
    "detokenize": "Decode code sequences to pictures",
    "compress": "Write pictures as small files of entropy-coded codes",
    "decompress": "Make pictures of such files again",
    "sample": "Draw pictures from a prior",
    "doctor": "Read through pictures before a training, and say what it would lose",
    "info": "Say what a bundle is: its size, codes, figures, and what made it",
    "import": "Write a bundle of a checkpoint of another project",
    "export": "Write a bundle as a model of another library",
    "push": "Write a bundle into a repository on the Hugging Face Hub",
    "pack": "Write a folder of pictures as webdataset shards",
    "plugins": "List the registered components, or the arguments of one",
    "recipes": "List the recipes that come with vltok, or print one",
    "new": "Write a package of your own with a component, its tests and a recipe",
}

_USAGE = """\
usage: vltok VERB [arguments]

Variable-length image tokenizers and the autoregressive priors that generate their codes.

verbs ('vltok VERB --help' explains one):
{verbs}

options:
  --help      show this
  --version   show the version
  --debug     show the traceback of an error, with any verb
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: What follows the program's name; those of the process by default.

    Returns:
        The exit code: 0 success, 1 an error, 2 wrong arguments, 130 interrupted.
    """
    if argv is None:  # the process is ours
        print_leniently()
        stop_by_signals()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if argv is None and not debug:
        fail_in_lines()
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0
    if arguments[0] == "--version":
        print(f"vltok {__version__}")
        return 0
    try:
        _run(*arguments)
    except SystemExit as stop:  # argparse: 0 after --help, 2 after an error that it has printed
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException as error:
        if debug:
            traceback.print_exc()
        line, code = verdict(error, arguments[0])
        if not isinstance(error, SaidElsewhere):
            print(f"vltok: {one_line(line)}", file=sys.stderr)
        return code
    return 0


def usage() -> str:
    """What `vltok --help` prints."""
    width = max(map(len, VERBS))
    return _USAGE.format(verbs="\n".join(f"  {verb:<{width}}   {purpose}" for verb, purpose in VERBS.items()))


def _run(verb: str, *arguments: str) -> None:
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    prepare()
    module = f"{verb}_" if keyword.iskeyword(verb) else verb
    importlib.import_module(f"vltok.cli.{module}").run(list(arguments))
