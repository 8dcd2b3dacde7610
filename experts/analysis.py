"""What kind of query this is, by rules that a person can read: task, complexity, whether context or code is present."""

import re
from dataclasses import dataclass

_CODE = re.compile(
    r"```|\b(?:def|class|import|return|SELECT\b.+\bFROM|public static|#include)\b.*[(:;{]"
    r"|[{};]\s*$|=>|==|!=|</\w+>|\w+\(\w*\)",
    re.MULTILINE,
)
_CONTEXT = re.compile(
    r"\b(?:the following|below|this (?:text|passage|paragraph|article|document|sentence|review|code|function|contract)|"
    r"given (?:the|this|that)|based on|according to the)\b|:\s*\S+(?:\s+\S+){25,}",
    re.IGNORECASE,
)
# The first kind that matches names the task.
_TASKS = (
    (
        "summarization",
        re.compile(r"\b(?:summari[sz]e|summary|tl;?dr|in a nutshell|shorten|condense|key points)\b", re.I),
    ),
    (
        "classification",
        re.compile(
            r"\b(?:classify|categori[sz]e|label|is (?:this|it) (?:a|an|positive|negative)|sentiment"
            r"|which (?:category|class|topic))\b",
            re.I,
        ),
    ),
    (
        "generation",
        re.compile(
            r"^(?:please\s+)?(?:write|draft|compose|create|generate|make|build|design|translate|paraphrase|rewrite|implement)\b",
            re.I,
        ),
    ),
    (
        "analysis",
        re.compile(
            r"\b(?:analy[sz]e|compare|contrast|evaluate|assess|explain why|difference between|pros and cons|why)\b",
            re.I,
        ),
    ),
)
_STEP = re.compile(
    r"\b(?:and then|then|after that|first|second|finally|step|if|unless|while|because|compare|prove|derive|calculate"
    r"|both)\b",
    re.I,
)
_SPECIFIC = re.compile(r"\d|[A-Z]{2,}|\"[^\"]+\"|'[^']+'|\b[a-z]+_[a-z_]+\b|\b\w+\.\w+\b")


@dataclass(frozen=True, slots=True)
class QueryAnalysis:
    """`complexity` is in [0, 1]: length, how specific the query is, and how many steps it asks for, in equal parts."""

    task: str
    complexity: float
    has_context: bool
    has_code: bool

    def as_dict(self) -> dict[str, object]:
        return {
            "task": self.task,
            "complexity": round(self.complexity, 3),
            "has_context": self.has_context,
            "has_code": self.has_code,
        }


def analyse(text: str) -> QueryAnalysis:
    """Analyse one query; only its first 2,000 characters are looked at."""
    text = text[:2000]
    words = text.count(" ") + 1
    length = min(words / 60, 1.0)
    specific = min(sum(1 for _ in _SPECIFIC.finditer(text)) / 6, 1.0)
    steps = min(sum(1 for _ in _STEP.finditer(text)) / 4, 1.0)
    task = next((name for name, pattern in _TASKS if pattern.search(text)), "question_answering")
    return QueryAnalysis(
        task=task,
        complexity=(length + specific + steps) / 3,
        has_context=bool(_CONTEXT.search(text)),
        has_code=bool(_CODE.search(text)),
    )
