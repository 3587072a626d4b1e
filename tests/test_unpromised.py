"""docs/contributing.md lists each part of a library that the library does not promise."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIBRARIES = ("transformers", "peft", "torch", "lightning", "bitsandbytes", "accelerate", "wandb")
# Modules that the libraries' own pages document.
DOCUMENTED = (
    "transformers", "transformers.utils", "transformers.utils.logging",
    "transformers.modeling_outputs", "peft", "torch", "lightning", "bitsandbytes", "wandb",
)  # fmt: skip
# These document whole trees of modules, but for those that start with an underscore.
DOCUMENTED_TREES = ("torch.", "lightning.", "bitsandbytes.")
PYTHONS = {"_asdict", "_exit", "_replace"}  # documented in Python's own library


def list_unpromised(source: str) -> set[str]:
    """Return the undocumented modules or names of libraries that a source imports or reads."""
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if not is_documented(node.module, alias.name):
                    parts.add(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and re.match("_[a-z]", str(name.value)):
                parts.add(str(name.value))
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls"):
                parts.add(node.attr)
    return parts


def is_documented(module: str, name: str) -> bool:
    library = module.split(".")[0]
    if library not in LIBRARIES or module == "transformers.utils" and name == "logging":
        return True
    if name.endswith("_utils") or module == "transformers.utils":
        return False
    in_tree = module.startswith(DOCUMENTED_TREES) and "._" not in module
    return module in DOCUMENTED or in_tree


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from transformers import AutoConfig", set()),
        ("from transformers import dynamic_module_utils",
         {"transformers.dynamic_module_utils"}),
        ("def f():\n    from peft.tuners.lora import LoraLayer", {"peft.tuners.lora.LoraLayer"}),
        ("from torch._inductor import config", {"torch._inductor.config"}),
        ("from torch.distributed.tensor import DTensor", set()),
        ("getattr(config, '_attn_implementation', None)", {"_attn_implementation"}),
        ("model._tied_weights_keys", {"_tied_weights_keys"}),
        ("self._bar", set()),
    ],
)  # fmt: skip
def test_the_reader_sees_what_is_not_promised(source, expected):
    assert list_unpromised(source) == expected


def test_the_page_lists_what_the_code_uses_and_nothing_else():
    used = set()
    for file in (ROOT / "tif").rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        defined_here = {f"_{name}" for name in re.findall(r"(?:def |self\.)_(\w+)", source)}
        used |= list_unpromised(source) - defined_here - PYTHONS
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = page.split("## What no library promises")[1].split("\n## ")[0]
    listed = set()
    for row in section.splitlines():
        if row.startswith("| `"):
            listed |= set(re.findall("`([^`]+)`", row.split(" | ")[0]))
    assert listed == used
