"""The report in a browser: needs Debian's chromium and `pip install playwright`."""

import json
import shutil

import pytest

from tests.support.hangs import HANG, wait_until
from tests.support.report_runs import write_run
from tif.audit.page_section import write_report
from tif.reports.html.comparison import write_comparison
from tif.reports.html.run_report import write_run_report

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ODD = "</script><script>document.title='hacked'</script><b>bold</b> مرحبا بك 🙂 {{ 7 * 7 }}"
NAMES = ("forget/quality", "utility/model", "eval/score", "forget/extraction_strength")


def metrics(epochs):
    return [
        dict(zip(NAMES, (0.1 * epoch / epochs, 0.5, 0.2, 0.3), strict=True))
        for epoch in range(epochs)
    ]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Open a page, and check at the end that it logged nothing and asked for nothing but itself."""
    opened = []

    def open_page(path, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(1000 * HANG)
        log, requests = [], []
        page.on("console", lambda message: log.append(message.text))
        page.on("pageerror", lambda error: log.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append((page, log, requests, path.as_uri()))
        page.goto(path.as_uri())
        page.wait_for_selector("svg[role=img]")
        return page

    yield open_page
    for page, log, requests, address in opened:
        assert log == []
        assert requests == [address]
        page.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three epochs; the first forget question holds markup, and its answer is learned."""
    run = write_run(
        tmp_path_factory.mktemp("browser") / "run",
        metrics=metrics(3),
        sets={"forget": 15, "retain": 5},
    )
    for epoch in ("0", "1", "2", "retain_model"):
        path = run / "eval" / epoch / "forget.json"
        content = json.loads(path.read_text())
        content["records"]["forget/0"] |= {"prompt": ODD, "generated": ODD}
        path.write_text(json.dumps(content))
    return run


def wait_for_samples(page, count):
    """Wait until so many samples are shown; the page's policy forbids Playwright's functions."""
    samples = page.locator(".sample")

    def is_shown():
        page.wait_for_timeout(20)  # the page's own turn
        return samples.count() == count

    wait_until(is_shown, lambda: f"{samples.count()} samples, want {count}")


def test_every_tool_of_the_samples_works(visit, folder):
    page = visit(write_run_report(folder)[0])
    assert page.locator(".sample").count() == 12
    assert page.locator(".count").text_content() == "20 questions"
    page.click("button.more")
    assert page.locator(".sample").count() == 20

    page.fill("[name=find]", "author 3 born")
    wait_for_samples(page, 2)
    page.fill("[name=find]", "")
    page.select_option("[name=set]", "retain")
    wait_for_samples(page, 5)
    page.select_option("[name=set]", "")
    page.select_option("[name=filter]", "least")
    assert page.locator(".count").text_content() == "15 of 20 questions"
    shown = page.locator(".sample .nums span:nth-child(2) b").all_text_contents()  # UW p
    likely = [float(text) for text in shown if "×" not in text]
    assert likely == sorted(likely, reverse=True)
    assert len(likely) > 5
    page.select_option("[name=filter]", "hurt")
    assert "retain" in page.locator(".sample .id").first.text_content()
    page.select_option("[name=filter]", "said")
    assert page.locator(".gens mark").first.text_content() == "Oslo"

    page.select_option("[name=filter]", "all")
    last = page.locator(".sample").nth(1).locator(".nums").text_content()
    page.evaluate("""() => { const slider = document.querySelector('[name=epoch]');
        slider.value = 1; slider.dispatchEvent(new Event('input')); }""")
    assert page.locator(".tools output").text_content() == "epoch 1"
    assert page.locator(".sample").nth(1).locator(".nums").text_content() != last
    page.click(".segments button[value=retain]")
    assert page.locator(".segments [aria-pressed=true]").text_content() == "retain model"
    page.click(".segments button[value=before]")
    assert "change" not in page.locator(".sample").nth(1).locator(".nums").text_content()


def test_hovering_over_a_token_shows_its_numbers_in_every_model(visit, folder):
    page = visit(write_run_report(folder)[0])
    token = page.locator(".sample").nth(1).locator(".t.u").first
    assert token.text_content() == "Oslo"
    token.hover()
    text = page.locator(".tip").text_content()
    for part in ("“Oslo” unwanted word", "before", "epoch 2", "retain model", "log p"):
        assert part in text


def test_folded_curves_of_an_audit_are_drawn_when_they_are_opened(visit, tmp_path):
    run = write_run(tmp_path / "run", metrics=metrics(3))
    points = {"10 %, facts stated": [[0, 0.1], [20, 0.5]], "10 %, ROUGE-L": [[0, 0.4], [20, 0.6]]}
    row = {
        "measure": "10 %, facts stated",
        "target": 1.0,
        "unlearned": 0.5,
        "retain": 0.1,
        "leak": 0.4,
    }
    attack = {
        "headline": "10 %, facts stated", "action": "relearning", "axis": "steps",
        "rows": [row | {"interval": None}],
        "curves": dict.fromkeys(("target", "unlearned", "retain"), points),
    }  # fmt: skip
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps({"attacks": {"relearn": attack}}))
    page = visit(write_report(run)[0])
    assert page.locator("[data-chart=audit-relearn-0] path").count() == 3
    folded = page.locator("[data-chart=audit-relearn-1] path")
    assert folded.count() == 0
    page.locator("#audit details summary").first.click()
    folded.nth(2).wait_for(state="attached")
    assert folded.count() == 3


def test_markup_in_the_data_is_text(visit, folder):
    page = visit(write_run_report(folder)[0])
    assert page.title() == "run – tif report"
    assert page.locator(".sample .q").first.text_content() == ODD
    assert page.locator(".sample .gens p").first.text_content() == ODD
    assert page.locator(".sample b").all_text_contents().count("bold") == 0


def test_no_page_is_wider_than_a_phone(visit, folder, tmp_path):
    other = write_run(tmp_path / "other", metrics=metrics(3), config={"loss": {"forget": "npo"}})
    write_comparison([folder, other], tmp_path / "both.html", "both")
    for path in (write_run_report(folder)[0], tmp_path / "both.html"):
        page = visit(path, width=390)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("count", [400, 4000])
def test_a_large_report_opens_with_its_first_answers_only(visit, tmp_path, count):
    """What it draws before anything is asked for does not grow with the number of answers."""
    run = write_run(tmp_path / "run", epochs=20, metrics=metrics(20), sets={"forget": count})
    path, _ = write_run_report(run)
    assert path.stat().st_size < 10_000_000
    page = visit(path)
    page.wait_for_selector(".sample")
    print(f"{count} answers, 20 epochs: {path.stat().st_size / 1e6:.1f} MB")
    assert page.locator(".sample").count() == 12
