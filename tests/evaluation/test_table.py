"""The table at the end of a run."""

from __future__ import annotations

from refine.evaluation.table import render


def test_shares_are_percent_and_figures_stand_side_by_side() -> None:
    system = {"benign_accuracy": 0.979, "attack_success_rate": 1.0, "benign_nll": 0.0757}
    defended = {"benign_accuracy": 0.981, "attack_success_rate": 0.001111, "benign_nll": 0.0973}
    text = render({"images": {"benign": 1000, "triggered": 900}, "no_defence": system, "refine": defended})
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["no", "defence", "REFINE"]
    assert lines[1] == ["benign", "accuracy", "97.90", "%", "98.10", "%"]
    assert lines[2] == ["attack", "success", "rate", "100.00", "%", "0.11", "%"]
    assert lines[3] == ["benign", "nll", "0.0757", "0.0973"]
    assert text.endswith("1,000 benign and 900 triggered test images")


def test_what_is_not_defined_has_no_row() -> None:
    figures = {"benign_accuracy": 0.5, "benign_nll": 1.0}
    text = render({"images": {"benign": 2, "triggered": 0}, "no_defence": figures, "refine": figures})
    assert "attack" not in text
