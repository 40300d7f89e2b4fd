"""Write the figures of README and pages of docs from those that are stored.

    python benchmarks/result_tables.py [--check]

examples/models/clic holds ``metrics.json`` of the run that trained the model (stage validate) and
``fresh_events.json``, the last line of

    python benchmarks/physics.py --model examples/models/clic --events 6000

benchmarks/data/physics_demo.json is the same of three trainings of preset demo,
physics_cld.json, physics_cld_zh.json (``--sample zh``) and physics_cms_like.json beside it are of
``physics.py RESULTS_DIR``,
benchmarks/data/hpo_public.json what ``hpo_public.py --store`` writes, benchmarks/data/ablation.json
what ``ablation.py --store`` writes, benchmarks/data/robustness.json what ``robustness.py --store``
writes.

Each page has places between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``; what stands there
is made here. ``--check`` writes nothing and fails if a page says something else, as a test does.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "models" / "clic"
DEMO = ROOT / "benchmarks" / "data" / "physics_demo.json"
DETECTORS = {
    title: DEMO.with_name(f"physics_{name}.json")
    for title, name in {
        "cld": "cld",
        "cld, ZH (never trained on)": "cld_zh",
        "cms_like": "cms_like",
    }.items()
}
SEARCHES = ROOT / "benchmarks" / "data" / "hpo_public.json"
ABLATION = ROOT / "benchmarks" / "data" / "ablation.json"
ROBUSTNESS = ROOT / "benchmarks" / "data" / "robustness.json"
PAGES = ("README.md", "docs/results.md", "docs/hpo.md", "docs/model.md")
_VIEWS = ("target", "ideal", "mlpf", "baseline")
_HEAD = "| | targets | ideal | MLPF | rules |\n|---|---|---|---|---|"


def _measured(entry: dict[str, float], digits: int) -> str:
    return f"{entry['value']:.{digits}f} ± {entry['error']:.{digits}f}"


def jets_table(metrics: dict[str, Any]) -> str:
    """Return jets and sums of whole events, view by view."""
    jets, met = metrics["jets"]["inclusive"], metrics["met"]["inclusive"]
    rows = {
        "jet pT resolution, IQR/median, jets above 10 GeV": [
            _measured(jets[v]["response"]["resolution"], 4) for v in _VIEWS
        ]
    }
    for name, of_sample in metrics["by_sample"].items():
        found = of_sample["jets"]["inclusive"]
        rows[f"the same, sample {name}"] = [
            _measured(found[v]["response"]["resolution"], 4) for v in _VIEWS
        ]
    rows |= {
        "jet pT response, median": [_measured(jets[v]["response"]["median"], 4) for v in _VIEWS],
        "jet matching efficiency": [f"{jets[v]['efficiency']['value']:.3f}" for v in _VIEWS],
        "fake-jet rate": [f"{jets[v]['fake_rate']['value']:.3f}" for v in _VIEWS],
        "missing px, py: IQR of the residual (GeV)": [
            _measured(met[v]["component_residual"]["iqr"], 2) for v in _VIEWS
        ],
        "visible energy, IQR/median": [
            _measured(metrics["visible_energy"][v]["resolution"], 4) for v in _VIEWS
        ],
    }
    return "\n".join([_HEAD, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])


def classes_table(metrics: dict[str, Any]) -> str:
    """Return efficiency, fake rate, mislabelled and wrong charge by class."""
    views = ("target", "mlpf", "baseline")
    lines = [
        "| efficiency / fake rate / mislabelled / wrong charge | targets | MLPF | rules |",
        "|---|---|---|---|",
    ]
    for name, found in metrics["particles"].items():
        cells = []
        for view in views:
            values = [
                f"{found[view][key]['value']:.3f}"
                for key in ("efficiency", "fake_rate", "mislabelled", "wrong_charge")
                if key in found[view]
            ]
            cells.append(" / ".join(values))
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gap(metrics: dict[str, Any]) -> str:
    """Return what of the gap from rules to ideal is closed."""
    closed = metrics["gap_closed"]
    jets, energy = (
        f"{100 * closed[name]['value']:.0f} ± {100 * closed[name]['error']:.0f} %"
        for name in ("jets", "visible_energy")
    )
    return (
        f"Of the gap from rules to ideal particle flow the network closes {jets} in jets and"
        f" {energy} in visible energy ({metrics['n_events']} test events)."
    )


def judged_table(columns: dict[str, dict[str, Any]]) -> str:
    """Return what ``physics.py`` tells, a column for each call."""
    rows = {
        "jet resolution, MLPF": "jet_resolution",
        "the same, rules": "baseline",
        "the same, ideal": "ideal",
        "gap closed, jets": "gap_closed",
        "gap closed, visible energy": "visible_energy_gap_closed",
        "jets, MLPF / rules, the worst bin of pT that counts": "worst_bin_ratio",
        "visible energy, MLPF / rules": "visible_energy_ratio",
        "missing px, py, MLPF / rules": "met_ratio",
        "pT of charged hadrons, MLPF / their tracks": "charged_pt_ratio",
    }
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines.append(f"| trainings | {' | '.join(str(c['n_models']) for c in columns.values())} |")
    lines.append(
        f"| events judged | {' | '.join(str(c['n_events'][0]) for c in columns.values())} |"
    )
    for text, key in rows.items():
        cells = [
            "-" if c[key] is None else f"{c[key]:.4f} ± {c[key + '_error']:.4f}"
            for c in columns.values()
        ]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    words = {True: "yes", False: "no", None: "-"}  # null: events do not suffice
    within = [words[c["median_within_1_percent"]] for c in columns.values()]
    lines.append(f"| median response within 1 % in every bin that counts | {' | '.join(within)} |")
    return "\n".join(lines)


def public_table(figures: dict[str, Any]) -> str:
    """Return searches on public tables: ratios of regrets over all tasks, the best first."""
    rows = {}
    for name, found in figures["1"]["test"].items():
        if name.startswith("random x"):  # what the last column counts in
            continue
        tasks = found["tasks"].values()
        ratios = [task["to_asha_random"] for task in tasks]
        mean = math.exp(sum(math.log(ratio) for ratio, _, _ in ratios) / len(ratios))
        worths = [task["random_worth"] for task in tasks]
        better, worse = sum(high < 1 for *_, high in ratios), sum(low > 1 for _, low, _ in ratios)
        rows[name] = (
            mean,
            f"| {name} | {found['seeds']} | {mean:.2f} ({max(ratios)[0]:.2f})"
            f" | {better} / {worse} | {min(worths):g} to {max(worths):g} |",
        )
    head = "| search | seeds | mean ratio (worst task) | better / worse | random x |"
    return "\n".join([head, "|---|---|---|---|---|", *(line for _, line in sorted(rows.values()))])


def ablation_table(figures: dict[str, Any]) -> str:
    """Return what each part is worth: change by change, jets and the event's sums."""
    lines = [
        "| change | seeds | jet resolution | over that as shipped | visible energy, over rules"
        " | missing px, py, over rules |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["changes"].items():
        cells = [
            f"{row[key]:.{digits}f} ± {row[f'{key}_error']:.{digits}f}"
            for key, digits in (
                ("jet_resolution", 4),
                ("against_shipped", 3),
                ("visible_energy_ratio", 3),
                ("met_ratio", 3),
            )
        ]
        if name == "as shipped":
            cells[1] = ""
        lines.append(f"| {name} | {row['n_models']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def robustness_table(figures: dict[str, Any]) -> str:
    """Return how figures of network / rules move in a detector other than that of the training."""
    lines = [
        "| network / rules | jet resolution | jet response | missing px, py: IQR (GeV)"
        " | fake neutral hadrons |",
        "|---|---|---|---|---|",
    ]
    changes = figures["changes"]
    for change in sorted(changes, key=lambda name: (name != "as configured", name)):
        both = [changes[change][reco] for reco in ("mlpf", "baseline")]
        cells = [
            " / ".join(
                f"{one['jet_resolution']:.4f} ± {one['jet_resolution_error']:.4f}" for one in both
            )
        ]
        cells += [" / ".join(f"{one['jet_response']:.3f}" for one in both)]
        cells += [" / ".join(f"{one['missing_iqr_gev']:.2f}" for one in both)]
        cells += [" / ".join(f"{one['fakes_neutral_hadron']:.3f}" for one in both)]
        lines.append(f"| {change} | {' | '.join(cells)} |")
    return "\n".join(lines)


def terms_table(figures: dict[str, Any]) -> str:
    """Return how the terms of the validation loss order the models of the ablation."""
    ranks = sorted(figures["rank_correlations"].items(), key=lambda item: -item[1])
    return "\n".join(
        [
            "| term | rank correlation |",
            "|---|---|",
            *(f"| {name.replace('_', ' ')} | {value:.2f} |" for name, value in ranks),
        ]
    )


def rewritten(text: str, parts: dict[str, str]) -> str:
    """Return a page with the places that it has filled in."""
    for name, content in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def main(arguments: list[str] | None = None) -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page differs")
    options = parser.parse_args(arguments)
    metrics = json.loads((MODEL / "metrics.json").read_text(encoding="utf-8"))
    fresh = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in {"reference": MODEL / "fresh_events.json", "demo": DEMO}.items()
    }
    detectors = {
        title: json.loads(file.read_text(encoding="utf-8")) for title, file in DETECTORS.items()
    }
    ablation = json.loads(ABLATION.read_text(encoding="utf-8"))
    searches = json.loads(SEARCHES.read_text(encoding="utf-8"))
    parts = {
        "jets": jets_table(metrics),
        "classes": classes_table(metrics),
        "gap": gap(metrics),
        "fresh": judged_table(fresh),
        "detectors": judged_table(detectors),
        "public": public_table(searches),
        "ablation": ablation_table(ablation),
        "terms": terms_table(ablation),
        "robustness": robustness_table(json.loads(ROBUSTNESS.read_text(encoding="utf-8"))),
    }
    pages = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    for part in parts:
        if not any(f"<!-- {part}: begin -->" in text for text in pages.values()):
            sys.exit(f"{' and '.join(PAGES)}: no place for {part}; put its two marks into one")
    for name, old in pages.items():
        new = rewritten(old, parts)
        if new != old and options.check:
            sys.exit(f"{name}: says other figures than the stored ones; run {Path(__file__).name}")
        if new != old:
            (ROOT / name).write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
