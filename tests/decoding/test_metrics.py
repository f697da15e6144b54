# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics against numbers worked out by hand, and against sacreBLEU called directly."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sacrebleu

from hf_xformer.decoding.metrics import GREATER_IS_BETTER, METRICS, check_metric_names, compute_metrics


TRANSLATIONS = ["the cat sat on the mat", "a dog barks at night", "birds fly"]
RAGGED = [
    ["the cat sat on a mat", "the cat is sitting on the mat"],
    ["a dog is barking in the night"],
    ["birds fly high", "the birds fly", "birds are flying"],
]
PADDED_STREAMS = [
    ["the cat sat on a mat", "a dog is barking in the night", "birds fly high"],
    ["the cat is sitting on the mat", None, "the birds fly"],
    [None, None, "birds are flying"],
]


def test_bleu_and_chrf_equal_sacrebleu_when_rows_have_unequal_numbers_of_references():
    figures = compute_metrics(["sacrebleu", "chrf"], TRANSLATIONS, RAGGED)

    assert figures["sacrebleu"] == pytest.approx(sacrebleu.corpus_bleu(TRANSLATIONS, PADDED_STREAMS).score, abs=1e-9)
    assert figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(TRANSLATIONS, PADDED_STREAMS).score, abs=1e-9)
    assert 0 < figures["sacrebleu"] < 100


def test_signatures_name_the_number_of_references_and_the_version():
    ragged = compute_metrics(["sacrebleu", "chrf"], TRANSLATIONS, RAGGED)
    single = compute_metrics(["sacrebleu"], TRANSLATIONS, PADDED_STREAMS[0])

    assert ragged["sacrebleu_signature"].startswith("nrefs:var|case:mixed|")
    assert ragged["chrf_signature"].startswith("nrefs:var|")
    assert single["sacrebleu_signature"].startswith("nrefs:1|")
    assert single["sacrebleu_signature"].endswith(f"version:{sacrebleu.__version__}")


def test_sacrebleu_options_pass_through():
    options = {"tokenize": "none", "lowercase": True}
    result = METRICS["sacrebleu"]().compute(
        predictions=["The CAT sat here."], references=["the cat sat here."], **options
    )

    assert result["score"] == pytest.approx(100)
    assert "case:lc" in result["signature"] and "tok:none" in result["signature"]


def test_phoneme_error_rate_divides_edits_by_the_length_of_the_nearest_references():
    predictions = ["K AE T", "D AO", "B ER D Z", ""]
    references = [
        ["K AE T"],  # 0 edits of 3
        ["D AO G", "K AE N AY N Z"],  # 1 deletion of 3
        ["F L AY", "B AO D"],  # 1 substitution and 1 insertion of 3; the other is 4 away
        ["AH"],  # 1 of 1
    ]
    assert compute_metrics(["per"], predictions, references)["per"] == pytest.approx(100 * 4 / 10)


@pytest.mark.parametrize("row", [["A B C", "A"], ["A", "A B C"]], ids=["longer first", "shorter first"])
def test_of_two_equally_near_references_the_shorter_counts_in_any_order(row):
    assert compute_metrics(["per"], ["A B"], [row])["per"] == pytest.approx(100)


def test_wrong_words_are_rows_that_match_no_reference_and_ignore_spacing():
    predictions = ["K AE T", "D AO", "T AH  M EY T OW", "AH"]
    references = [["K AE T"], ["D AO G"], ["T AH M AA T OW", "T AH M EY T OW"], ["EY"]]
    figures = compute_metrics(["wrong_words", "exact_match"], predictions, references)

    assert (figures["wrong_words"], figures["exact_match"]) == (50.0, 25.0)


def test_a_plain_string_per_row_means_one_reference():
    names = list(GREATER_IS_BETTER)[1:]
    plain = compute_metrics(names, TRANSLATIONS, PADDED_STREAMS[0])
    assert plain == compute_metrics(names, TRANSLATIONS, [[text] for text in PADDED_STREAMS[0]])


def test_rows_added_one_by_one_score_like_rows_given_at_once():
    metric = METRICS["per"](keep_in_memory=True)
    metric.add(prediction="K AE T", reference="K AE T S")
    metric.add_batch(predictions=["D"], references=[["D AO", "D AO G"]])
    assert metric.compute()["score"] == pytest.approx(100 * 2 / 6)


def test_metrics_computed_at_the_same_time_do_not_mix():
    def score(edits: int) -> float:
        prediction = " ".join(["X"] * edits + ["A"] * (10 - edits))
        return compute_metrics(["per"], [prediction] * 50, ["A " * 10] * 50)["per"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, range(10))) == [10.0 * edits for edits in range(10)]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions but 1 rows of references"),
        ([], [], "no predictions"),
        (["a", "b"], [["a"], []], "row 2 has no reference"),
        (["a", None], ["a", "b"], "row 2 holds None"),
        (["a"], [["a", 7]], "row 1 holds 7"),
        (["a"], [7], "row 1 holds 7"),
    ],
)
@pytest.mark.parametrize("name", METRICS)
def test_rows_that_cannot_be_scored_are_refused(name, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics([name], predictions, references)


def test_references_without_symbols_have_no_phoneme_error_rate():
    with pytest.raises(ValueError, match="no symbols"):
        compute_metrics(["per"], ["A"], [" "])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="'bleurt'; known are sacrebleu, chrf, chrf.., ter, exact_match, wer, cer, per"
    ):
        check_metric_names(["wer", "bleurt"])
