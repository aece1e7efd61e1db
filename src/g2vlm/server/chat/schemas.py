"""Requests and answers of chat completions: OpenAI's, and what they say here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from g2vlm.server.media.parts import FilePart, ImagePart, Looking, Strict, TextPart, VideoPart

ContentPart = Annotated[TextPart | ImagePart | VideoPart | FilePart, Field(discriminator="type")]
Text = Annotated[str, Field(max_length=1_000_000)]


class SystemMessage(Strict):
    """What is said before everything else; read as the beginning of the first question."""

    role: Literal["system", "developer"]
    content: Text | list[TextPart]
    name: str | None = None


class UserMessage(Strict):
    """A question, with the photos that it is about."""

    role: Literal["user"]
    content: Text | Annotated[list[ContentPart], Field(min_length=1)]
    name: str | None = None


class AssistantMessage(Strict):
    """An answer that was given before."""

    role: Literal["assistant"]
    content: Text | list[TextPart]
    name: str | None = None
    refusal: None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """What a stream tells beside the answer."""

    include_usage: bool | None = Field(None, description="End the stream with the numbers of tokens.")
    include_obfuscation: Literal[False] | None = None


class TextFormat(Strict):
    """Plain text, the only format that the model writes."""

    type: Literal["text"]


class ChatRequest(Looking):
    """A conversation about photos or videos, the last question of which is to be answered.

    All photos of the conversation are looked at together, before its words. Parameters of OpenAI's API that
    are not listed, or whose listed values are the defaults only, cannot be honoured and are refused.
    """

    model: str = Field(description="As `/v1/models` lists it.", max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of the answer; 99 by default.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same under its newer name.")
    temperature: float | None = Field(
        None, ge=0, le=2, description="0, the default, takes the likeliest token each time."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw among the likeliest tokens of this share."
    )
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Draw among so many tokens; 0 for all.")
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="Of the draws; 0 by default. Answer i of n has seed + i."
    )
    n: int | None = Field(None, ge=1, le=128, description="How many answers.")
    stop: (
        Annotated[str, Field(min_length=1, max_length=1000)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=4)]
        | None
    ) = Field(None, description="Texts before which an answer ends.")
    stream: bool | None = Field(None, description="Send the answer as server-sent events while it grows.")
    stream_options: StreamOptions | None = None
    logprobs: bool | None = Field(None, description="Also the logarithm of the probability of each token.")
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: str | None = Field(None, max_length=1000, description="Taken for compatibility.")
    metadata: dict[str, str] | None = Field(None, max_length=16)


class TokenLogprob(BaseModel):
    """A token of an answer and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = Field(max_length=0)


class ChoiceLogprobs(BaseModel):
    """All tokens of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    """The words of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    """Of the tokens that were read."""

    cached_tokens: int = Field(description="Of photos that had been perceived before.")


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int = Field(description="Photos, earlier turns and question.")
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(BaseModel):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    service_tier: Literal["default"] = "default"
