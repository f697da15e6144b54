# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
COMET through a stand-in of its package, which shows that rows get there and scores come back, and nothing of COMET.
"""

import pytest
from comet_stand_in import STAND_IN

from hf_xformer.decoding.metrics import check_metric_names, check_metrics, compute_metrics
from hf_xformer.decoding.scoring import Scoring


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "comet.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Scoring(comet_model="some/model")


@pytest.mark.slow
def test_comets_rows_have_sources_and_the_best_reference_counts(stand_in):
    figures = compute_metrics(["comet"], ["ab", "xy"], [["c", "ab"], ["x"]], ["s", "t"], stand_in)
    assert figures["comet"] == pytest.approx(100 * (1 + 0.5) / 2)
    assert "nrefs:var" in figures["comet_signature"] and "some/model" in figures["comet_signature"]
    assert "|comet:unknown|" in figures["comet_signature"]  # the stand-in is no package that has a version


def test_comet_is_looked_for_before_anything_is_decoded(stand_in):
    with pytest.raises(ValueError, match="--comet_model other/model: KeyError.*not supported by COMET"):
        check_metrics(["comet"], [["a"]], ["s"], Scoring(comet_model="other/model"))
    with pytest.raises(ValueError, match="--comet_python /no/python"):
        check_metrics(["comet"], [["a"]], ["s"], Scoring(comet_python="/no/python"))
    with pytest.raises(ValueError, match="sources"):
        check_metrics(["comet"], [["a"]], None, stand_in)


def test_without_its_package_comet_is_refused_with_what_to_type(tmp_path, monkeypatch):
    (tmp_path / "comet.py").write_text("raise ModuleNotFoundError(\"No module named 'comet'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="pip install unbabel-comet.*--comet_python") as refused:
        check_metrics(["comet"], [["a"]], ["s"], Scoring(comet_model="any/model"))
    assert "\n" not in str(refused.value)


def test_comet_is_not_for_evaluations_in_training():
    with pytest.raises(ValueError, match="--metrics comet: not while training; hf-xformer evaluate"):
        check_metric_names(["per", "comet"], "--metrics", in_training=True)
