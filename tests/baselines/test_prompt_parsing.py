"""Yes or no out of free text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from superactivators.baselines.prompt_parsing import parse_answer

CASES = {
    "Yes": True,
    "no": False,
    "Yes.": True,
    "YES!!": True,
    "**No**": False,
    "_no_\n": False,
    "'No'": False,
    "> No": False,
    "- Yes": True,
    "1. Yes": True,
    "Ｙｅｓ": True,
    "No 😀": False,
    "Yes it is": True,
    "No, the text is neutral.": False,
    "No it does not.": False,
    "FINAL ANSWER: Yes": True,
    "Final answer - NO.": False,
    "The text is sad; there is no joy.\n\nFINAL ANSWER: **Yes**": True,
    "FINAL ANSWER: no. Let me check.\nFINAL ANSWER: yes": True,
    "Yes. Final answer: no": False,
    "The final answer is $\\boxed{\\text{Yes}}$.": True,
    "\\boxed{\\text{No}}": False,
    "<answer>No</answer>": False,
    '{"answer": "yes"}': True,
    "Answer: No\nExplanation: there is nothing": False,
    "So the answer would be yes": True,
    "Is it sad or glad?\nYes": True,
    "There is no joy here, so: no": False,
    "the concept is present: yes 😀": True,
    "Yes or no? Well... no.": False,
    "<think>yes yes, no, yes</think>No": False,
    "it says no, so no.</think>\n\nYes.": True,
    "<thinking>no</thinking><think>no</think> yes": True,
    "analysisIs it no? It is.assistantfinalYes": True,
    "": None,
    "   \n": None,
    "Maybe": None,
    "yes/no": None,
    "Answer yes or no.": None,
    "Yes\n\nNo": None,
    "No. Wait, actually yes.": None,
    "Final answer: yes, or rather no": None,
    "<think>The answer is yes, or is it": None,
    "<think>The answer is yes.\nFINAL ANSWER: yes": None,
    "FINAL ANSWER:": None,
    "FINAL ANSWER: not yes": None,
    "the answer is not yes": None,
    "No one smiles": None,
    "No doubt it is there": None,
    "No-one": None,
    "yesterday": None,
    "nothing": None,
    "I know": None,
    "There is no joy here": None,
    "I cannot answer that": None,
    "is it there, yes?": None,
}


@pytest.mark.parametrize(("raw", "answer"), CASES.items())
def test_answers_of_many_forms(raw: str, answer: bool | None) -> None:
    assert parse_answer(raw) is answer


def test_nothing_was_written() -> None:
    assert parse_answer(None) is None


@pytest.mark.parametrize(
    ("raw", "whole", "cut"),
    [
        ("Yes, because the text", True, True),
        ("The question is whether it is there: yes", True, None),
        ("Yes. On the other hand, no", None, True),
        ("FINAL ANSWER: No", False, False),
    ],
)
def test_last_word_of_a_truncated_answer_does_not_count(raw: str, whole: bool | None, cut: bool | None) -> None:
    assert parse_answer(raw) is whole
    assert parse_answer(raw, truncated=True) is cut


WORD = st.sampled_from(["yes", "no"])
CASE = st.sampled_from([str.lower, str.upper, str.title])
WRAP = st.sampled_from(["{}", "**{}**", "`{}`", '"{}"', "[{}]", "\\boxed{{{}}}", "{}.", " {}!\n", "**{}.**", "<{}>"])
PREFIX = st.sampled_from(
    ["", "FINAL ANSWER: ", "**Final answer:** ", "Answer: ", "So the answer is ", "<answer>", "- "]
)
# Text in which no yes, no or mark of an answer can come about.
PLAIN = st.text(alphabet="abcdfhijk mpqtuvx,.;:!\n*_😀é", max_size=60)


@given(WORD, CASE, WRAP, PREFIX, PLAIN)
def test_case_markup_prefix_and_reasoning_do_not_matter(word, case, wrap, prefix, reasoning) -> None:
    answer = prefix + wrap.format(case(word))
    assert parse_answer(answer) is (word == "yes")
    assert parse_answer(f"{reasoning}\n{answer}") is (word == "yes")
    assert parse_answer(f"<think>{reasoning}</think>\n{answer}") is (word == "yes")


@given(st.text(), WORD)
def test_what_was_thought_does_not_matter(thought: str, word: str) -> None:
    assert parse_answer(f"<think>{thought}</think>{word}") is (word == "yes")
    assert parse_answer(f"{thought}</think>{word}") is (word == "yes")
    assert parse_answer(f"<think>{thought.replace('</', '').replace('assistantfinal', '')}") is None


@given(st.text())
@example("\ud800")
@example("</think>")
def test_any_text_is_read_and_only_yes_and_no_are_answers(text: str) -> None:
    for truncated in (False, True):
        answer = parse_answer(text, truncated=truncated)
        assert answer in (True, False, None)
    without = re.sub("[yYnNoO]", "", text.encode("ascii", "ignore").decode())
    assert parse_answer(without) is None


SIGNED = ["yes.", "no.", "yes,", "no,", "yes\n", "no\n", "yes:", "no:", "so", "\n", "final answer:", "answer:", "a no"]


@given(st.lists(st.sampled_from(SIGNED), max_size=10))
def test_yes_and_no_before_a_sign_are_treated_alike(parts: list[str]) -> None:
    text = " ".join(parts)
    swapped = re.sub("yes|no", lambda word: "no" if word[0] == "yes" else "yes", text)
    one = parse_answer(text)
    assert parse_answer(swapped) is (None if one is None else not one)


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from(["yes ", "no\n", "answer: ", "final answer ", "- ", "\n", "**", "1.", "<think>", "{", "yes/no "])
)
def test_time_grows_with_the_length_only(part: str) -> None:
    began = time.process_time()
    parse_answer("a" + part * (200_000 // len(part)) + "x")
    assert time.process_time() - began < 5  # a pattern that backtracks takes minutes
