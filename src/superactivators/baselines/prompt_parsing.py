"""Yes or no from what a chat model wrote."""

from __future__ import annotations

import re
import unicodedata

_REASONED = re.compile(r"</(?:think|thinking|thought|reasoning|analysis)\s*>|assistantfinal", re.IGNORECASE)
_REASONING = re.compile(r"<(?:think|thinking|thought|reasoning|analysis)\s*>", re.IGNORECASE)
_OPENED, _CLOSED = re.compile(r"<answer\s*>", re.IGNORECASE), re.compile(r"</answer\s*>", re.IGNORECASE)
_COMMAND = re.compile(r"\\(?:boxed|text\w*|math\w*|bf|rm)\b")
_MARKUP = re.compile(r"""[*_`"'“”‘’«»{}\[\]()<>$\\|#~+]""")
_CHOICE = re.compile(r"\b(?:yes\s*(?:/|\bor\b)\s*no|no\s*(?:/|\bor\b)\s*yes)\b")
_FINAL = re.compile(r"\bfinal\s+answer\b(?:\s+(?:is|would\s+be|should\s+be)\b)?")
_ANSWER = re.compile(r"\banswer(?:\s*[:=]|\s+(?:is|would\s+be|should\s+be)\b\s*:?)")
_BLANKS = re.compile(r"\s+")
_BETWEEN = re.compile(r"(?:[\s:=,.•–—-]|\d+[.)])*")
# "Yes it is" is an answer, "No one smiles" is not: "no" needs an end, a sign, or a word that begins a sentence.
_LEAD = re.compile(r"yes\b|no(?=$|[^\w\s-]|\n|\s[^\w\s]|\s(?:i|it|the|this|that|there|they|he|she|we)\b)")
_LAST = re.compile(r"\b(yes|no)[^\w?]*$")
_SIGNED = re.compile(r"(?:^|[.,:;!?\n–—-])\s?(yes|no)[^\w?]*$")


def parse_answer(raw: str | None, *, truncated: bool = False) -> bool | None:
    """Read an answer.

    What stands in ``<think>`` blocks does not count, nor do markup and case. After the last "final answer" (or
    "answer:") only what follows counts. An answer is the first word, or the last word after a sign or on a line of its
    own. If first and last word contradict each other there is no answer.

    Parameters
    ----------
    raw : str or None
        What the model wrote.
    truncated : bool
        Whether it was cut off by the limit of tokens: its last word then is no answer.

    Returns
    -------
    bool or None
        None where there is no clear answer.

    Examples
    --------
    >>> parse_answer("**No**"), parse_answer("It smiles. FINAL ANSWER: Yes"), parse_answer("No one can tell")
    (False, True, None)
    """
    text = raw or ""
    ends = list(_REASONED.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    opened = _REASONING.search(text)
    if opened:
        text = text[: opened.start()]  # reasoning that never came to an end
    text = _CLOSED.sub(" ", _OPENED.sub(" answer: ", text))
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _BLANKS.sub(_one_blank, _MARKUP.sub(" ", _COMMAND.sub(" ", text)))  # one each, or the patterns turn slow
    text = _BLANKS.sub(_one_blank, _CHOICE.sub(" ", text)).strip()
    start = 0
    for mark in _FINAL.finditer(text):
        start = mark.end()
    if not start:
        for mark in _ANSWER.finditer(text):
            if _lead(text, mark.end()):
                start = mark.end()
    return _edges(text[start:], truncated)


def _one_blank(blanks: re.Match[str]) -> str:
    return "\n" if "\n" in blanks[0] else " "


def _lead(text: str, start: int) -> re.Match[str] | None:
    between = _BETWEEN.match(text, start)
    return _LEAD.match(text, between.end() if between else start)


def _edges(text: str, truncated: bool) -> bool | None:
    """Answer at the beginning or at the end of a normalised text; None if there is none, or they differ."""
    lead = _lead(text, 0)
    last = None if truncated else _LAST.search(text)
    if lead:
        return None if last and last[1] != lead[0] else lead[0] == "yes"
    signed = None if truncated else _SIGNED.search(text)
    return signed[1] == "yes" if signed else None
