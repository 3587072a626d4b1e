"""Find in the source of a test where it compares a measured time, or ends a wait too early."""

import ast

from tests.support.hangs import HANG

CLOCKS = {
    f"{name}{unit}"
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
    for unit in ("", "_ns")
} | {"default_timer"}
MODULES = {"time", "timeit"}
PASSING = {"min", "max", "sum", "abs", "round", "float", "int", "next", "pytest.approx"}


def find_limits(source, elsewhere=frozenset()):
    """Return the numbers of the lines that judge something by a clock.

    Such a line compares a value of a clock of `time`, or what was computed from one, directly or
    through variables, attributes and lists; or it names a `timeout` below HANG. Names count in all
    of a file: a variable that holds a time in one function is a time in the others too.

    `elsewhere`: attributes that hold times by what other files do (`list_attributes`).
    """
    tree = ast.parse(source)
    clocks = _find_clocks(tree)
    times = _find_times(tree, clocks, elsewhere)
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            if any(_is_time(operand, clocks, times) for operand in operands):
                lines.add(node.lineno)
        elif isinstance(node, ast.Call) and _ends_early(node):
            lines.add(node.lineno)
    return sorted(lines)


def list_attributes(source):
    """Return the attributes, as ".name", that hold measured times by a file's source."""
    tree = ast.parse(source)
    times = _find_times(tree, _find_clocks(tree), frozenset())
    return {name for name in times if name.startswith(".")}


def _find_clocks(tree):
    """Return how the file calls the clocks: "time.monotonic", or its own names of them."""
    clocks = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias for alias in node.names if alias.name in MODULES]
            for alias in modules:
                clocks |= {f"{alias.asname or alias.name}.{clock}" for clock in CLOCKS}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            functions = [alias for alias in node.names if alias.name in CLOCKS]
            clocks |= {alias.asname or alias.name for alias in functions}
    return clocks


def _find_times(tree, clocks, elsewhere):
    """Return the variables ("name") and attributes (".name") that hold measured times."""
    times = set(elsewhere)
    while True:
        more = set()
        for node in ast.walk(tree):
            for target, value in _list_bindings(node):
                if _is_time(value, clocks, times):
                    more |= {_name(part) for part in _flatten(target)}
        if more <= times:
            return times
        times |= more


def _list_bindings(node):
    """Return what a node gives names to: pairs of target and value."""
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
        return [(node.target, node.value)]
    if isinstance(node, ast.For | ast.comprehension):
        return [(node.target, node.iter)]
    is_append = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    if is_append and node.func.attr in ("append", "extend", "add"):
        return [(node.func.value, value) for value in node.args]
    return []


def _flatten(target):
    if isinstance(target, ast.Tuple | ast.List):
        return [part for item in target.elts for part in _flatten(item)]
    if isinstance(target, ast.Subscript | ast.Starred):
        return _flatten(target.value)
    return [target]


def _name(node):
    """Return the name of a variable, and of an attribute of whatever object with a dot."""
    return f".{node.attr}" if isinstance(node, ast.Attribute) else ast.unparse(node)


def _is_time(node, clocks, times):
    """Tell whether an expression is a measured time, a difference of two, or a list of them."""
    if isinstance(node, ast.Name | ast.Attribute):
        return _name(node) in times
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        passes = function in PASSING and any(_is_time(a, clocks, times) for a in node.args)
        return function in clocks or passes
    if isinstance(node, ast.Compare | ast.Lambda | ast.JoinedStr):
        return False
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Subscript):
        children = [node.value]
    if isinstance(node, ast.IfExp):
        children = [node.body, node.orelse]
    return any(_is_time(child, clocks, times) for child in children)


def _ends_early(call):
    """Tell whether a call waits for a number of seconds below HANG; 0 does not wait."""
    limits = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("wait", "communicate"):
        limits += call.args[:1]
    numbers = [limit.value for limit in limits if isinstance(limit, ast.Constant)]
    return any(isinstance(number, int | float) and 0 < number < HANG for number in numbers)
