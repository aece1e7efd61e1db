"""Answers in the words of OpenAI's API."""

import time
import uuid
from collections.abc import Sequence

from g2vlm.inputs.text import TextTokenizer
from g2vlm.server.chat.schemas import (
    AnswerMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChoiceLogprobs,
    PromptDetails,
    TokenLogprob,
    Usage,
)
from g2vlm.server.engine.answering import FullAnswer
from g2vlm.server.engine.perceptions import Lease
from g2vlm.server.service import Service


class Head:
    """What all parts of one completion say."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model


def completion(
    service: Service, body: ChatRequest, head: Head, lease: Lease, answers: Sequence[FullAnswer]
) -> ChatCompletion:
    """A whole answer as OpenAI's clients read it."""
    tokenizer = service.model.tokenizer
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        choices=[
            Choice(
                index=index,
                message=AnswerMessage(content=answer.text),
                logprobs=ChoiceLogprobs(
                    content=token_logprobs(tokenizer, answer.token_ids, answer.log_probabilities)
                )
                if body.logprobs
                else None,
                finish_reason=answer.reason.value,
            )
            for index, answer in enumerate(answers)
        ],
        usage=usage(service, lease, answers),
        system_fingerprint=service.fingerprint,
    )


def usage(service: Service, lease: Lease, answers: Sequence[FullAnswer]) -> Usage:
    """Numbers of tokens; those of the prompt are read once for all answers."""
    prompt = answers[0].num_prompt_tokens
    written = sum(len(answer.token_ids) for answer in answers)
    service.metrics.tokens(prompt, written)
    cached = lease.perception.num_tokens if lease.was_known else 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=written,
        total_tokens=prompt + written,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )


def token_logprobs(
    tokenizer: TextTokenizer, token_ids: Sequence[int], log_probabilities: Sequence[float]
) -> list[TokenLogprob]:
    """Tokens and how likely they were."""
    found = []
    for token_id, chance in zip(token_ids, log_probabilities, strict=True):
        content = tokenizer.token_bytes(token_id)
        text = content.decode("utf-8", "replace")
        found.append(TokenLogprob(token=text, logprob=chance, bytes=list(content), top_logprobs=[]))
    return found
