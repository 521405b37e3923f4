"""The questions that wait for the operator."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field

_OPEN_MAX = 64
_KEPT_MAX = 256
_QUESTION_MAX_CHARS = 8_000


class QuestionError(Exception):
    """In words for whoever asked."""


@dataclass(slots=True)
class Question:
    """One question and, once there is one, its answer."""

    id: str
    text: str
    answer: str | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Questions:
    """All questions of this bundle's life, in memory. The oldest answered ones are forgotten first."""

    def __init__(self) -> None:
        self._questions: dict[str, Question] = {}

    def ask(self, text: str) -> Question:
        """A new question. Raises `QuestionError` for one that is too long, or one too many."""
        if not text.strip():
            raise QuestionError("the question is empty")
        if len(text) > _QUESTION_MAX_CHARS:
            raise QuestionError(f"a question has at most {_QUESTION_MAX_CHARS} characters")
        if len(self.open()) >= _OPEN_MAX:
            raise QuestionError(f"{_OPEN_MAX} questions are waiting for the operator already")
        answered = [question.id for question in self._questions.values() if question.answer is not None]
        for old in answered[: max(0, len(self._questions) + 1 - _KEPT_MAX)]:
            del self._questions[old]
        question = Question(secrets.token_hex(4), text)
        self._questions[question.id] = question
        return question

    def open(self) -> list[Question]:
        """Those without an answer, oldest first."""
        return [question for question in self._questions.values() if question.answer is None]

    def get(self, question_id: str) -> Question:
        """Raises `QuestionError` for an id that is none."""
        try:
            return self._questions[question_id]
        except KeyError:
            raise QuestionError(f"there is no question {question_id!r}") from None

    def answer(self, question_id: str, text: str) -> None:
        """The operator's answer. Raises `QuestionError` where there is one already."""
        question = self.get(question_id)
        if question.answer is not None:
            raise QuestionError(f"question {question_id} has been answered already")
        question.answer = text
        question.answered.set()

    async def wait(self, question: Question, timeout_s: float) -> str:
        """The answer, or `pending:ID` where none came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await question.answered.wait()
        return f"pending:{question.id}" if question.answer is None else question.answer
