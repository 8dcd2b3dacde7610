"""From turns and passages to the prompt a base reads. What people wrote can never become a control token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from experts.errors import ModelUnusable

SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")
# For bases that bring no template: the plain form models have always completed.
PLAIN_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Answer: ' + message['content'] + '\n' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


def render(tokenizer: Any, turns: Sequence[Turn], passages: Sequence[str] = (), system: str | None = None) -> str:
    """The prompt as text, up to where the answer begins: for people to read. Models read ``encode_prompt``.

    Raises ModelUnusable for a role that does not exist, for no turns, and for turns the base's template refuses.
    """
    _, text = _accepted(tokenizer, turns, passages, system)
    return text


def encode_prompt(
    tokenizer: Any, turns: Sequence[Turn], passages: Sequence[str] = (), system: str | None = None
) -> list[int]:
    """The prompt's token ids. Control tokens come from the template alone.

    A special token spelled out in a turn, a passage or the system prompt is encoded as the plain characters it is
    written with. Raises ModelUnusable as ``render`` does, and for a tokenizer that cannot keep the two apart.
    """
    messages, _ = _accepted(tokenizer, turns, passages, system)
    try:
        found: list[int] = tokenizer.apply_chat_template(
            messages,
            chat_template=_template(tokenizer),
            add_generation_prompt=True,
            sanitize_control_tokens=True,
            return_dict=False,
        )
    except ValueError as error:
        raise ModelUnusable(f"a prompt cannot be encoded safely: {error}") from error
    return found


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """The token ids of plain text, none of them a special token, and none added."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def with_passages(question: str, passages: Sequence[str]) -> str:
    """The question after the passages it may be answered from, in the one form every base is given them."""
    if not passages:
        return question
    numbered = "\n".join(f"[{number}] {text.strip()}" for number, text in enumerate(passages, 1))
    return f"Passages:\n{numbered}\n\n{question}"


def arrange(turns: Sequence[Turn], passages: Sequence[str] = (), system: str | None = None) -> list[Turn]:
    """System first, neighbours of one role joined (templates want them to alternate), passages in the last turn.

    Raises ModelUnusable for a role that does not exist, and where the last turn is not the user's.
    """
    wrong = [turn.role for turn in turns if turn.role not in ROLES]
    if wrong:
        raise ModelUnusable(f"role {wrong[0]!r} is unknown; there are: {', '.join(ROLES)}")
    spoken = [turn for turn in turns if turn.role != SYSTEM]
    if not spoken or spoken[-1].role != USER:
        raise ModelUnusable("a prompt ends with a turn of the user")
    spoken[-1] = replace(spoken[-1], content=with_passages(spoken[-1].content, passages))
    instructions = [text for text in (system, *(turn.content for turn in turns if turn.role == SYSTEM)) if text]
    head = [Turn(SYSTEM, "\n\n".join(instructions))] if instructions else []
    return [*head, *_joined(spoken)]


def as_messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """The turns in the form of templates and of OpenAI's requests."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _accepted(
    tokenizer: Any, turns: Sequence[Turn], passages: Sequence[str], system: str | None
) -> tuple[list[dict[str, str]], str]:
    """The messages the template takes, and their text; a system turn it does not take goes into the first question."""
    arranged = arrange(turns, passages, system)
    try:
        text = _rendered(tokenizer, arranged)
    except TemplateError as error:
        refused = str(error)
    else:
        if arranged[0].role != SYSTEM or arranged[0].content.strip() in text:
            return as_messages(arranged), text
        refused = "the system turn is left out"
    if arranged[0].role == SYSTEM:
        arranged = _without_system(arranged)
        try:
            return as_messages(arranged), _rendered(tokenizer, arranged)
        except TemplateError as error:
            refused = str(error)
    raise ModelUnusable(f"the base's chat template refuses the turns {[turn.role for turn in turns]}: {refused}")


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            joined[-1] = replace(turn, content=f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(turn)
    return joined


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    system, *others = turns
    return _joined([Turn(USER, system.content), *others])


def _rendered(tokenizer: Any, turns: Sequence[Turn]) -> str:
    text: str = tokenizer.apply_chat_template(
        as_messages(turns), chat_template=_template(tokenizer), add_generation_prompt=True, tokenize=False
    )
    return text


def _template(tokenizer: Any) -> str | None:
    """The base's own (None), or the plain one where it has none."""
    return None if tokenizer.chat_template else PLAIN_TEMPLATE
