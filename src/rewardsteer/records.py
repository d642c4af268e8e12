"""Records of texts that several folders share, with JSON input and output, without torch.

A data source yields a `Comparison`, a decoding engine a `Generation` with its `Cost`, and an
evaluation an `EvalRecord`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Record(BaseModel):
    """Base of records: immutable, refuses unknown fields; JSON by ``model_dump_json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(Record):
    """One turn of a conversation; fields without a value are left out of its JSON.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool``, or another that the template supports.
        content: the text, "" where a turn only calls tools.
        name: of the speaker, or of the tool that answers.
        tool_calls: calls of an assistant turn, in the format of OpenAI and transformers.
        tool_call_id: id of the call that a tool's turn answers.
        reasoning_content: a reasoning model's thoughts before the content.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @model_serializer(mode="wrap")
    def _present(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


# Text, or a conversation of at least one message.
Prompt = str | Annotated[list[Message], Field(min_length=1)]


class Comparison(Record):
    """Two responses to one prompt, of which ``chosen`` is preferred; or one labelled response.

    Attributes:
        id: unique within its set and stable across runs.
        prompt: text, or the conversation up to and including the last user turn.
        chosen: preferred response (text of the assistant's turn alone, without end-of-text).
        rejected: dispreferred response; "" where there is only one response.
        margin: how much better the chosen one is, in reward units; 0 when unknown.
        source: name of the data source.
        subset: category within the source, for metrics by subset.
        tools: functions that the prompt's chat template lists, as JSON schemas; None without.
        extras: further numbers by name (a score, a label); they reach `PairBatch.extras` unchanged.
        single: whether there is only one response, ``chosen``, which then need not be good.
        step_ends: ends of the labelled steps of ``chosen``, in characters, ascending; the separator
            of two steps belongs to the first one.
        step_labels: correctness of each of these steps, from 0 (incorrect) to 1 (correct).
        place: file and row it was read from, for messages; "" when unknown.
        chosen_by, rejected_by: writer of each response (a model, its prompt style), if known.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str = ""
    margin: float = 0.0
    source: str = ""
    subset: str = ""
    tools: list[dict[str, Any]] | None = None
    extras: dict[str, float] = Field(default_factory=dict)
    single: bool = False
    step_ends: list[int] = Field(default_factory=list)
    step_labels: list[float] = Field(default_factory=list)
    place: str = Field("", exclude=True)
    chosen_by: str = ""
    rejected_by: str = ""


class Solution(Record):
    """A solution of a question with a checkable answer, and its rewards.

    Attributes:
        benchmark: name of the set of questions.
        question_id: the question's key, the same in every file.
        sample: which of the question's solutions this is: ``greedy``, ``rs0``, …
        model: the model that generated it; "" when unknown.
        prompt: the question.
        completion: the worked solution.
        predicted_answer: its final answer; None when none was found.
        answer_from_text: whether the answer was extracted from the text because none was given.
        expected_answer: the reference answer; None when unknown.
        is_correct: the label; None when there is none.
        reward: of the whole solution; None before scoring, or when ``skipped``.
        token_rewards: rewards of the prefixes ending at each of its tokens.
        token_similarities: cosine of each token's hidden state to the goal state.
        token_count: tokens of the solution for the reward model.
        prompt_tokens: tokens of the question.
        skipped: the reason why it was not scored; "" otherwise.
    """

    benchmark: str = ""
    question_id: str = ""
    sample: str = ""
    model: str = ""
    prompt: Prompt
    completion: str
    predicted_answer: str | None = None
    answer_from_text: bool = False
    expected_answer: str | None = None
    is_correct: bool | None = None
    reward: float | None = None
    token_rewards: list[float] | None = None
    token_similarities: list[float] | None = None
    token_count: int = Field(0, ge=0)
    prompt_tokens: int = Field(0, ge=0)
    skipped: str = ""


class Cost(Record):
    """The cost of a generation.

    ``calls`` count scored prefixes, as papers do (ARGS scores k candidates per token, which are k
    reward-model calls per token, however they are batched). ``forwards`` count forward passes that
    included this row, ``tokens`` the token positions computed for this row, without padding.
    ``draft_tokens`` is the part of ``lm_tokens`` of a second policy, ``gate_tokens`` the part of
    ``rm_tokens`` of a gate's own reward model. ``guided_steps`` counts the tokens at which a guide
    acted: all of them without a gate. ``seconds`` is this row's share of wall-clock time.
    """

    new_tokens: int = 0
    lm_calls: int = 0
    rm_calls: int = 0
    lm_forwards: int = 0
    rm_forwards: int = 0
    lm_tokens: int = 0
    rm_tokens: int = 0
    draft_tokens: int = 0
    gate_tokens: int = 0
    guided_steps: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        # Added at every token of methods that look at each: reading fields one by one takes longer.
        theirs = vars(other)
        return Cost(**{name: value + theirs[name] for name, value in vars(self).items()})


class Generation(Record):
    """One generated completion with all data needed to repeat and to evaluate it.

    Attributes:
        id, prompt: of the request.
        method: decoding method of the completion.
        token_ids: generated ids, end-of-text included.
        finish_reason: ``stop`` at a stop token or string, ``length`` at the length limit, ``error``
            where the row failed.
        stop_reason: the token or string at which it stopped, else None.
        seed: of the run.
        reward: of the whole response, where the method computes it.
        details: further output of the method, such as ``widths`` of ``beam``: the number of
            hypotheses kept after each round.
        cost: of the generation.
        error: reason why the row failed, so its completion is not an answer; None: no failure.
    """

    id: str
    prompt: str
    completion: str
    method: str
    token_ids: list[int] = Field(default_factory=list)
    finish_reason: Literal["stop", "length", "error"] = "length"
    stop_reason: int | str | None = None
    seed: int = 0
    reward: float | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    cost: Cost = Field(default_factory=Cost)
    error: str | None = None

    @property
    def text(self) -> str:
        """The completion."""
        return self.completion

    @property
    def stop_token(self) -> list[int]:
        """The token that ended it; none where it was cut off."""
        stopped = self.finish_reason == "stop" and not isinstance(self.stop_reason, str)
        return self.token_ids[-1:] if stopped else []


class EvalRecord(Record):
    """A generation with its figures from an evaluation (reward, accuracy, …)."""

    generation: Generation
    metrics: dict[str, float] = Field(default_factory=dict)
    extra: dict[str, Any] = Field(default_factory=dict)
