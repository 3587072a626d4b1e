import html
import html.parser
import json
import math
import re

import pytest

from tests.support.report_runs import WORDS, answer_tokens, evaluation, write_run
from tif.records import files as records
from tif.reports.html import run_charts, run_data, samples
from tif.reports.html.page import as_script
from tif.reports.html.run_report import epoch_table, tiles, warnings, write_run_report
from tif.reports.summary import Best

ODD = "</script><script>alert(1)</script> <b>bold</b> &amp; مرحبا 🙂\u2028 {{ 7 * 7 }}"
NAMES = (
    "eval/score",
    "forget/quality",
    "utility/model",
    "forget/probability",
    "retain/probability",
)
VALUES = [(0.1, 1e-9, 0.6, 0.9, 0.9), (0.9, 0.3, 0.5, 0.2, 0.8), (0.8, 0.4, 0.3, 0.1, 0.7)]
TOFU = [dict(zip(NAMES, values, strict=True)) for values in VALUES]


class Page(html.parser.HTMLParser):
    """A page's elements, the text outside of scripts, and its embedded JSON by id."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.data, self.text, self.open = [], {}, "", None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = (tag, dict(attrs).get("id")) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.open = None

    def handle_data(self, data):
        if self.open is None:
            self.text += data
        elif self.open[1]:
            self.data[self.open[1]] = json.loads(data)


def report(folder, **keys):
    return page_of(write_run(folder, **keys))


def page_of(folder):
    return Page(write_run_report(folder)[0])


def texts(pattern, run):
    """Return the texts of the page's elements that match."""
    source = write_run_report(run.folder)[0].read_text()
    return [
        html.unescape(re.sub("<[^>]+>", "", text))
        for text in re.findall(pattern, source, re.DOTALL)
    ]


def sentences(run):
    return texts('<p class="lede">(.*?)</p>', run)


def read_list(kind, run):
    """Return the values of the page's list of facts, or of its recipe, by name."""
    source = write_run_report(run.folder)[0].read_text()
    items = source.partition(f'<dl class="{kind}">')[2].partition("</dl>")[0]
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", items))


def unpack(text):
    """Return the log-probabilities and marks of a packed text, as samples.js does."""
    places = [samples.ALPHABET.index(character) for character in text]
    codes = [high * 64 + low for high, low in zip(places[::2], places[1::2], strict=True)]
    scale = math.log1p(samples.LARGEST / samples.SMALLEST) / samples.STEPS
    logprobs = [-samples.SMALLEST * math.expm1((code >> 1) * scale) for code in codes]
    return logprobs, [bool(code & 1) for code in codes]


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    page = report(tmp_path / "run", metrics=TOFU)
    assert page.elements
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "action", "onload"}, tag
        assert attributes.get("href", "#")[:1] in "#d", attributes
        assert tag not in ("iframe", "img", "object", "embed", "base")
    policy = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy[0].startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.source)
    assert "@import" not in page.source
    assert "innerHTML" not in page.source


def test_texts_of_the_data_are_text_whatever_they_hold(tmp_path):
    folder = write_run(tmp_path / "<img src=x>", metrics=TOFU)
    for epoch in range(3):
        path = folder / "eval" / str(epoch)
        stored = json.loads((path / "forget.json").read_text())
        stored["records"]["forget/0"] |= {"prompt": ODD, "generated": ODD}
        (path / "forget.json").write_text(json.dumps(stored))
    page = page_of(folder)
    scripts = [a for t, a in page.elements if t == "script"]
    assert len(scripts) == 5  # charts, samples, and three files of code
    assert "img" not in {tag for tag, _ in page.elements}
    assert "alert(" not in page.text
    sample = page.data["samples"]["sets"][0]["samples"][0]
    assert sample["q"] == ODD
    assert sample["texts"][0] == ODD
    assert "<img" in page.text  # the folder's name, as text
    assert "<img" not in page.source.replace("&lt;img", "")


def test_json_for_a_script_holds_no_character_that_ends_it():
    text = as_script([ODD])
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == [ODD]


def test_the_samples_hold_every_token_of_every_model(tmp_path):
    folder = write_run(tmp_path / "run", metrics=TOFU)
    data = page_of(folder).data["samples"]
    assert [model["key"] for model in data["models"]] == ["0", "1", "2", "retain"]
    assert [part["name"] for part in data["sets"]] == ["forget", "retain"]
    stored = records.read_evaluation(folder / "eval" / "2").sets["forget"].records[1].stats
    sample = data["sets"][0]["samples"][1]
    logprobs, top = unpack(sample["p"][2])
    assert logprobs == pytest.approx(stored.logprob, rel=0.005, abs=1e-4)
    assert tuple(top) == stored.top
    # "the author was born in Oslo ...": lengths of the words with the blank before each
    assert sample["e"] == [3, 7, 4, 5, 3, 5, 4, 6, 5, 7, 6, 6, 0]
    assert [WORDS[i] for i in sample["u"]] == ["Oslo", "nine"]
    assert [sample["a"][start:end] for start, end in sample["w"]] == ["Oslo", "nine"]


def test_packing_keeps_what_a_reader_sees():
    logprobs = [0.0, -1e-4, -0.01, -0.5, -3.0, -12.0, -59.0, -1000.0]
    unpacked, top = unpack(samples.pack(logprobs, [True, False] * 4))
    assert unpacked[:-1] == pytest.approx(logprobs[:-1], rel=0.005, abs=5e-5)
    assert unpacked[-1] == pytest.approx(-samples.LARGEST)
    assert top == [True, False] * 4


def test_places_after_an_emoji_are_counted_as_javascript_does():
    assert samples._utf16("🙂 ab", (2, 4)) == [3, 5]
    assert samples._utf16("a🙂b", (1, 2, 3)) == [1, 3, 4]


def browser(count, epochs):
    sets = {"forget": count}
    built = samples.SampleBrowser(answer_tokens(sets))
    for epoch in range(epochs):
        built.add(str(epoch), f"epoch {epoch}", evaluation(epoch, sets))
    built.add("retain", "retain model", evaluation("retain", sets))
    return built


def test_a_large_run_is_thinned_in_the_middle_and_says_so(monkeypatch):
    built = browser(20, 8)
    full = len(as_script(built.as_json(["0", "7"])))
    monkeypatch.setattr(samples, "MAX_BYTES", full // 2)
    data = built.as_json(["0", "7"])
    assert len(as_script(data)) <= full // 2 * 1.2
    keys = [model["key"] for model in data["models"]]
    assert {"0", "7", "retain"} <= set(keys)
    assert 3 <= len(keys) < 9
    assert "generations" in data["notes"][0]
    monkeypatch.setattr(samples, "MAX_BYTES", 5000)
    data = built.as_json(["0", "7"])
    assert 1 <= len(data["sets"][0]["samples"]) < 20
    assert "questions are shown" in data["notes"][-1]


@pytest.mark.slow
def test_4000_answers_at_20_epochs_fit_in_10_megabytes():
    text = as_script(browser(4000, 20).as_json(["0", "19"]))
    assert len(text.encode()) < 9_500_000


def test_the_sentences_say_what_was_forgotten_and_what_it_cost(tmp_path):
    run = run_data.read_run(write_run(tmp_path / "run", metrics=TOFU))
    first, second = sentences(run)
    assert first.startswith(
        "2 epochs of TPO on TOFU forget01 took the probability of unwanted words from "
    )
    assert "A test can no longer tell it from a model that never saw the answers" in first
    assert "1.0 × 10⁻⁹ → 0.400" in first
    assert second.startswith(
        "It keeps 50\u00a0% of the model utility (0.600 → 0.300; retain model 0.600)"
    )


def test_what_did_not_change_is_said_once(tmp_path):
    rows = [dict(TOFU[0]), TOFU[0] | {"utility/model": 0.9}]
    run = run_data.read_run(write_run(tmp_path / "run", epochs=2, metrics=rows))
    first, second = sentences(run)
    assert "A test can still tell it from a model" in first
    assert first.endswith(": forget quality 1.0 × 10⁻⁹.")
    assert second.startswith("It has 150\u00a0% of the model utility")
    assert tiles(run)[2]["note"] == "told from a retain model (limit 0.05)"


def test_without_a_retain_model_the_report_says_what_is_measured_instead(tmp_path):
    rows = [{"retain/probability": 0.9, "forget/probability": 0.9}, {"retain/probability": 0.8}]
    run = run_data.read_run(write_run(tmp_path / "run", epochs=2, metrics=rows, retain=False))
    first, second = sentences(run)
    assert first.endswith("Without a retain model, forget quality cannot be had.")
    assert "probability on the retain set (0.900 → 0.800)" in second
    page = page_of(run.folder)
    assert "retain" not in {model["key"] for model in page.data["samples"]["models"]}
    assert "retain model" not in [name for chart in page.data["charts"] for name in chart["series"]]


def test_muse_numbers_have_their_own_words_and_chart(tmp_path):
    rows = [
        {"muse/privleak": -99.0, "muse/knowmem_retain": 50.0, "muse/knowmem_forget": 60.0},
        {"muse/privleak": 3.0, "muse/knowmem_retain": 40.0, "muse/knowmem_forget": 30.0},
    ]
    sets = {"knowmem_forget": 3, "knowmem_retain": 3}
    run = run_data.read_run(write_run(tmp_path / "run", epochs=2, sets=sets, metrics=rows))
    first, second = sentences(run)
    assert "PrivLeak −99.0 → 3.0" in first
    assert second.startswith("It keeps 80\u00a0% of the KnowMem on retain questions")
    chart = run_charts.forgetting_chart(run)
    assert (chart.x, chart.y) == ("KnowMem retain", "PrivLeak")
    assert "PrivLeak against KnowMem retain" in chart.caption
    assert page_of(run.folder).elements


def test_a_failure_is_named_with_the_epochs_that_showed_it(tmp_path):
    rows = [dict(row) for row in TOFU]
    rows[1]["failure/collapse"] = rows[1]["utility/model"] = 0.1
    run = run_data.read_run(write_run(tmp_path / "run", metrics=rows))
    assert warnings(run) == [
        ("collapse", "model utility is 0.1, was 0.6 before; want at least a quarter of that "
         "(until epoch 1, not at the end)"),
    ]  # fmt: skip


def test_before_training_there_are_no_curves_and_a_warning_says_when(tmp_path):
    row = TOFU[0] | {"failure/nothing_to_forget": 0.1}
    run = run_data.read_run(write_run(tmp_path / "run", epochs=1, metrics=[row], retain=False))
    assert run_charts.word_chart(run) is run_charts.forgetting_chart(run) is None
    assert warnings(run) == [("nothing-to-forget", "the value is 0.1 (before training)")]


def test_the_recipe_says_how_long_each_part_took(tmp_path):
    folder = write_run(tmp_path / "run", metrics=TOFU)
    assert "time" not in read_list("recipe", run_data.read_run(folder))
    (folder / "times.json").write_text('{"stage target": 121.4, "training": 48.0, "export": 0.2}')
    assert (
        read_list("recipe", run_data.read_run(folder))["time"]
        == "stage target 2 min 1 s, training 48 s"
    )


def test_an_unfinished_run_is_called_so(tmp_path):
    folder = write_run(tmp_path / "run", metrics=TOFU, config={"trainer": {"max_epochs": 9}})
    assert warnings(run_data.read_run(folder)) == [("unfinished", "epoch 2 of 9 is the last here")]


def test_the_charts_have_the_runs_own_numbers(tmp_path):
    run = run_data.read_run(write_run(tmp_path / "run", metrics=TOFU))
    chart = run_charts.word_chart(run)
    assert [series.name for series in chart.series] == [
        "unwanted words (UW)", "general words (GW)", "UW, retain model", "GW, retain model",
    ]  # fmt: skip
    for epoch in range(3):
        values = []
        for item in (
            records.read_evaluation(run.folder / "eval" / str(epoch)).sets["forget"].records
        ):
            values.append(
                math.exp((item.stats.logprob[5] + item.stats.logprob[8]) / 2)
            )  # Oslo, nine
        assert chart.series[0].y[epoch] == pytest.approx(sum(values) / len(values))
    run.best = Best(1)
    chart = run_charts.forgetting_chart(run)
    assert chart.series[0].x == (0.6, 0.5, 0.3)
    assert chart.series[0].y == (1e-9, 0.3, 0.4)
    assert [(mark.name, mark.x) for mark in chart.marks] == [
        ("target", 0.6), ("chosen, epoch 1", 0.5), ("last, epoch 2", 0.3),
    ]  # fmt: skip
    ratios = run_charts.ratio_chart(run)
    assert [series.name for series in ratios.series] == ["before", "unlearned", "retain model"]
    assert ratios.series[0].y == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert run_charts.loss_charts(run)[1].series[0].y == (1.0, 0.5, 1 / 3)


def test_the_table_shows_the_chosen_epoch_on_the_other_half_and_ends_with_the_retain_model(
    tmp_path,
):
    run = run_data.read_run(write_run(tmp_path / "run", metrics=TOFU))
    row = {"epoch": 1, "forget/quality": 0.25}
    run.best = Best(1, row, {"forget/quality": (0.125, 0.5)})
    run.intervals = {"forget/quality": (0.1, 0.9)}
    head, rows = epoch_table(run)
    assert head[:3] == ["epoch", "forget quality\u00a0↑", "model utility\u00a0↑"]
    names = [(row["cells"][0]["text"], row["cells"][0]["note"]) for row in rows]
    chosen = [("before", ""), ("1", "chosen"), ("2", ""), ("1", "other half")]
    assert names == [*chosen, ("retain model", "")]
    assert [row["kind"] for row in rows] == ["", "", "best", "best", "retain"]
    assert rows[2]["cells"][1] == {"text": "0.400", "note": "0.100 – 0.900"}
    assert rows[3]["cells"][1] == {"text": "0.250", "note": "0.125 – 0.500"}
    assert rows[4]["cells"][2]["text"] == "0.600"
    assert [tile["label"] for tile in tiles(run)][2:] == ["Forget quality", "Model utility"]


def test_a_run_without_evaluations_has_a_report_of_its_losses(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "step": 0, "train/loss": 2.0}\n')
    page = page_of(folder)
    assert [chart["name"] for chart in page.data["charts"]] == ["loss-loss"]
    assert "samples" not in page.data
    assert "was not evaluated" in page.text


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"path": "target", "base": None}, "a new Llama"),
        ({"path": "target", "base": "HuggingFaceTB/SmolLM2-135M"}, "HuggingFaceTB/SmolLM2-135M"),
        ({"path": "/models/mine", "base": None}, "mine"),
        ({"path": None, "base": None}, "a new Llama"),
    ],
)
def test_the_model_is_what_the_target_started_from_and_never_the_name_of_a_stage(
    tmp_path, model, name
):
    config = {"model": model, "stages": {"target": {"data": {"train": "full"}}}}
    run = run_data.read_run(write_run(tmp_path / "run", metrics=TOFU, config=config))
    assert read_list("facts", run)["model"] == name
    assert read_list("recipe", run)["model"] == name
