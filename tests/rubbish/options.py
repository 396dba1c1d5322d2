"""Rubbish on the command line of every verb."""

import os
import random
from pathlib import Path

from .cases import Case
from .sound import PICTURES
from .values import LONG

_NUMBERS = (
    *("-1", "0", "1", "2", "1.5", "1e9", "1000000000", str(2**63), str(2**64), str(-(2**64)), "1" + "0" * 400, "nan"),
    *("inf", "-inf", "two", "", " ", "0x10", "1_000", "٣", "null", "None", "true", "[1]", "{}", "{a: 1}", "--", "1,2"),
)
_PATHS = (
    *(
        "nowhere",
        "runs/nope",
        "",
        " ",
        ".",
        "..",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "~",
        "$HOME",
        "tokenizer.yaml",
        "-",
    ),
    *("a\nb", "a\tb", "\x1b[31m", "pictures", "empty", "runs/tokenizer", "runs/prior", "--", "null", "None", "a" * 300),
    *(
        "hf://x/y",
        "https://127.0.0.1:9/x",
        "user/name",
        "../../..",
        "{",
        "[",
        "pictures/*",
        "a{b",
        "日本",
        "link",
        LONG,
    ),
    *("fifo", "codes/train", "shards", "runs/tokenizer/bundle", "runs/prior/bundle", "true", "3", "x.tar", "\udcff"),
)
_NAMES = (
    "cpu",
    "cuda",
    "cuda:99",
    "cuda:x",
    "mps",
    "all",
    "none",
    "train",
    "sideways",
    "TRAIN",
    "{4: 1}",
    "pipe:false",
)
_WORDS = (*_NUMBERS, *_PATHS, *_NAMES)

#: Each verb with sound arguments; what stands alone may be a path.
_SOUND = {
    "fit": ("--config=tokenizer.yaml", "--out=out"),
    "tokenize": ("--tokenizer=runs/tokenizer/bundle", "--out=out", *PICTURES),
    "detokenize": ("codes/val", "--tokenizer=runs/tokenizer/bundle", "--out=out"),
    "sample": ("--prior=runs/prior/bundle", "--tokenizer=runs/tokenizer/bundle", "--count=3", "--out=out"),
    "reconstruct": ("pictures/cat/001.png", "pictures/person", "--tokenizer=runs/tokenizer/bundle", "--out=out"),
    "pack": ("pictures", "out/%03d.tar", "--workers=0"),
    "evaluate": ("--tokenizer=runs/tokenizer/bundle", "--out=out", *PICTURES),
    "rate": ("runs/tokenizer/bundle", "--pictures=4", "--codecs=false", "--out=out", *PICTURES),
    "compare": ("evaluated/jpeg-20", "evaluated/jpeg-60", "--out=out"),
    "ablate": ("table", "--out=out", "--data.size=6.5"),
    "new": ("gate", "my-gate", "--out=out"),
    "plugins": ("gate",),
    "doctor": ("pictures", "--workers=0"),
    "info": ("runs/tokenizer/bundle",),
    "import": ("foreign.pt", "--out=out/bundle"),
    "export": ("runs/tokenizer/bundle", "out", "--to=diffusers"),
    "push": ("runs/tokenizer/bundle", "user/name"),
}
#: Options that each has besides.
_OTHERS = {
    "fit": """
        --seed_everything --resume --overwrite --model --model.learning_rate --model.betas --model.tokenizer.gate
        --model.tokenizer.quantizer.size --model.tokenizer.encoder.factors --model.tokenizer.decoder.blocks --data
        --data.root --data.size --data.batch_size --data.workers --data.val_share --data.max_corrupt --data.seed
        --trainer --trainer.max_steps --trainer.precision --trainer.devices --trainer.accelerator --trainer.max_time
        --trainer.callbacks --trainer.strategy --trainer.val_check_interval --trainer.accumulate_grad_batches
        --trainer.gradient_clip_val --trainer.limit_train_batches --trainer.num_nodes --trainer.fast_dev_run
        --trainer.logger --trainer.plugins
    """,
    "tokenize": """
        --split --format --shard-size --batch-size --device --precision --config --data --data.root --data.size
        --data.batch_size --data.workers --data.seed --data.val_share --data.val_root
    """,
    "detokenize": "--batch-size --device",
    "sample": """
        --seed --labels --batch-size --shard-size --format --device --coding-maps --guidance --temperature --top-k
        --top-p --positions --position-temperature --position-top-k --ratios --max-codes --codes --precision --count
    """,
    "reconstruct": "--tile --device",
    "pack": "--count --size-limit --seed --max-corrupt --workers",
    "evaluate": """
        --split --count --batch-size --device --features --lpips --examples --quality --codec --bits-per-pixel
        --fixed --prior --data.val_share --sampling --sampling.temperature
    """,
    "rate": """
        --training-pictures --pictures --points --codecs --examples --batch-size --device --data.root --data.val_share
    """,
    "compare": "--strange",
    "ablate": "--seeds --jobs --trainer.max_steps",
    "new": "--out",
    "plugins": "--json",
    "doctor": "--workers --picture --json",
    "info": "--trust --json",
    "import": "--from --config --averages --tokenizer --revision",
    "export": "--to --trust",
    "push": "--private --tokenizer --license --datasets --trust",
}


def option(draw: random.Random, folder: Path) -> Case:
    """A verb's sound command line with one thing wrong in it."""
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("gone")
    os.mkfifo(folder / "fifo")
    verb = draw.choice(list(_SOUND))
    arguments = list(_SOUND[verb])
    place = draw.randrange(len(arguments))
    name, equals, value = arguments[place].partition("=")
    how = draw.choice(
        [
            "value",
            "value",
            "value",
            "other",
            "other",
            "other",
            "other",
            "drop",
            "twice",
            "short",
            "misspell",
            "bare",
            "odd",
        ]
    )
    if how == "value":
        wrong = draw.choice(_WORDS if value.isdigit() else _PATHS)
        arguments[place] = f"{name}={wrong}" if equals else wrong
    elif how == "other":
        other, wrong = draw.choice(_OTHERS[verb].split()), draw.choice(_NUMBERS if draw.random() < 0.5 else _WORDS)
        arguments += draw.choice([[f"{other}={wrong}"], [other, wrong]])
    elif how == "drop":
        del arguments[place]
    elif how == "twice":
        arguments.append(draw.choice([arguments[place], f"{name}={draw.choice(_WORDS)}"]))
    elif how == "short":
        arguments[place] = f"{name[: max(len(name) - draw.choice([1, 2, 4]), 3)]}{equals}{value}"
    elif how == "misspell":
        arguments[place] = f"{name[:3]}{name[4:5]}{name[3:4]}{name[5:]}{equals}{value}"
    elif how == "bare":
        arguments[place] = draw.choice([name, f"{name}=", f"{name}.x={value}", f"{name} {value}"])
    else:
        odd = ["-", "--", "-x", "--help=3", "---", "--=", "=", "", "\n", "--no-out", "@file", "--print_config=x", LONG]
        arguments.insert(draw.randrange(len(arguments) + 1), draw.choice(odd))
    # a program's arguments hold no NUL
    arguments = [argument.replace("\0", "") for argument in arguments]
    return Case(f"{verb}: {how}", (verb, *arguments))
