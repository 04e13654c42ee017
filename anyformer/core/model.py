"""Model: the one clock, the checks around a call, and the pure step inside that is compiled and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from anyformer.core.call import Given, check_room, checked
from anyformer.core.clock import check_longest, clock
from anyformer.core.context import Context, Source, Where
from anyformer.core.head import IGNORED, Head
from anyformer.core.layer import Part
from anyformer.core.modality import Modality, placed
from anyformer.core.spec import HeadSpec, ModelSpec, Ref, Site
from anyformer.core.state import Mark, ModelPast, Past, Room, State
from anyformer.core.tape import Tape

Step = Callable[..., tuple[Any, Any]]
T = TypeVar("T")
Reader = Callable[[Tensor, Where], T]  # (B, T, C) and where its tokens are


class Model(Part, ABC):
    """ids (B, T) in; out comes what the head makes of the stream (B, T, C), such as logits (B, T, V).

    Sub-classes say what is inside. Everything about time is here. embedding: where it is a modality, what it takes
    comes in the place of ids, and makes T vectors a row. longest: the longest text it can take; None: no
    bound. tokenizer, source_tokenizer: the text side of a model that was loaded: of its ids, and of its sources'.
    guide: a frozen model that a loss looks at, or none; in a tuple, since it is no part of this one.
    """

    longest: int | None = None
    stepper: Step | None = None
    tokenizer: object = None
    source_tokenizer: object = None
    guide: tuple[Model, ...] = ()
    embedding: nn.Module
    head: Head | None

    def __init__(self, spec: ModelSpec, at: Site) -> None:
        super().__init__(at)
        self.spec = spec
        self.labels, self.rank = spec.labels, spec.rank

    def hold_head(self, at: Site, head: HeadSpec | Ref | None) -> None:
        """Build the head; None: the stream itself is what the model gives."""
        if head is None:
            self.register_module("head", None)
        else:
            self.hold(at, "head", head)

    @abstractmethod
    def hidden(self, ids: Tensor, ctx: Context, past: Past) -> tuple[Tensor, Past]:
        """The stream (B, T, C) that the head reads, and the past after these tokens."""

    @abstractmethod
    def init_body(self, room: Room) -> Past:
        """The layers' past before the first token."""

    @abstractmethod
    def rewind_body(self, past: Past, until: Tensor) -> Past:
        """The layers' past without what came at `until` (B,) or later."""

    @overload
    def forward(self, ids: Tensor, state: None = None, **given: Unpack[Given]) -> Tensor: ...
    @overload
    def forward(self, ids: Tensor, state: State, **given: Unpack[Given]) -> tuple[Tensor, State]: ...
    def forward(self, ids: Tensor, state: State | None = None, **given: Unpack[Given]) -> Tensor | tuple[Tensor, State]:
        """What the head makes of ids (B, T); with a state, that and the state after these tokens."""
        call = checked(ids, self.spec, self.embedding, **given)
        self._check_longest(ids, call, state)
        if state is None:
            return self.step(ids, past=None, **call)[0]
        check_room(ids, call, state)
        state.take()
        stepper = self.step if self.stepper is None or call.keys() & {"tape", "checkpoint"} else self.stepper
        out, past = stepper(ids, past=state.past, **call)
        mark = replace(state.mark, count=state.mark.count + ids.shape[1], used=False)
        return out, State(past, mark)

    def read(self, ids: Tensor, reader: Reader[T], **given: Unpack[Given]) -> T:
        """What `reader` makes of the stream, in the head's place."""
        call = checked(ids, self.spec, self.embedding, **given)
        self._check_longest(ids, call)
        return self.step(ids, past=None, reader=reader, **call)[0]

    def losses(self, ids: Tensor, targets: Tensor, *, smoothing: float = 0.0, **given: Unpack[Given]) -> Tensor:
        """Nats of each target, (B, T), or (B,) of a head that pools; 0 where it is -100. See `Head.loss`."""
        head = self.head
        if head is None:
            raise ValueError("this model has no head, and so no loss; declare a head such as `tied` or `language`")
        return self.read(ids, lambda h, where: head.loss(h, targets, where, smoothing), **given)

    def loss(self, ids: Tensor, targets: Tensor, *, smoothing: float = 0.0, **given: Unpack[Given]) -> Tensor:
        """The mean of `losses` over the targets that are not -100, a scalar."""
        losses = self.losses(ids, targets, smoothing=smoothing, **given)
        counted = (targets != IGNORED) | targets.is_floating_point()  # -100 is a number like others
        counted = counted.reshape(*losses.shape, -1).any(-1)  # a row may have several targets
        return losses.sum() / counted.sum().clamp(min=1)

    def step(
        self,
        ids: Tensor,
        real: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
        past: ModelPast | None = None,
        *,
        coords: Tensor | None = None,
        sources: Mapping[str, Source] | None = None,
        tape: Tape | None = None,
        checkpoint: bool = False,
        reader: Reader[Any] | None = None,
    ) -> tuple[Any, Any]:
        """The pure part of a call: tensors in; what the head, or `reader`, reads and the ModelPast, if any, out."""
        places, coords = placed(ids, self.embedding, coords)
        where, after = clock(places, real, labels or {}, past, coords)
        ctx = Context(where, dict(sources or {}), tape, checkpoint, straight=past is None and real is None)
        out, body = self.hidden(ids, ctx, None if past is None else past.body)
        if (read := reader or self.head) is not None:
            out = read(out, where)
        return out, None if after is None else replace(after, body=body)

    def init_state(
        self,
        batch: int,
        *,
        sources: Mapping[str, Source] | None = None,
        capacity: int | None = None,
        slack: int = 0,
        inplace: bool | None = None,
    ) -> State:
        """The state before the first token.

        capacity: None grows without bound and is functional; a number makes room for as many tokens a row at once,
        written in place unless `inplace` says otherwise. slack: how many tokens `trim` and `rewind` may forget in all.
        """
        if self.head is not None and self.head.pools:
            raise ValueError(
                f"{self.head.path}: this head reads the whole text at once, so the text cannot be cut into calls; "
                "call the model without a state"
            )
        if isinstance(self.embedding, Modality):
            raise ValueError(
                f"{self.embedding.path}: what enters here comes whole, so it cannot be cut into calls; call the model "
                "without a state"
            )
        if batch < 1 or slack < 0 or (capacity is not None and capacity < 1):
            raise ValueError(
                f"batch ({batch}) and capacity ({capacity}) must be at least 1, slack ({slack}) at least 0"
            )
        inplace = capacity is not None if inplace is None else inplace
        if inplace and capacity is None:
            raise ValueError("a state that is written in place needs a capacity")
        parameter = next(self.parameters())
        none = torch.zeros(batch, 0, dtype=torch.long, device=parameter.device)
        names = (*self.labels, "start") if "document" in self.labels else self.labels
        like = Where(none, none[..., None].expand(batch, 0, self.rank), dict.fromkeys(names, none))
        room = Room(like, dict(sources or {}), capacity, slack, inplace, parameter.dtype)
        clock = none.new_zeros(batch)
        follow = torch.is_grad_enabled()  # leaving inference mode would turn gradients on
        with torch.inference_mode(False), torch.set_grad_enabled(follow):  # states outlive the call that made them
            texts = none.new_zeros(batch, slack + 1 if room.restarts else 0, 2)
            past = ModelPast(self.init_body(room), clock, clock.clone(), clock.clone(), texts)
        return State(past, Mark(capacity, slack, inplace))

    def trim(self, state: State, keep: Tensor) -> State:
        """Keep only the first `keep` (B,) real tokens of each row's last call."""
        return self.rewind(state, torch.minimum(state.past.since + keep.to(state.past.clock), state.past.clock))

    def rewind(self, state: State, until: Tensor) -> State:
        """Forget every token at time `until` (B,) or later; never more than `slack` before the latest ever seen."""
        past = state.past
        until = torch.minimum(until.to(past.clock), past.clock)
        back = int((past.high - until).amax())
        if back > state.mark.slack or int(until.amin()) < 0:
            raise ValueError(f"{back} tokens to forget, but the slack is {state.mark.slack}; give init_state(slack=…)")
        state.take()
        body = self.rewind_body(past.body, until)
        mark = replace(state.mark, count=int(until.amax()), used=False)
        return State(ModelPast(body, until, until.clone(), past.high, past.texts), mark)

    def compile_step(self, backend: str = "inductor", fullgraph: bool = True) -> None:
        """Compile the pure step: calls with a state then run it. Shapes are fixed: each new T compiles once."""
        self.stepper = torch.compile(self.step, backend=backend, fullgraph=fullgraph, dynamic=False)

    def _check_longest(self, ids: Tensor, call: Mapping[str, Any], state: State | None = None) -> None:
        """Refuse positions that the model has no vector for; the device is asked only where they could come up."""
        places, coords = placed(ids, self.embedding, call.get("coords"))
        count = 0 if state is None else state.mark.count
        if self.longest is None or (coords is None and count + places.shape[1] <= self.longest):
            return
        past = None if state is None else state.past
        check_longest(clock(places, call.get("real"), call.get("labels", {}), past, coords)[0], self.longest)
