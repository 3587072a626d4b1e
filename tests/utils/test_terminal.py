"""Texts of data, models, servers and file names are shown on the terminal, never obeyed."""

import dataclasses
import io
import json
import re
import shutil

import pytest
from rich.table import Table

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support.evaluation_logs import log
from tests.support.hangs import wait_until
from tests.support.mutations import HOSTILE, controls_in
from tests.support.small_run import finished
from tif import fit, report
from tif.data.samples import Sample, Span
from tif.identifiers.span_file import write_spans
from tif.records.files import read_evaluation, write_evaluation
from tif.reports import sweep as sweep_report
from tif.reports.run_tables import model_card
from tif.sweep import command as sweep
from tif.utils import terminal
from tif.utils.terminal import console, escape_controls, progress_bar

NAME = HOSTILE.replace("\0", "")  # a file may have it
STYLES = re.compile(r"\x1b\[[0-9;]*m")  # what rich itself writes


def assert_shown(text, times=1):
    """Check that a hostile text is shown, and that nothing in it is obeyed."""
    assert controls_in(STYLES.sub("", text)) == set()
    flat = "".join(text.split())
    assert flat.count(r"\x1b[2J\x1b]8;;ftp:x\x07a") >= times
    assert flat.count(r"\u202eb\u2066\rc[red]d[blink]") >= times
    assert "\x1b[31md" not in text


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """No name is folded."""
    monkeypatch.setattr(console, "_width", 600)


@pytest.fixture
def on_terminal(monkeypatch):
    """Make the console believe that it prints on a terminal with colours; give what it writes."""
    output = io.StringIO()
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "is_interactive", True)
    monkeypatch.setattr(console, "_color_system", 2)
    monkeypatch.setattr(console, "_file", output)
    monkeypatch.setenv("TERM", "xterm")
    return output


def test_control_characters_are_spelled_out_and_text_of_any_script_stays():
    plain = "a\tb\n é 漢字 العربية ‏שלום 👩‍👩‍👧 \\x1b [[x]] \u00a0 \ufeff"
    assert escape_controls(plain) == plain
    for code in [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]:
        if chr(code) not in "\n\t":
            assert controls_in(escape_controls(chr(code))) == set(), hex(code)
            assert escape_controls(chr(code)) == ascii(chr(code))[1:-1]
    assert escape_controls("\ud83d\u2028").encode() == rb"\ud83d\u2028"


def test_the_console_shows_strings_texts_and_cells(on_terminal):
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(terminal.literal(HOSTILE, "red"))
    console.print("a [/red] b")
    for shown in (HOSTILE, terminal.literal(HOSTILE, "dim"), table):
        console.print(shown, soft_wrap=True)
    assert_shown(on_terminal.getvalue(), 6)


def test_progress_bars_show_their_names_and_notes(on_terminal, monkeypatch):
    monkeypatch.setattr(terminal._display, "disable", False)
    monkeypatch.setattr(terminal._display.live, "transient", False)
    with progress_bar(HOSTILE[:30] + "[red]x[/red]", 1) as bar:
        bar.advance(note=HOSTILE[:8] + "[red]y[/red]")
        terminal._display.refresh()
    output = re.sub(r"\x1b\[[0-9;?]*[mhlAK]|\r", "", on_terminal.getvalue())
    assert controls_in(output) == set()
    assert "[red]x[/red]" in output
    assert "[red]y[/red]" in output


@pytest.mark.parametrize("flags", [[], ["--html"]])
@pytest.mark.parametrize("colour", [False, True])
def test_show_and_its_page(tmp_path, capsys, flags, colour, request):
    output = request.getfixturevalue("on_terminal") if colour else None
    path = tmp_path / f"{NAME}.jsonl"
    samples = [Sample(HOSTILE, HOSTILE, HOSTILE * 2, (Span(2, len(HOSTILE) + 3),))]
    write_spans(path, samples, {"kind": HOSTILE})
    assert identify.main(["show", str(path), *flags]) == 0
    assert_shown(output.getvalue() if colour else capsys.readouterr().out)
    if flags:
        page = path.with_suffix(".html").read_text(encoding="utf-8")
        assert controls_in(page) == set()


def test_comparisons_and_evaluations_with_hostile_names(tmp_path, capsys):
    path = tmp_path / f"{NAME}.jsonl"
    write_spans(path, [Sample("a", "Q?", "A b.", (Span(0, 1),))], {"kind": "gold"})
    evaluation = read_evaluation(log(tmp_path / "log.json"))
    records = tmp_path / "records"
    write_evaluation(records, dataclasses.replace(evaluation, model=HOSTILE), {})
    for words in (["compare", str(path), str(path)], ["compare", str(path), "--json"]):
        assert identify.main(words) == 0
        shown = capsys.readouterr().out
        assert controls_in(shown) == set()
    assert json.loads(shown)["gold"] == path.stem
    assert evaluate.main([f"records={records}"]) == 0
    assert_shown(capsys.readouterr().out)
    assert evaluate.main([f"records={records}", "--json"]) == 0
    shown = capsys.readouterr().out
    assert controls_in(shown) == set()
    assert json.loads(shown)["model"] == HOSTILE


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit.main([f"data.path={NAME}", "data.benchmark=tofu"]),
        lambda: fit.main([f"--{NAME}"]),
        lambda: fit.main([f"{NAME}.yaml"]),
        lambda: identify.main(["show", NAME]),
        lambda: identify.main(["compare", f"{NAME}.jsonl"]),
        lambda: identify.main([f"out={NAME}"]),
        lambda: evaluate.main([f"records={NAME}"]),
        lambda: evaluate.main([f"--{NAME}"]),
        lambda: sweep.main([f"{NAME}.yaml"]),
        lambda: sweep.main([f"--{NAME}"]),
        lambda: report.main([NAME]),
    ],
)
def test_error_lines(capsys, call):
    try:
        code = call()
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    shown = capsys.readouterr()
    assert controls_in(shown.err) == set()
    assert r"\x1b[2J\x1b]8;;ftp:x\x07a" in shown.err
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert fit.main([f"{NAME}=1"]) == 2
    assert controls_in(capsys.readouterr().err) == set()


def test_a_configuration_is_printed_in_escapes_that_yaml_reads_again(tmp_path, capsys):
    words = [f"run.name={NAME!r}", "data.template='{prompt} \u202e\u00a0é'"]
    assert fit.main([*words[1:], "--print"]) == 0
    shown = capsys.readouterr().out
    assert controls_in(shown) == set()
    (tmp_path / "again.yaml").write_text(shown)
    assert fit.main([str(tmp_path / "again.yaml"), "--print"]) == 0
    assert capsys.readouterr().out == shown
    assert r"\u202e" in shown.lower()


def test_a_report_and_a_model_card_of_a_hostile_run(tmp_path_factory, tmp_path, capsys):
    run = shutil.copytree(finished(tmp_path_factory).folder, tmp_path / f"# <b>{NAME}")
    for path in run.glob("eval/*/forget.json"):
        content = json.loads(path.read_text())
        for record in content["records"].values():
            record |= dict.fromkeys(("prompt", "answer", "generated"), HOSTILE)
        path.write_text(json.dumps(content))
    assert report.main([str(run)]) == 0
    assert_shown(capsys.readouterr().out)
    card = model_card(run).splitlines()
    (heading,) = [line for line in card if line.startswith("# ")]
    assert controls_in(heading) == set()
    assert heading.startswith(r"# # \<b\>\\x1b\[2J")
    assert card[:4] == ["---", "library_name: transformers", "tags: [machine-unlearning]", "---"]


def test_results_of_a_sweep_with_hostile_names(tmp_path, capsys):
    rows = [{"epoch": n, "step": n, "forget/quality": 0.1, "utility/model": 0.2} for n in (0, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = sweep_report.write_results(tmp_path, {f"{HOSTILE} $\\frac$ | x": [tmp_path]})
    sweep_report.show_results(tmp_path, results)
    assert_shown(capsys.readouterr().out)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert controls_in(table) == set()
    header, _, *lines = table.partition("\n\n")[0].splitlines()
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in (header, *lines)]
    assert len(set(bars)) == 1


def test_the_list_of_a_sweep(tmp_path, capsys):
    runs = {HOSTILE: [f"data.template={HOSTILE} {{prompt}}"]}
    file = {"name": "x", "base": ["quickstart.yaml"], "seeds": [0], "runs": runs}
    (tmp_path / "sweep.yaml").write_text(json.dumps(file))
    sweep.main([str(tmp_path / "sweep.yaml"), "--list"])
    shown = capsys.readouterr()
    assert controls_in(shown.out + shown.err) == set()
    assert r"\x1b[2J" in shown.out + shown.err


def test_the_name_of_a_run_at_weights_and_biases(tmp_path, monkeypatch):
    from tif.config.run import Wandb
    from tif.reports.wandb_run import Labels, RunLogger

    logger = RunLogger(Wandb(enabled=True), tmp_path / NAME, Labels(NAME, NAME, "unlearn"))
    assert controls_in(logger._name) == set()
    assert logger._name.startswith(r"\x1b[2J")
    assert logger.save_dir == str(tmp_path / NAME)


def test_a_bar_follows_the_size_of_the_files_that_are_written(monkeypatch, tmp_path):
    seen = []

    class Recorded(terminal.Bar):
        def advance(self, steps=1, note=None):
            seen.append(steps)
            super().advance(steps, note)

    monkeypatch.setattr(terminal, "Bar", Recorded)
    monkeypatch.setattr(terminal, "MIN_SHOWN_BYTES", 1)
    with terminal.file_bar("writing", tmp_path, 5 * 10**6):
        (tmp_path / "a").write_bytes(bytes(3 * 10**6))
        wait_until(lambda: sum(seen) >= 3)
        (tmp_path / "b").write_bytes(bytes(2 * 10**6))
        wait_until(lambda: sum(seen) >= 5)
    assert sum(seen) == 5
    assert not terminal._display.task_ids


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_durations_are_written_for_people(seconds, text):
    assert terminal.describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("speed", "text"), [(None, ""), (3.21, "3.2/s"), (0.25, "4 s each"), (1234.0, "1,234/s")]
)
def test_rates_are_items_a_second_or_seconds_an_item(speed, text):
    assert terminal.describe_rate(speed) == text


def test_a_long_note_leaves_bar_count_and_time_in_a_narrow_terminal(on_terminal, monkeypatch):
    monkeypatch.setattr(console, "_width", 80)
    monkeypatch.setattr(terminal._display, "disable", False)
    with progress_bar("unlearning", 60) as bar:
        bar.advance(7, note="epoch 3  loss 13.679  lpl 13.609  pl 0.131  retain 0.019  more 1.234")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", capture_bars())
    line = next(line for line in shown.splitlines() if "7/60" in line)
    assert len(line.rstrip()) <= 80
    for word in ("unlearning", "━", "7/60", "left", "epoch 3"):
        assert word in line
    assert line.rstrip().endswith("…")


def capture_bars():
    """Return what the display of progress bars shows."""
    with console.capture() as shown:
        console.print(terminal._display.make_tasks_table(terminal._display.tasks))
    return shown.get()


def test_a_line_of_words_is_wrapped_in_a_terminal_and_whole_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr(console, "_width", 20)
    terminal.print_line("preset: quickstart.yaml, model: stage target")
    assert capsys.readouterr().out == "preset: quickstart.yaml, model: stage target\n"
    monkeypatch.setattr(console, "_force_terminal", True)
    terminal.print_line("preset: quickstart.yaml, model: stage target")
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [
        "preset:",
        "quickstart.yaml,",
        "model: stage target",
    ]


def test_in_a_log_a_bar_prints_a_line_a_minute_with_the_time_that_is_left(monkeypatch, capsys):
    clock = iter(range(0, 1000, 25))  # a look at the clock is 25 seconds later than the one before
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(terminal._display, "get_time", lambda: 0.0)
    with progress_bar("models\x1b[2J", 400) as bar:
        for _ in range(4):
            bar.advance(100)
    assert capsys.readouterr().out == "models\\x1b[2J: 300 of 400\n"
    monkeypatch.undo()
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0)
    now = [0.0]
    monkeypatch.setattr(terminal._display, "get_time", lambda: now[0])
    with progress_bar("models", 3) as bar:
        for moment in (20, 28):
            now[0] = moment
            bar.advance()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "models: 1 of 3"
    assert second == "models: 2 of 3, 8 s left"
