"""What SECURITY.md says is never done: looked for in every line of the code, so that nobody adds it unseen."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Contracts that pytest runs pickle what they have built themselves.
SOURCES = sorted(
    path
    for folder in ("vltok", *(f"plugins/{plugin.name}/src" for plugin in (ROOT / "plugins").iterdir()))
    for path in (ROOT / folder).rglob("*.py")
    if "testing" not in path.relative_to(ROOT).parts
)
#: Calls that run what they are given.
NEVER = {
    *("eval", "exec", "compile", "__import__"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "shelve.open", "marshal.loads", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "pydoc.locate"),
    *("subprocess.run", "subprocess.call", "subprocess.check_output", "subprocess.getoutput", "shutil.unpack_archive"),
    *("read_pickle", "extractall", "extract"),
}
#: Calls that are safe with an argument.
ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
}
#: Where a name is turned into code or a process is started, and why that is safe.
ALLOWED = {
    ("vltok/pictures/formats.py", "importlib.import_module"): "Pillow's plug-ins, three names",
    ("vltok/registry.py", "importlib.import_module"): "the target of an entry point",
    ("vltok/__init__.py", "importlib.import_module"): "vltok's own modules",
    ("vltok/cli/main.py", "importlib.import_module"): "a verb, which is looked up first",
    ("vltok/verbs/ablation_jobs.py", "subprocess.Popen"): "this Python itself, without a shell",
    ("vltok/io/recipe_names.py", "importlib.import_module"): "the user's own recipe; of bundles, registered components",
    ("vltok/io/importers/tensors_only.py", "torch.load"): "its find_class gives tensors, and nothing of the file's own",
    ("vltok/verbs/resume_rules.py", "pydoc.locate"): "the recipe of the user's own run, whose classes fit builds",
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def problem(path: str, name: str, call: ast.Call) -> str | None:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if given.get("shell") == "True" or given.get("trust_remote_code") == "True":
        return "runs what it is given"
    if name in ONLY_WITH:
        argument, value = ONLY_WITH[name]
        return None if given.get(argument) == str(value) or (path, name) in ALLOWED else f"needs {argument}={value}"
    watched = name in NEVER or name.rpartition(".")[2] in {"extractall", "read_pickle"}
    watched = watched or name in ("importlib.import_module", "subprocess.Popen")
    return "runs or unpacks what it is given" if watched and (path, name) not in ALLOWED else None


def test_nothing_runs_what_a_file_holds() -> None:
    assert len(SOURCES) > 100
    found = []
    for path in SOURCES:
        where = path.relative_to(ROOT).as_posix()
        found += [
            f"{where}:{call.lineno}: {name} {said}"
            for name, call in calls(path)
            if (said := problem(where, name, call))
        ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "eval(a)",
            "pickle.load(f)",
            "torch.load(p)",
            "torch.load(p, weights_only=False)",
            "np.load(p)",
            "yaml.load(t)",
        ),
        *("tar.extractall()", "subprocess.Popen(a)", "run(a, shell=True)", "importlib.import_module(n)"),
    ],
)
def test_the_look_finds_it(text: str) -> None:
    call = ast.parse(text).body[0].value
    assert problem("vltok/new.py", ast.unparse(call.func), call)


def test_every_exception_is_still_there() -> None:
    found = {(path.relative_to(ROOT).as_posix(), name) for path in SOURCES for name, _ in calls(path)}
    assert found >= ALLOWED.keys()
