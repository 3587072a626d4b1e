"""DESIGN's arrows, read from the imports: who may know whom, and what nobody does."""

import ast
import pathlib

import pytest

from tif.schema import Model

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "tif").rglob("*.py"))

# Arrows point down: a module imports its own row and the rows below it. The longest prefix counts.
ROWS = (
    ("tif.fit", "tif.identify", "tif.evaluate", "tif.sweep", "tif.bench"),
    (
        "tif.bench_eval",
        "tif.bench_step",
        "tif.bench_scaling",
        "tif.bench_identify",
        "tif.bench_startup",
        "tif.bench_ways",
        "tif.bench_matrices", "tif.bench_process",
        "tif.bench_memory",
    ),
    ("tif.training", "tif.planning", "tif.preparing", "tif.spans", "tif.model_evaluation", "tif.evaluation_tables"),
    ("tif.report", "tif.sweep_results", "tif.sweep_jobs", "tif.runs", "tif.aggregates", "tif.checkpoint"),
    ("tif.module", "tif.callbacks", "tif.resuming", "tif.diagnosis", "tif.data.module"),
    (
        "tif.models",
        "tif.references",
        "tif.adapters",
        "tif.export",
        "tif.sharding",
        "tif.losses",
        "tif.identifiers",
        "tif.evaluation",
        "tif.generation",
        "tif.alternates",
        "tif.lowered",
        "tif.answers",
        "tif.shares",
        "tif.tasks",
        "tif.ability",
        "tif.gibberish",
        "tif.gradients",
    ),  # fmt: skip
    (
        "tif.metrics",
        "tif.reference_cache",
        "tif.scoring",
        "tif.head",
        "tif.layout",
        "tif.attention",
        "tif.linear",
        "tif.config",
        "tif.data",
        "tif.records",
        "tif.foreign_logs",
    ),  # fmt: skip
    (
        "tif.schema",
        "tif.schema_identifier",
        "tif.schema_key",
        "tif.schema_evaluate",
        "tif.schema_loss",
        "tif.schema_model",
        "tif.data.samples",
        "tif.command",
        "tif.distributed",
        "tif.files",
        "tif.protocols",
        "tif.terminal",
        "tif",
    ),  # fmt: skip
)
HEAVY = {"torch", "transformers", "lightning", "numpy", "scipy", "peft", "datasets"}
FILE_MODULES = {"json", "pathlib", "os", "io", "shutil", "tempfile", "pickle", "csv", "safetensors"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def nodes(tree, lazy=True):
    """Every node that runs: not under TYPE_CHECKING; without `lazy` not inside functions either."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from nodes(node, lazy)


def imports(name, lazy=True):
    """Full names of the modules that a module of tif imports."""
    found = set()
    for node in nodes(MODULES[name], lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {str(node.module)}
    return found


def closure(name):
    """All that importing a module of tif imports at once, through other modules of tif too."""
    seen, todo, outside = set(), [name], set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for found in imports(module, lazy=False):
            if found in MODULES:
                # importing a.b.c runs a and a.b first
                todo += [found.rsplit(".", n)[0] for n in range(found.count(".") + 1)]
            else:
                outside.add(found.split(".")[0])
    return outside


def inside(name, *rooms):
    return any(name == room or name.startswith(room + ".") for room in rooms)


def row(name):
    """Number of the module's row, from the top; None where it has none. The room `tif` is the package's own file."""
    found = [
        (len(room), number)
        for number, rooms in enumerate(ROWS)
        for room in rooms
        if name == room or (room != "tif" and inside(name, room))
    ]
    return max(found)[1] if found else None


def calls():
    return [(name, node) for name, tree in MODULES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_the_reader_of_imports_sees_what_there_is():
    assert {"tif.data.encode", "tif.losses.tpo", "tif.schema", "torch"} <= imports("tif.losses")
    assert "transformers" in imports("tif.models")  # inside functions
    assert "transformers" not in imports("tif.models", lazy=False)
    assert "transformers" not in imports("tif.data.encode")  # for type checkers only
    assert {"lightning", "torch", "filelock"} <= closure("tif.training")


def test_every_module_has_a_place():
    assert [name for name in MODULES if row(name) is None] == []  # add yours to ROWS


def test_arrows_point_down():
    offenders = [
        f"{name} imports {found}"
        for name in MODULES
        for found in sorted(imports(name) & MODULES.keys())
        if None not in (row(name), row(found)) and row(found) < row(name)
    ]
    assert offenders == []


def test_nothing_imports_a_command():
    commands = {name for name, tree in MODULES.items() if "__main__" in ast.unparse(tree)} - {"tif.report"}
    offenders = [f"{name} imports {found}" for name in MODULES for found in imports(name) & commands]
    assert offenders == []
    assert commands <= set(ROWS[0])


@pytest.mark.parametrize("room", ["tif.losses", "tif.metrics"])
def test_losses_and_metrics_are_pure_functions(room):
    banned = {"lightning", "transformers", "peft", "datasets"} | FILE_MODULES
    above = [f"tif.{m}" for m in ("models", "module", "training", "callbacks", "evaluation", "data.module", "files")]
    offenders = []
    for name in (m for m in MODULES if inside(m, room)):
        offenders += [f"{name} imports {f}" for f in imports(name) if f.split(".")[0] in banned or inside(f, *above)]
        opened = [n for n in nodes(MODULES[name]) if isinstance(n, ast.Call) and ast.unparse(n.func) == "open"]
        offenders += [f"{name}:{n.lineno} opens a file" for n in opened]
    assert offenders == []


@pytest.mark.parametrize(
    "name",
    [
        "tif.config",
        "tif.schema",
        "tif.fit",
        "tif.identify",
        "tif.evaluate",
        "tif.data.samples",
        "tif.report",
        "tif.sweep",
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(name):
    assert closure(name) & HEAVY == set()


@pytest.mark.parametrize("name", [m for m in MODULES if inside(m, "tif.losses", "tif.scoring", "tif.data.encode")])
def test_the_numerical_core_needs_torch_alone(name):
    assert closure(name) & HEAVY <= {"torch"}


def test_files_stay_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: n for path, n in lengths.items() if n > 320} == {}


def test_code_of_strangers_is_never_trusted_unasked():
    given = [(name, c.lineno, k.arg, k.value) for name, c in calls() for k in c.keywords]
    offenders = [
        f"{name}:{line} {arg}={ast.unparse(value)}"
        for name, line, arg, value in given
        if isinstance(value, ast.Constant)
        and (arg, value.value) in {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}
    ]
    assert offenders == []
    assert Model().trust_remote_code is False


def test_nothing_is_unpickled():
    banned = {"torch.load", "eval", "exec", "np.load", "joblib.load", "pd.read_pickle"}
    offenders = [f"{name}:{c.lineno} {ast.unparse(c.func)}" for name, c in calls() if ast.unparse(c.func) in banned]
    offenders += [f"{m} imports {f}" for m in MODULES for f in imports(m) & {"pickle", "dill", "cloudpickle"}]
    assert offenders == []
