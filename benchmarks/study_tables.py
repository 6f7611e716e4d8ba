"""Tables of finished studies, as Markdown on standard output and as one JSON file each.

::

    python benchmarks/study_tables.py NAME=STUDY [NAME=STUDY ...] --out benchmarks/results
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
from pathlib import Path
from typing import Any

KEPT = (
    *(
        "weighted_f1",
        "macro_f1",
        "weighted_f1_fixed",
        "weighted_f1_minus_superactivators",
        "chosen",
        "best_kind_on_cal",
    ),
    *("cal_weighted_f1", "positives", "deltas", "resamples", "seed", "seconds", "peak_memory_bytes"),
    *("memory_before_states_bytes", "torch_threads", "packages"),
)


def shown(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def table(name: str, summary: dict[str, Any]) -> str:
    kinds = list(summary["weighted_f1"])
    lines = [
        f"### {name}",
        "",
        f"| method | {' | '.join(f'{kind}: weighted F1 | {kind}: lead of SuperActivators' for kind in kinds)} |",
        f"| --- |{' --- | --- |' * len(kinds)}",
    ]
    for method in summary["weighted_f1"][kinds[0]]:
        cells = []
        for kind in kinds:
            behind = summary["weighted_f1_minus_superactivators"].get(kind, {}).get(method)
            lead = "" if behind is None else f"{-behind['value']:+.3f} [{-behind['high']:+.3f}, {-behind['low']:+.3f}]"
            cells += [shown(summary["weighted_f1"][kind][method]), lead]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    for kind in kinds:
        picks = summary["chosen"][kind]["superactivators"].values()
        sites = collections.Counter(pick["site"] for pick in picks)
        deltas = sorted(pick["delta"] for pick in picks)
        chosen = ", ".join(f"{site} ×{count}" for site, count in sites.most_common())
        small = sum(delta <= 0.1 for delta in deltas)
        lines += [
            "",
            f"{kind}: δ chosen on cal: median {statistics.median(deltas):g}, {small} of {len(deltas)} concepts at .10 "
            f"or less (all: {', '.join(f'{delta:g}' for delta in deltas)}); layers: {chosen}.",
        ]
    memory = (summary["peak_memory_bytes"] - summary["memory_before_states_bytes"]) / 2**20
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in summary["seconds"].items())
    lines += ["", f"Seconds by stage: {seconds}. Peak memory beyond the loaded model: {memory:.0f} MiB.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", metavar="NAME=STUDY")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for given in options.studies:
        name, folder = given.split("=", 1)
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        print(table(name, summary))
        if options.out:
            kept = {key: summary[key] for key in KEPT if key in summary}
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
