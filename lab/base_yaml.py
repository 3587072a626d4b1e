"""Make configs/base.yaml: `python -m lab.base_yaml > configs/base.yaml`."""

from tif.config.keys import list_keys
from tif.config.schema import Config


def base_yaml() -> str:
    """Return configs/base.yaml: every key with its default and its sentence."""
    lines = ["# Every key with its default; `tif fit --help all` says the same. Made by python -m "
             "lab.base_yaml."]
    previous: list[str] = []
    for key, field, value in list_keys(Config()):
        *path, name = key.split(".")
        for depth, section in enumerate(path):
            if path[: depth + 1] != previous[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        previous, indent = path, "  " * len(path)
        choices = " | ".join(field.metadata.get("choices") or ())
        lines.append(f"{indent}# {field.metadata['help']}" + (f" ({choices})" if choices else ""))
        lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(base_yaml(), end="")
