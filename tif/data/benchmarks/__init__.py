"""Benchmarks: one file each, in which it registers itself; all are read by their name.

    @benchmark("tofu", title="TOFU", about="questions", place={"path": key(None, "a folder")})
    def read(data: Data, with_training: bool) -> Benchmark: ...

All files of this folder are imported where a configuration is read: they import inside functions
what takes time.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from tif.config import registry
from tif.config.data import Data
from tif.config.evaluation import EvalRules
from tif.config.registry import Entry
from tif.data.samples import Benchmark
from tif.data.templates import Prompts, read_template

Read = Callable[[Data, bool], Benchmark]


@dataclasses.dataclass(frozen=True)
class Reader(Entry):
    """A registered benchmark.

    Attributes:
        read: from section `data`, and whether the forget and retain texts are wanted beside the
            evaluation sets. A ValueError names the key or file in one line.
        title: as tables and pages show it.
        about: what it is, for a list of benchmarks.
        wants: what `data.path` may be; "" = it needs none.
        file: of configs/, which its runs begin with.
        hub: name of its data set on the hub; "" = it is not there.
        is_muse: whether MUSE's metrics (VerbMem, KnowMem, PrivLeak) are computed, not TOFU's.
    """

    read: Read
    title: str
    about: str
    wants: str = ""
    file: str = "text.yaml"
    hub: str = ""
    is_muse: bool = False


def benchmark(
    name: str, place: Mapping[str, Any] | None = None, **properties: Any
) -> Callable[[Read], Read]:
    """Register the decorated function as the reader of a benchmark.

    Args:
        name: the value of `data.benchmark`.
        place: by name the keys of `eval.<name>`, which are keys of section `data` too: with them
            `eval.benchmarks` takes the benchmark. None = it is not evaluated beside others.
        properties: the other fields of `Reader`.
    """
    fields = [(key, str | None, field) for key, field in (place or {}).items()]
    doc = f"Where {properties['title']} is."
    keys = dataclasses.make_dataclass("Place", fields, namespace={"__doc__": doc})

    def register(read: Read) -> Read:
        doc, module = read.__doc__ or "", read.__module__
        registry.register("benchmark", Reader(name, keys, doc, module, read, **properties))
        return read

    return register


def read_benchmark(data: Data) -> Benchmark:
    """Return the benchmark that section `data` names.

    Raises:
        ValueError: One line that names the key or file, see the readers.
    """
    return _get_reader(data.benchmark).read(data, True)


def read_evaluation_sets(name: str, rules: EvalRules) -> Benchmark:
    """Return a benchmark of `eval.benchmarks`, read for its evaluation sets.

    A ValueError names the key or file in one line, see the readers.
    """
    section = name.replace("-", "_")
    keys = dataclasses.asdict(getattr(rules, section))
    try:
        return _get_reader(name).read(Data(benchmark=name, **keys), False)
    except ValueError as error:
        message = str(error)
        for key in keys:
            message = message.replace(f"data.{key}", f"eval.{section}.{key}", 1)
        raise ValueError(message) from None


def describe_data(name: str, split: str | None) -> str:
    """Return a benchmark's title with its split; a name that is not known stays as it is."""
    known = registry.entries("benchmark")
    title = cast(Reader, known[name]).title if name in known else name
    return " ".join(filter(None, (title, split)))


def _get_reader(name: str) -> Reader:
    return cast(Reader, registry.entries("benchmark")[name])


def list_tokenizer_texts(benchmark: Benchmark, prompts: Prompts) -> list[str]:
    """Return the texts, prompts in their template, that a tokenizer for this data is trained on."""
    texts, prompt_format = [], read_template(prompts)
    for sample in (*benchmark.background, *benchmark.retain, *benchmark.forget):
        prompt = prompt_format.text.replace("{prompt}", sample.prompt) + prompt_format.blank
        for answer in (sample.answer, sample.paraphrased_answer, *sample.perturbed_answers):
            if answer is not None:
                texts.append(prompt + answer)
    return texts
