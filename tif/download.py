"""tif download: fetch models and data where there is a network, for nodes without one.

    tif download tofu [to=FOLDER]                locuslab/TOFU
    tif download muse [news|books] [to=FOLDER]   muse-bench/MUSE-News, MUSE-Books
    tif download masks [to=FOLDER]               the authors' masks of TOFU (1.5 MB)
    tif download retain-logs [MODEL] [to=FOLDER] open-unlearning's logs of retain models
    tif download model NAME [to=FOLDER]          a hub name, or a preset of configs/model
    tif download run tofu.yaml model=llama_3_2_3b    all that this tif.fit would read

Without to=, files go where tif finds them by themselves: the hub's cache (HF_HOME), the masks to
~/.cache/tif. Copy these folders to the other machine, or name one there with to=. The last line
says how to use what came. A download that was cut goes on with the same command.
No pickled weights and no code are fetched. Exit code 1 also where the network failed.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tif.config import files
from tif.config.command import Command
from tif.config.errors import ConfigError, nearest, one_line
from tif.utils import command_line
from tif.utils.hub import is_hub_reachable

MODEL_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*"]
MUSE = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
KINDS = ("tofu", "muse", "masks", "retain-logs", "model", "run")


class Download(NamedTuple):
    """What is fetched.

    Attributes:
        name: of the model, data set or repository.
        kind: "model" or "dataset" of the hub, or "masks".
        key: the configuration key that names it.
        patterns: which of its files; None = all.
    """

    name: str
    kind: str
    key: str
    patterns: list[str] | None = None


def download(options: Namespace) -> int:
    """Fetch what the words name; return the exit code."""
    to = Path(options.to).expanduser() if options.to else None
    kind, *words = options.words or [""]
    if kind == "run":  # each thing goes where the run finds it
        to = None
    try:
        for source in _list_for_run(words) if kind == "run" else choose(kind, words, to):
            fetch = _fetch_masks if source.kind == "masks" else _fetch
            fetch(source, to)
    except ConfigError:
        raise
    except Exception as error:
        return _report(error)
    return 0


def choose(kind: str, words: Sequence[str], to: Path | None) -> list[Download]:
    """Return what the words of the command mean.

    Raises:
        ConfigError: If they make no sense; one line.
    """
    match kind, *words:
        case ["tofu"]:
            return [Download("locuslab/TOFU", "dataset", "data.path")]
        case ["masks"]:
            return [Download("masks", "masks", "tofu.masks")]
        case ["muse", *names] if set(names) <= MUSE.keys():
            if to and len(names or MUSE) > 1:
                want = "want muse news to=... or muse books to="
                raise ConfigError(f"to: muse is two data sets; {want}")
            return [Download(MUSE[name], "dataset", "data.path") for name in names or MUSE]
        case ["retain-logs", *names] if len(names) <= 1:
            model = published_name(names[0]) if names else "*"
            pattern = f"tofu_{model}_retain*/TOFU_EVAL.json"
            return [Download("open-unlearning/eval", "dataset", "tofu.retain_logs", [pattern])]
        case ["model", name]:
            key = "model.base" if name in files.list_model_presets() else "model.path"
            return [Download(hub_name(name), "model", key, MODEL_FILES)]
    if kind in KINDS:
        got = " ".join(words)
        raise ConfigError(f"{f'{kind} {got}'.strip()}: want {kind} as in --help, got {got!r}")
    raise ConfigError(f"{kind}: want one of {', '.join(KINDS)}{nearest(kind, KINDS)}")


def _list_for_run(words: Sequence[str]) -> list[Download]:
    """Return all that a run of these words reads from elsewhere."""
    from tif.config import load, presets
    from tif.training.sources import list_sources

    sources = []
    for key, path, kind in list_sources(load.load(presets.complete_words(words)[0])):
        name = "/".join(path.split("/")[:2])
        patterns = {"model": MODEL_FILES, "file": [path.removeprefix(f"{name}/")]}.get(kind)
        hub_kind = kind if kind in ("model", "masks") else "dataset"
        sources.append(Download(name, hub_kind, key, patterns))
    return sources


def hub_name(name: str) -> str:
    """Return the hub name of a preset, or the name itself; ConfigError if it can be neither."""
    presets = files.list_model_presets()
    if name in presets:
        return str(files.read_yaml(files.find(f"model/{name}.yaml")).model.base)
    if name.count("/") != 1:
        near = nearest(name, presets)
        raise ConfigError(f"model {name}: want a hub name (org/model) or one of "
            f"{', '.join(presets)}{near}")
    return name


def published_name(name: str) -> str:
    """Return the last part of a model's hub name, as open-unlearning names its logs."""
    is_last_part = "/" not in name and name not in files.list_model_presets()
    return name if is_last_part else hub_name(name).split("/")[-1]


def _check_network() -> None:
    """Raise ConfigError or OSError where the hub cannot be asked."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE is set, nothing can be fetched; unset it for this once")
    if not is_hub_reachable():
        raise OSError(f"{constants.ENDPOINT} does not answer")


def _fetch(source: Download, to: Path | None) -> None:
    """Fetch files of the hub, with its client's bars, and print where they are."""
    from huggingface_hub import snapshot_download

    _check_network()
    print(f"{source.name}: fetching", flush=True)
    place = snapshot_download(
        source.name, repo_type=source.kind, local_dir=to, allow_patterns=source.patterns
    )
    use = f"{source.key}={to or source.name}"
    offline = "" if to else "; HF_HUB_OFFLINE=1 keeps the hub from being asked"
    print(f"{source.name} is in {place}: use {use}{offline}")


def _fetch_masks(source: Download, to: Path | None) -> None:
    """Fetch the authors' masks and print where they are."""
    from tif.identifiers import precomputed

    folder = to or precomputed.cache_folder()
    precomputed.download_masks(folder)
    use = f"{source.key}={to}" if to else "tofu.yaml finds them there"
    print(f"{precomputed.REPOSITORY} is in {folder}: {use}")


def _report(error: Exception) -> int:
    """Print in one line why nothing came, and return the exit code 1."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    step = "the same command goes on with what is missing"
    if isinstance(error, GatedRepoError):
        step = "accept its licence on huggingface.co and log in (`hf auth login`)"
    elif isinstance(error, RepositoryNotFoundError):
        step = "is the name right? A private one needs `hf auth login`"
    command_line.print_error(f"{one_line(error)}; {step}")
    return 1


COMMAND = Command("download", __doc__, download, keys=("to",), needs_words=True)
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
