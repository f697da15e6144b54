# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The references' script chooses the tokenizer that splits words for sacreBLEU, and what that means is said."""

from importlib.util import find_spec

import pytest
import sacrebleu

from hf_xformer.decoding.metrics import check_metrics, compute_metrics
from hf_xformer.decoding.scoring import Scoring


TEXTS = {
    "zh": "他在家里看书，也写字。",
    "ja-mecab": "彼は家で本を読みます。",
    "ko-mecab": "그는 집에서 책을 읽습니다.",
    "char": "เขาอ่านหนังสือที่บ้าน",
    "13a": "He reads books at home.",
}


@pytest.mark.parametrize("tokenizer", TEXTS)
def test_the_references_script_chooses_sacrebleus_tokenizer_and_that_is_said(tokenizer):
    references = [[TEXTS[tokenizer]]]
    if tokenizer.endswith("mecab") and not find_spec("MeCab" if tokenizer == "ja-mecab" else "mecab_ko"):
        with pytest.raises(ValueError, match=f"{tokenizer}.*hf-xformer.{tokenizer[:2]}.*--sacrebleu_tokenize char"):
            check_metrics(["sacrebleu"], references)
        return
    said = check_metrics(["sacrebleu"], references)
    assert [f"split by {tokenizer};" in note for note in said] == [True] * (tokenizer != "13a")
    figures = compute_metrics(["sacrebleu"], [TEXTS[tokenizer]], references)
    assert figures["sacrebleu"] == pytest.approx(100) and f"tok:{tokenizer}" in figures["sacrebleu_signature"]


def test_chinese_scores_what_sacrebleus_own_chinese_tokenizer_gives():
    predictions, references = [TEXTS["zh"].replace("家", "店")], [TEXTS["zh"]]
    expected = sacrebleu.corpus_bleu(predictions, [references], tokenize="zh").score
    assert expected > 50 and sacrebleu.corpus_bleu(predictions, [references]).score == 0
    assert compute_metrics(["sacrebleu"], predictions, references)["sacrebleu"] == pytest.approx(expected)


@pytest.mark.parametrize("tokenizer", ["13a", "none"])
def test_sacrebleus_warning_of_tokenised_text_is_for_those_who_did_not_ask_for_it(tokenizer, caplog):
    texts = [f"number {number} ends so ." for number in range(150)]
    figures = compute_metrics(["sacrebleu"], texts, texts, scoring=Scoring(tokenizer))
    expected = sacrebleu.metrics.BLEU(tokenize=tokenizer, force=True)
    assert figures["sacrebleu"] == expected.corpus_score(texts, [texts]).score
    assert f"tok:{tokenizer}|" in figures["sacrebleu_signature"]
    assert ("forgot to detokenize" in caplog.text) == (tokenizer == "13a")


@pytest.mark.parametrize(("texts", "words"), [(("这是笔", "那是笔"), 3), (("これはペン", "あれはペン"), 1)])
def test_ter_counts_chinese_characters_and_runs_of_kana(texts, words):
    """One character is another: of so many words, one."""
    assert compute_metrics(["ter"], [texts[0]], [[texts[1]]])["ter"] == pytest.approx(100 / words)


@pytest.mark.parametrize(
    ("text", "name", "given", "said"),
    [
        (TEXTS["zh"], "sacrebleu", "13a", "whose words 13a does not split: consider --sacrebleu_tokenize zh or char"),
        ("two words and a little more " + TEXTS["zh"][:5], "sacrebleu", None, "13a does not split"),
        (TEXTS["zh"], "wer", None, "consider cer"),
        (TEXTS["char"], "ter", None, "consider cer"),
        (TEXTS["zh"], "ter", None, "split one by one"),
        ("それはペンです。", "ter", None, "but for runs of kana, each of which is one word: consider cer"),
        ("a b", "wer", None, "as in speech recognition; the share of wrong rows is wrong_words"),
        ("a b", "wrong_words", None, "papers on pronunciation"),
    ],
)
def test_what_might_be_misread_is_said(text, name, given, said):
    assert said in check_metrics([name], [[text]], scoring=Scoring(given))[-1]
