"""The endpoint of chat completions."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from g2vlm.inference.perception import MAX_NEW_TOKENS
from g2vlm.inference.sampling import Sampling
from g2vlm.inputs.text import TextTokenizer
from g2vlm.server.chat.conversation import Conversation, read_messages
from g2vlm.server.chat.replies import Head, completion
from g2vlm.server.chat.schemas import ChatCompletion, ChatRequest
from g2vlm.server.chat.streaming import AnswerStream
from g2vlm.server.engine.answering import Asking, FullAnswer
from g2vlm.server.engine.perceptions import Lease
from g2vlm.server.engine.work import Terms, Ticket
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import NotFoundError
from g2vlm.server.service import Service
from g2vlm.server.web.closing import ClosingStream
from g2vlm.server.web.errors import ParameterError, documented
from g2vlm.server.web.events import EVENTS
from g2vlm.server.web.json_body import GuardedRoute
from g2vlm.server.web.waiting import result_of


def chat_router(service: Service) -> APIRouter:
    """`POST /v1/chat/completions`."""
    router = APIRouter(tags=["chat"], route_class=GuardedRoute)

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={
            200: {
                "description": "The answer; with `stream`, its parts.",
                "content": EVENTS,
            },
            **documented(415, 422),
        },
    )
    async def create_chat_completion(
        body: ChatRequest, request: Request, tenant: str = Depends(service.tenant)
    ) -> Response:
        """Answer the last question of a conversation about photos or a video."""
        conversation = read_messages(body.messages)
        asking = asking_of(service, body, conversation)
        terms = service.terms()
        lease = await service.looker.look(request, tenant, conversation.media, body, terms)
        try:
            check_question(service.limits, service.model.tokenizer, lease, asking)
            head = Head(service.settings.model_name)
            if body.stream:
                stream = AnswerStream(service, request, body, head, lease)
                stream.begin(askings(asking, body.n or 1), terms)
                return ClosingStream(stream.events(), stream.stop, media_type="text/event-stream")
            with lease:
                answers = await _answers(service, request, lease, askings(asking, body.n or 1), terms)
            return Response(
                completion(service, body, head, lease, answers).model_dump_json(),
                media_type="application/json",
            )
        except BaseException:
            lease.release()
            raise

    return router


def asking_of(service: Service, body: ChatRequest, conversation: Conversation) -> Asking:
    """The question with everything that decides its answer.

    Raises:
        NotFoundError: another model is asked for.
        ParameterError: what cannot be honoured.
    """
    if body.model != service.settings.model_name:
        raise NotFoundError(f"Expected the model {service.settings.model_name}, got {body.model[:100]!r}.")
    limits = service.limits
    if (body.n or 1) > limits.answers_per_request:
        raise ParameterError(f"Expected n of at most {limits.answers_per_request}, got {body.n}.", "n")
    if body.stream_options is not None and not body.stream:
        raise ParameterError("Expected stream_options only with stream.", "stream_options")
    sampling = Sampling(
        temperature=float(body.temperature or 0),
        top_p=float(body.top_p or 1),
        top_k=body.top_k or 0,
        seed=body.seed or 0,
    )
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Asking(
        conversation.question,
        conversation.turns,
        num_passes(limits, body.max_completion_tokens or body.max_tokens),
        sampling,
        stops,
    )


def num_passes(limits: Limits, max_tokens: int | None) -> int:
    """Limit on the passes of an answer of so many tokens: the last pass adds none; as released by default.

    Raises:
        ParameterError: more tokens than allowed.
    """
    if max_tokens is None:
        return min(MAX_NEW_TOKENS, limits.answer_tokens + 1)
    if max_tokens > limits.answer_tokens:
        raise ParameterError(
            f"Expected at most {limits.answer_tokens} tokens of an answer, got {max_tokens}.", "max_tokens"
        )
    return max_tokens + 1


def check_question(limits: Limits, tokenizer: TextTokenizer, lease: Lease, asking: Asking) -> None:
    """Refuse questions that are too long together with the photos.

    Raises:
        ParameterError: they are.
    """
    texts = [asking.question, *(text for turn in asking.turns for text in turn)]
    room = limits.prompt_tokens - lease.perception.num_tokens
    # A token is a byte or more: most questions need not be counted.
    if sum(len(text.encode("utf-8", "replace")) for text in texts) <= room:
        return
    count = sum(len(tokenizer.encode_plain(text)) for text in texts)
    if count > room:
        raise ParameterError(
            f"Expected photos and texts of at most {limits.prompt_tokens} tokens, got "
            f"{lease.perception.num_tokens} of photos and {count} of texts.",
            "messages",
            "context_length_exceeded",
        )


def askings(asking: Asking, count: int) -> tuple[Asking, ...]:
    """The same question several times; where tokens are drawn, each with a seed of its own."""
    sampling = asking.sampling
    return tuple(
        Asking(
            asking.question,
            asking.turns,
            asking.max_new_tokens,
            Sampling(sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed + number),
            asking.stops,
        )
        for number in range(count)
    )


async def _answers(
    service: Service, request: Request, lease: Lease, questions: Sequence[Asking], terms: Terms
) -> list[FullAnswer]:
    """Answers to several questions, written side by side."""
    tickets: list[Ticket[FullAnswer]] = []
    try:
        for asking in questions:
            tickets.append(service.engine.ask(lease.perception, asking, terms))  # noqa: PERF401
        return [await result_of(request, ticket) for ticket in tickets]
    finally:
        for ticket in tickets:
            ticket.cancel()
