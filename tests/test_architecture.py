"""The rules of docs/architecture.md, read from the code: rooms, cycles, sizes, plain words."""

import ast
import functools
import itertools
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "tif").rglob("*.py"))

# A room imports only from rooms that stand above it; commands (files in tif/ itself) from all.
ROOMS = (
    "utils", "config", "data", "records", "scoring", "models", "probes", "losses", "identifiers",
    "metrics", "evaluation", "reports", "training", "audit", "sweep", "bench", "api",
)  # fmt: skip
COMMANDS = len(ROOMS)
VERSION = "tif._version"
FIRST = ("tif", "tif.utils.interrupts")  # so that Ctrl-C is one line while the rest is imported
FILE_MODULES = {"json", "pathlib", "os", "io", "shutil", "tempfile", "pickle", "csv", "safetensors"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def running_nodes(tree, inside_functions=True):
    """Yield every node that runs: none under TYPE_CHECKING, on request none inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_function and not inside_functions:
            continue
        yield node
        yield from running_nodes(node, inside_functions)


@functools.cache
def imports_of(name, inside_functions=True, for_types=False):
    """Return the full names of the modules that a module of tif imports.

    `for_types`: also those that it imports under TYPE_CHECKING.
    """
    tree = MODULES[name]
    imported = set()
    for node in ast.walk(tree) if for_types else running_nodes(tree, inside_functions):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            imported |= inner
            if len(inner) < len(node.names):
                imported.add(str(node.module))
    return imported


LINES = {name_of(path): path.read_text(encoding="utf-8").splitlines() for path in FILES}


def room_number(name):
    """Return the place of a module's room in the order: the package's file first, commands last."""
    if name in ("tif", VERSION):
        return -1
    room = name.split(".")[1]
    return ROOMS.index(room) if room in ROOMS else COMMANDS


def packages_above(name):
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def edges_of(name):
    """Return all modules of tif that a module imports, wherever, with the packages around them."""
    imported = imports_of(name, for_types=True) & MODULES.keys()
    around = set().union(*map(packages_above, imported))
    return imported | (around - packages_above(name) - {name})  # those already run when it does


def reachable(name, edges):
    """Return what can be reached from a name along one edge or more."""
    seen, todo = set(), [name]
    while todo:
        for target in edges[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def list_circles(edges):
    """Return the strongly connected components that hold a circle, each in order."""
    targets = {name: reachable(name, edges) for name in edges}
    circles = set()
    for name in edges:
        circles.add(frozenset(other for other in targets[name] if name in targets[other]))
    return sorted(sorted(circle) for circle in circles if circle)


def test_the_reader_of_imports_sees_what_there_is():
    assert {"tif.losses.terms", "torch"} <= imports_of("tif.losses.tpo")
    assert "transformers" in imports_of("tif.models.load")  # inside functions
    assert "transformers" not in imports_of("tif.models.load", inside_functions=False)
    assert "transformers" not in imports_of("tif.data.encoding")  # for type checkers only
    assert "transformers" in imports_of("tif.data.encoding", for_types=True)


def test_every_folder_is_a_room():
    folders = {name.split(".")[1] for name in MODULES if name.count(".") > 1}
    assert folders == set(ROOMS)


def test_imports_point_to_rooms_above():
    """Also those for type checkers, but for the names of `import tif`: it loads them when used."""
    offenders = [
        f"{name} imports {imported}"
        for name in MODULES
        for imported in sorted(imports_of(name, for_types=name != "tif") & MODULES.keys())
        if room_number(imported) > room_number(name) and (name, imported) != FIRST
    ]
    assert offenders == []
    assert edges_of(FIRST[1]) == set()


def test_no_module_imports_itself_through_others():
    """Not inside a room either, nor in functions, nor for type checkers only."""
    assert list_circles({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}) == [["b", "c"]]
    assert list_circles({name: edges_of(name) for name in MODULES}) == []


def test_tif_imports_nothing_of_the_laboratory_and_the_wheel_leaves_it_out():
    assert (ROOT / "lab").is_dir()
    offenders = [
        f"{m} imports {i}" for m in MODULES for i in imports_of(m) if i.split(".")[0] == "lab"
    ]
    assert offenders == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["setuptools"]["packages"]
    assert {name.split(".")[0] for name in packages} == {"tif"}


def test_nothing_imports_a_command():
    commands = {name for name in MODULES if room_number(name) == COMMANDS}
    assert [
        f"{name} imports {c}"
        for name in MODULES
        for c in imports_of(name) & commands
        if name != "tif"
    ] == []


def test_the_package_root_holds_commands_only():
    assert len(list((ROOT / "tif").glob("*.py"))) <= 12


@pytest.mark.parametrize("room", ["tif.losses", "tif.metrics"])
def test_losses_and_metrics_are_pure_functions(room):
    banned = {"lightning", "transformers", "peft", "datasets"} | FILE_MODULES
    offenders = []
    for name in MODULES:
        if name.startswith(room):
            offenders += [
                f"{name} imports {i}" for i in imports_of(name) if i.split(".")[0] in banned
            ]
            calls = [n for n in running_nodes(MODULES[name]) if isinstance(n, ast.Call)]
            offenders += [
                f"{name}:{n.lineno} opens a file" for n in calls if ast.unparse(n.func) == "open"
            ]
    assert offenders == []


AT_ONCE = (
    "config.load", "data.samples", "fit", "identify", "evaluate", "audit.command", "report",
    "sweep.command", "ls", "__main__",
)  # fmt: skip


@pytest.mark.parametrize("name", [f"tif.{name}" for name in AT_ONCE])
def test_what_answers_at_once_imports_neither_transformers_nor_lightning(name):
    heavy = {"transformers", "lightning", "scipy", "peft", "datasets"}
    modules, todo = set(), [name]
    while todo:
        module = todo.pop()
        modules.add(module)
        imported = imports_of(module, inside_functions=False)
        assert {i.split(".")[0] for i in imported} & heavy == set(), module
        todo += [i for i in imported & MODULES.keys() if i not in modules]


# In this order a person reads the method, from a text to a number: docs/architecture.md.
READING_PATH = (
    "data.samples", "data.encoding", "scoring.token_scores", "scoring.packing", "scoring.lm_head",
    "losses.terms", "losses.tpo", "training.module", "training.datamodule", "training.optimizer",
    "models.references", "evaluation.evaluate", "metrics.tofu", "training.run",
)  # fmt: skip


def test_the_reading_path_stays_short_and_is_the_one_of_the_docs():
    assert sum(len(LINES[f"tif.{name}"]) for name in READING_PATH) <= 3000
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    path = text.partition("## Reading path\n")[2].partition("\n## ")[0]
    assert re.findall(r"`tif/([a-z_/]+)\.py`", path) == [
        name.replace(".", "/") for name in READING_PATH
    ]


# From `tif fit` to the first optimizer step: each function uses the next one.
PATH_OF_A_RUN = (
    ("fit", "fit"), ("training.run", "run"), ("training.run", "unlearn"),
    ("training.train", "train"), ("training.prepare", "prepare_training"),
    ("training.module", "UnlearningModule"), ("training.module", "training_step"),
)  # fmt: skip


def test_the_path_of_a_run_leads_through_five_files_at_most():
    assert len({module for module, _ in PATH_OF_A_RUN}) <= 5
    definitions = {
        (module, node.name): node
        for module, node in nodes_of(ast.FunctionDef, ast.ClassDef)
        if any(module == f"tif.{name}" for name, _ in PATH_OF_A_RUN)
    }
    for (module, name), (next_module, next_name) in itertools.pairwise(PATH_OF_A_RUN):
        function = definitions[f"tif.{module}", name]
        if module == next_module and isinstance(function, ast.ClassDef):  # Lightning calls it
            assert next_name in {node.name for node in public_definitions(function)}
            continue
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert next_name in used, f"{module}.{name} does not use {next_name}"
        if module != next_module:
            imported = [
                node
                for node in ast.walk(MODULES[f"tif.{module}"])
                if isinstance(node, ast.ImportFrom) and node.module == f"tif.{next_module}"
            ]
            assert next_name in {alias.name for node in imported for alias in node.names}
    assert max(len(LINES[f"tif.{module}"]) for module, _ in PATH_OF_A_RUN) <= 300


def test_files_stay_short():
    lengths = {name: len(lines) for name, lines in LINES.items()}
    assert {name: n for name, n in lengths.items() if n > 320} == {}


def nodes_of(*kinds):
    """Return (module, node) for every node of these kinds."""
    return [
        (name, node)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def test_functions_stay_short_and_take_few_parameters():
    offenders = []
    for name, function in nodes_of(ast.FunctionDef, ast.AsyncFunctionDef):
        length = function.end_lineno - function.lineno + 1
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        parameters = [a for a in arguments if a.arg not in ("self", "cls")]
        if length > 60 or len(parameters) > 6:
            offenders.append(
                f"{name}.{function.name}: {length} lines, {len(parameters)} parameters"
            )
    assert offenders == []


def test_every_public_function_and_class_has_a_first_line_that_ends_with_a_full_stop():
    offenders = []
    for name, tree in MODULES.items():
        for node in [tree, *public_definitions(tree)]:
            first_line = (ast.get_docstring(node) or "").partition("\n")[0]
            if not first_line.endswith((".", ":", "?")):
                offenders.append(f"{name}.{getattr(node, 'name', '')}: {first_line!r}")
    assert offenders == []


def public_definitions(tree):
    """Yield the public functions and classes of a module and the public methods of its classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


VAGUE = {
    "found", "own", "told", "said", "asked", "made", "kept", "whole", "many", "some", "what", "one",
}  # fmt: skip
KEYS = {("tif.bench.settings", "what"), ("lab.speed.settings", "what")}  # a key of a command


def test_names_say_what_they_hold():
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "lab").rglob("*.py")]
    others = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    offenders = []
    for module, tree in (MODULES | others).items():
        for node in ast.walk(tree):
            names = {getattr(node, field, None) for field in ("id", "arg", "name", "asname")}
            vague = {name for name in names & VAGUE if (module, name) not in KEYS}
            offenders += [f"{module}:{node.lineno} {name}" for name in vague]
    assert offenders == []


def test_a_comprehension_holds_one_loop_and_no_assignment():
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    offenders = []
    for name, node in nodes_of(*kinds):
        has_assignment = any(isinstance(inner, ast.NamedExpr) for inner in ast.walk(node))
        if len(node.generators) > 1 or has_assignment:
            offenders.append(f"{name}:{node.lineno}")
    assert offenders == []


def calls():
    return [
        (name, node)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_code_of_strangers_is_never_trusted_unasked():
    from tif.config.schema import Model

    refused = {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}
    offenders = [
        f"{name}:{call.lineno} {word.arg}"
        for name, call in calls()
        for word in call.keywords
        if isinstance(word.value, ast.Constant) and (word.arg, word.value.value) in refused
    ]
    assert offenders == []
    assert Model().trust_remote_code is False


def test_models_and_tokenizers_of_others_are_read_in_one_place():
    offenders = [
        f"{name}:{node.lineno} {node.attr}"
        for name, node in nodes_of(ast.Attribute)
        if node.attr == "from_pretrained" and name != "tif.models.pretrained"
    ]
    # A pipeline that is given a path loads it without asking whom to trust.
    offenders += [
        f"{name}:{call.lineno} pipeline of a path"
        for name, call in calls()
        if ast.unparse(call.func) == "pipeline"
        and "model" not in {word.arg for word in call.keywords}
    ]
    assert offenders == []
    loading = [call for name, call in calls() if name == "tif.models.pretrained"]
    loading = [
        call
        for call in loading
        if ast.unparse(call.func).endswith((".from_pretrained", ".from_config"))
    ]
    assert loading
    assert ["**source.options" in ast.unparse(call) for call in loading] == [True] * len(loading)


def test_nothing_is_unpickled():
    banned = {"eval", "exec", "np.load", "joblib.load", "pd.read_pickle"}
    offenders = [
        f"{name}:{c.lineno} {ast.unparse(c.func)}"
        for name, c in calls()
        if ast.unparse(c.func) in banned
    ]
    offenders += [
        f"{m} imports {i}"
        for m in MODULES
        for i in imports_of(m) & {"pickle", "dill", "cloudpickle"}
    ]
    assert offenders == []
    # torch's own unpickler for weights knows no code.
    loads = [call for _, call in calls() if ast.unparse(call.func) == "torch.load"]
    assert loads
    assert all("weights_only=True" in ast.unparse(call) for call in loads)
    fits = [call for _, call in calls() if ast.unparse(call.func).endswith("trainer.fit")]
    assert ["weights_only=True" in ast.unparse(call) for call in fits] == [True]


def test_test_modules_import_helpers_from_tests_support_only():
    wrong = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[0] == "tests" and not module.startswith("tests.support"):
                wrong.append(f"{path.name}: {module}")
    assert wrong == []
