"""What the page shows must be what the tables hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from report.planted import KINDS, METHODS, SITES, planted
from superactivators.report.inputs import ReportInputs
from superactivators.report.payload import build_payload, percent


def close(shown: float | None, true: float) -> bool:
    return (shown is None and not np.isfinite(true)) or shown == pytest.approx(true, rel=1e-3, abs=1e-9)


def test_payload_is_json_without_nan(text_payload: dict, image_payload: dict) -> None:
    for payload in (text_payload, image_payload):
        assert json.loads(json.dumps(payload, allow_nan=False)) == payload


def test_method_rows_equal_the_summary(text_study: ReportInputs, text_payload: dict) -> None:
    summary = text_study.result.summary
    assert [(row["kind"], row["method"]) for row in text_payload["method_rows"]] == [
        (k, m) for k in (*KINDS, "best") for m in METHODS
    ]
    for row in text_payload["method_rows"]:
        for average in ("weighted", "macro"):
            wanted = summary[f"{average}_f1"][row["kind"]][row["method"]]
            assert all(close(row[average]["f1"][part], wanted[part]) for part in ("value", "low", "high"))
            if row["method"] == "superactivators":
                assert row[average]["gain"] is None
            else:
                difference = summary[f"{average}_f1_minus_superactivators"][row["kind"]][row["method"]]
                assert close(row[average]["gain"]["value"], -difference["value"])
                assert close(row[average]["gain"]["low"], -difference["high"])


def test_concept_rows_equal_the_metrics_table(text_study: ReportInputs, text_payload: dict) -> None:
    table = text_study.result.metrics.to_pylist()
    located = text_study.result.localisation.to_pylist()
    for kind in KINDS:
        for row in text_payload["rows"][kind]:
            same = [
                r
                for r in table
                if r["chosen"] and (r["split"], r["kind"], r["concept"]) == ("test", kind, row["concept"])
            ]
            by_method = {r["method"]: r for r in same}
            wanted = by_method["superactivators"]
            for name in ("threshold", "delta", "precision", "recall", "f1", "f1_low", "f1_high", "fpr", "auroc"):
                assert close(row[name], wanted[name]), name
            assert (row["site"], row["tp"], row["fp"], row["fn"]) == (
                wanted["site"],
                wanted["tp"],
                wanted["fp"],
                wanted["fn"],
            )
            assert all(close(row["by_method"][name]["f1"], by_method[name]["f1"]) for name in METHODS)
            tokens = next(r for r in located if (r["kind"], r["concept"]) == (kind, row["concept"]))
            assert all(
                close(row["tokens"][name], tokens[name]) for name in ("token_f1", "iou", "pointing", "threshold")
            )


def test_curves_and_layers_equal_the_tables(text_study: ReportInputs, text_payload: dict) -> None:
    deltas = text_payload["deltas"]
    concepts = text_payload["concepts"]
    seen = 0
    for row in text_study.result.curves.to_pylist():
        if row["method"] != "superactivators" or row["kind"] == "best":
            continue
        shown = text_payload["curves"]["concepts"][row["kind"]][row["split"]]
        value = shown[concepts.index(row["concept"])][SITES.index(row["site"])][deltas.index(row["delta"])]
        assert close(value, row["f1"])
        seen += 1
    assert seen == len(KINDS) * 2 * len(SITES) * len(deltas) * len(concepts)
    for row in text_study.result.aggregates.to_pylist():
        if row["split"] == "test" and row["site"] != "chosen":
            lists = text_payload["layers"][row["kind"]][row["method"]]
            assert close(lists["weighted"][SITES.index(row["site"])], row["weighted_f1"])
            assert close(lists["macro"][SITES.index(row["site"])], row["macro_f1"])


def test_curve_of_all_concepts_is_their_weighted_mean(text_study: ReportInputs, text_payload: dict) -> None:
    labels = text_study.labels
    weights = labels.samples[labels.splits == "test"].sum(axis=0)
    for kind in KINDS:
        single = np.array(text_payload["curves"]["concepts"][kind]["test"])
        shown = np.array(text_payload["curves"]["together"][kind]["superactivators"]["weighted"])
        np.testing.assert_allclose(shown, np.average(single, axis=0, weights=weights), atol=2e-4)


def test_distributions_against_a_count_token_by_token(text_study: ReportInputs, text_payload: dict) -> None:
    labels = text_study.labels
    inside_all = labels.tokens.toarray()
    for number, name in enumerate(text_payload["concepts"]):
        row = text_payload["rows"]["linear"][number]
        chosen = text_study.result.summary["chosen"]["linear"]["superactivators"][name]
        scores = text_study.scores("linear", "token", row["site"])
        inside, outside = [], []
        at = 0
        for sample in scores.samples:
            for token in range(labels.offsets[sample], labels.offsets[sample + 1]):
                value = scores.tokens[at, number]
                at += 1
                if labels.splits[sample] != "test":
                    continue
                if inside_all[token, number]:
                    inside.append(value)
                if not labels.samples[sample, number]:
                    outside.append(value)
        spread = text_payload["distributions"]["linear"][number]
        assert sum(spread["inside"]) == len(inside)
        assert sum(spread["outside"]) == len(outside)
        for part, values in (("inside", inside), ("outside", outside)):
            wide = np.array(values, dtype=np.float64)
            assert close(spread[f"above_{part}"], float((wide >= chosen["threshold"]).mean()))
            low, high = spread["edges"]
            middle = low + (high - low) * 0.5
            upper = sum(spread[part][len(spread[part]) // 2 :])
            assert abs(upper - (wide >= middle).sum()) <= 1  # edges are shown with four digits
        assert close(spread["typical"], float(np.median(np.array(outside, dtype=np.float64))))


def test_saying_yes_to_everything(text_study: ReportInputs, text_payload: dict) -> None:
    labels = text_study.labels
    truth = labels.samples[labels.splits == "test"]
    for number, row in enumerate(text_payload["rows"]["mean"]):
        precision, recall = truth[:, number].mean(), 1.0
        assert close(row["always_yes"], 2 * precision * recall / (precision + recall))


def test_study_without_superactivators_or_resamples() -> None:
    payload = build_payload(planted("text", methods=("max", "cls"), resamples=0))
    assert payload["focus"] == "max"
    assert payload["rows"]["mean"][0]["tokens"] is None
    assert payload["method_rows"][0]["weighted"]["gain"] is None
    assert payload["method_rows"][0]["weighted"]["f1"]["low"] is None
    json.dumps(payload, allow_nan=False)


def test_study_of_sample_vectors_only_has_no_examples() -> None:
    payload = build_payload(planted("text", methods=("cls",), resamples=0))
    assert payload["focus"] == "cls"
    assert payload["examples"] is None
    json.dumps(payload, allow_nan=False)


@pytest.mark.parametrize(
    ("share", "text"), [(0.54, "54 %"), (0.0047, ".47 %"), (0.03, "3 %"), (0.0, "0 %"), (1, "100 %")]
)
def test_percentages(share: float, text: str) -> None:
    assert percent(share) == text
