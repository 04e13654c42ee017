"""Chat: a conversation by a chat template, turn by turn, on a state that is carried from turn to turn.

The tokens of every turn are those of the whole conversation, written by the template and read at once. Where the
template writes an earlier turn in another way once more is known (some leave out what was thought), or its text has
other tokens than were drawn, all is read again; where it does not, only what is new.
"""

from __future__ import annotations

from collections.abc import Callable

from anyformer.core.model import Model
from anyformer.data.chat import Message, speaking
from anyformer.generation.conversation import Conversation
from anyformer.generation.prompts import TOKENS, tokenizer_of
from anyformer.generation.sampling import Sampling


class Chat:
    """messages: all so far, each with its role and content.

    template: a shipped name, a file, or a template itself; None: the one that the model comes with. system: what it is
    told before all else.
    """

    def __init__(
        self,
        model: Model,
        *,
        template: str | None = None,
        system: str = "",
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> None:
        self.tokenizer = speaking(tokenizer_of(model), template)
        assert self.tokenizer.chat is not None
        self.template = self.tokenizer.chat
        self.talk = Conversation(model, sampling=sampling, seed=seed)
        ends, self.stop = self.template.ends(self.tokenizer)
        self.talk.ends |= ends
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []

    def say(self, text: str, tokens: int = TOKENS, *, show: Callable[[str], None] | None = None) -> str:
        """What the model answers, in at most so many tokens: fewer where its positions end before."""
        messages = [*self.messages, {"role": "user", "content": text}]
        ids = self.template.encode(messages, self.tokenizer, ask=True)
        self.talk.rewrite(ids)
        longest = self.talk.model.longest
        most = tokens if longest is None else min(tokens, max(1, longest - len(ids) + 1))
        answer = self.talk.write(most, stop=self.stop, show=show)
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        return answer
