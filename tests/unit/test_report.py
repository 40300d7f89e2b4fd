import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from particleforge.pages.figures import LABELS
from particleforge.pages.rendering import measured, number
from particleforge.report.bought import bought
from particleforge.report.build import ReportInputs, build_report
from particleforge.report.physics import verdict
from particleforge.tables import parquet
from particleforge.validation.captions import captions

from .report_inputs import SAMPLES, finish, report_settings, write_report_inputs
from .validation_inputs import rewrite, without_deposits

SECTIONS = (
    "headline",
    "physics",
    "displays",
    "search",
    "training",
    "export",
    "data",
    "checks",
    "cutflow",
    "cost",
    "origin",
)


class Page(HTMLParser):
    """Collects what a page refers to, and its balance of tags."""

    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data"):
                self.references.append(value or "")
        if tag == "img":
            self.alternatives.append(dict(attrs).get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, str]:
    folder = tmp_path_factory.mktemp("report")
    inputs = write_report_inputs(folder, 90)
    finish(inputs)
    build_report(report_settings(), inputs, folder / "report.html")
    return inputs, (folder / "report.html").read_text(encoding="utf-8")


def test_page_has_every_section_and_picture(built: tuple[ReportInputs, str]) -> None:
    inputs, text = built
    page = Page(text)
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert not page.open
    for name in (
        *captions(report_settings().particle_classes),
        *inputs.hpo_plots,
        "cutflow",
        "training_curves",
    ):
        assert f"figure-{name}" in page.ids, name
    assert len(set(page.ids)) == len(page.ids)
    assert (
        sum(name.startswith("figure-event_") for name in page.ids)
        == len(SAMPLES) * report_settings().report.n_event_displays
    )
    for label in LABELS.values():
        assert label in text
    assert "share of the gap closed" in text
    for head in ("splitting", "merging", "energy above 1"):
        assert f">{head}</th>" in text, head
    assert all(
        reference[1:] in page.ids for reference in page.references if reference.startswith("#")
    )


def test_energy_is_accounted_for_by_sample_and_by_file(built: tuple[ReportInputs, str]) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", built[1]))
    heads = "targets of it merged dropped as unusable as shared track as no cluster"
    assert text.count(heads) == 2  # samples, and files
    for sample in SAMPLES:
        rows = re.findall(
            rf" {sample}-[01].root ([\d.]+) ([\d.]+) ((?:[\d.]+ % ){{4}})([\d.]+) ((?:[\d.]+ %"
            r" ){6})",
            text,
        )
        (of_sample,) = re.findall(
            rf" {sample} ([\d.]+) ([\d.]+) ((?:[\d.]+ % ){{4}})([\d.]+) ((?:[\d.]+ % ){{6}}-"
            r" [\d.]+ %)",
            text,
        )
        assert len(rows) == 2
        assert float(of_sample[0]) == 2 * float(rows[0][0]) == 180  # events
        assert 2 * float(rows[0][1]) == pytest.approx(float(of_sample[1]), abs=0.2)
        assert of_sample[3] == of_sample[1]  # generated here only what is visible
        shares = [float(share.strip(" %")) for share in re.findall(r"[\d.]+ %", of_sample[4])]
        assert shares[0] + shares[2] == pytest.approx(100, abs=0.02)
        assert shares[3:6] == [0, 0, shares[2]]


def test_page_needs_nothing_else(built: tuple[ReportInputs, str]) -> None:
    page = Page(built[1])
    assert all(
        reference.startswith(("#", "data:image/png;base64,")) for reference in page.references
    )
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\(", built[1])
    assert len(built[1]) < 5e6
    assert "Reads &lt;features&gt;" in built[1]  # what other stages wrote is text, not markup


def test_every_picture_has_an_alternative_text_of_its_own(built: tuple[ReportInputs, str]) -> None:
    found = Page(built[1]).alternatives
    assert all(found) and len(set(found)) == len(found)
    (event,) = [text for text in found if text.startswith("Event display of qq")]
    assert re.search(r"\d+ tracks and \d+ clusters; truth \d+ particles, [\d.]+ GeV; MLPF", event)


def test_page_opens_with_the_answer_and_folds_what_is_of_single_files(
    built: tuple[ReportInputs, str],
) -> None:
    text = built[1]
    first = text[text.index("<h2>") : text.index("<table")]
    for sentence in (
        "The jet resolution of MLPF is",
        "Search: Against the configured settings at equal budget (10 steps) the search lowered",
        "values that were compared keep to their limits.",
        "Cost: The results took ",
    ):
        assert sentence in first
    folded = "".join(re.findall("<details>.*?</details>", text, re.S))
    unfolded = re.sub("<details>.*?</details>", "", text, flags=re.S)
    for name in ("qq-0.root", "loss is nan"):
        assert name in folded and name not in unfolded


def test_cost_by_stage(built: tuple[ReportInputs, str]) -> None:
    """All was written by one process, which counts once a stage."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", built[1]))
    for stage in ("select events", "gather cutflows", "check dataset"):
        assert re.search(rf" {stage} 1 \d+\.\d{{3}} \d+\.\d{{3}} \d+\.\d\d \d+\.\d\d", text)
    assert " build report 1 " not in text


def test_same_inputs_same_page(built: tuple[ReportInputs, str], tmp_path: Path) -> None:
    inputs, text = built
    again = inputs.physics_metrics.parents[1] / "again.html"
    build_report(report_settings(), inputs, again)
    assert again.read_text(encoding="utf-8") == text


def test_page_of_nothing(tmp_path: Path) -> None:
    inputs = write_report_inputs(tmp_path, 0)
    finish(inputs)
    build_report(report_settings(), inputs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Too few matched jets to compare resolutions (0 for MLPF and 0 for baseline PF)." in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace(
        "loss is nan", ""
    ).replace("resonance", "")


def test_the_search_tells_its_cost(built: tuple[ReportInputs, str]) -> None:
    """Six trainings of two ranks and two seconds each; the best configuration had two of them."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", built[1]))
    assert (
        "Cost: 0.006667 rank hours, ranks times the time of the trainings; that is 3 times the"
        " trainings of the best" in text
    )
    assert "0 5 4 1 0.004444 66.67 % 0.001111" in text
    assert "c00001 0.16 0.0141 0.15, 0.17 0" in text
    assert "5 c00001 0.16 0.031" in text


DEFAULT = {"budget": 10.0, "budget_unit": "steps"}
RANDOM = {"rank_hours": 0.5, "estimated": False}


def test_one_sentence_says_what_the_search_bought() -> None:
    assert bought(DEFAULT | {"relative_change": -0.142}, RANDOM | {"relative_change": 0.021}) == (
        "Against the configured settings at equal budget (10 steps) the search lowered the"
        " validation loss by 14.2%; against random search in equal hours (0.5 rank hours) the"
        " search bought nothing: its validation loss is 2.1% higher."
    )
    assert "bought nothing: its validation loss is the same;" in bought(
        DEFAULT | {"relative_change": 0.0}, RANDOM | {"relative_change": -0.1}
    )
    assert bought(None, {"reason": "too short"}) == (
        "There is no comparison with the configured settings (hpo.include_default is off); there is"
        " no comparison with random search (too short)."
    )


def test_numbers_as_text() -> None:
    assert measured(None) == measured({"value": None, "low": None, "high": None}) == "-"
    assert measured({"value": 0.10432, "error": 0.0031}) == "0.1043 ± 0.0031"
    assert measured({"value": 12.34, "error": 3.2}) == "12.3 ± 3.2"
    assert measured({"value": 1.0, "error": 0.0}) == "1.0000 ± 0.0000"
    assert measured({"value": 0.95, "low": 0.93, "high": 0.96}) == "0.950 [0.930, 0.960]"
    assert number(1234567) == "1\u202f234\u202f567"
    assert number(0.000123456) == "0.0001235"
    assert number(float("nan")) == number(None) == "-"


JETS = {reco: {"response": {"n": 1000}} for reco in ("mlpf", "baseline")}


def told(value: float, error: float, gap: dict[str, float] | None = None) -> str:
    return verdict(JETS, {"value": value, "error": error}, gap)


def test_verdict_follows_the_figures() -> None:
    assert told(0.667, 0.01) == (
        "The jet resolution of MLPF is 33% ± 1% better than that of the baseline, on the same"
        " events."
    )
    assert told(0.667, 0.01, {"value": 0.5, "error": 0.03}).endswith(
        " That closes 50% ± 3% of the gap between baseline and ideal particle flow."
    )
    assert "20% ± 1% worse" in told(1.2, 0.01)
    assert "is 2.5 ± 0.1 times as wide as that of the baseline" in told(2.5, 0.1)
    assert "closes" not in told(1.2, 0.01, {"value": -0.3, "error": 0.03})
    assert "cannot be told apart" in told(0.99, 0.01)
    assert verdict(JETS, None, None).startswith("Too few matched jets")
    assert told(1.5, 74.0) == verdict(JETS, None, None)


def test_page_without_deposits_has_no_ideal(tmp_path: Path) -> None:
    inputs = write_report_inputs(tmp_path, 20)
    for path in inputs.selected:
        rewrite(path, without_deposits(parquet.read_table(path)))
    finish(inputs)
    build_report(report_settings(), inputs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert LABELS["target"] in text
    assert not re.search(
        "ideal|share of the gap closed",
        re.sub(r"base64,[^\"]*|<style.*?</style>", "", text, flags=re.S),
        re.I,
    )
