"""Model: the one clock, the checks around a call, and the pure step inside that is compiled and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, TypedDict, overload, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from anyformer.core.context import Context, Source, Where
from anyformer.core.layer import Part
from anyformer.core.spec import HeadSpec, ModelSpec, Ref, Site
from anyformer.core.state import Mark, ModelPast, Past, Room, State
from anyformer.core.tape import Tape

IGNORED = -100  # a target that has no loss
Step = Callable[..., tuple[Tensor, Any]]


class Given(TypedDict, total=False):
    """What a call may say beside ids (B, T).

    lengths: (B,) real tokens a row, the padding at the `side` "right" or "left"; or real: (B, T), padding anywhere.
    labels: name -> (B, T). coords: (B, T, R). sources: what cross attention reads. checkpoint: recompute each block in
    the backward pass.
    """

    lengths: Tensor | None
    side: Literal["left", "right"]
    real: Tensor | None
    labels: Mapping[str, Tensor] | None
    coords: Tensor | None
    sources: Mapping[str, Source] | None
    tape: Tape | None
    checkpoint: bool


@runtime_checkable
class LossHead(Protocol):
    """A head that owns its loss."""

    def loss(self, h: Tensor, targets: Tensor) -> Tensor: ...


class Model(Part, ABC):
    """ids (B, T) in, logits (B, T, V) out (encoders without a head: (B, T, C)).

    Sub-classes say what is inside. Everything about time is here. longest: the longest text it can take; None: no
    bound. tokenizer: the text side of a model that was loaded.
    """

    longest: int | None = None
    stepper: Step | None = None
    tokenizer: object = None
    head: nn.Module | None

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
        """Logits (B, T, V) of ids (B, T); with a state, logits and the state after these tokens."""
        call = self._call(ids, **given)
        self._check_longest(ids, call, state)
        if state is None:
            return self.step(ids, past=None, **call)[0]
        self._check_room(ids, call, state)
        state.take()
        stepper = self.step if self.stepper is None or call.keys() & {"tape", "checkpoint"} else self.stepper
        out, past = stepper(ids, past=state.past, **call)
        mark = replace(state.mark, count=state.mark.count + ids.shape[1], used=False)
        return out, State(past, mark)

    def losses(self, ids: Tensor, targets: Tensor, **given: Unpack[Given]) -> Tensor:
        """(B, T) nats of each target; 0 where it is -100. The head makes them in chunks, never all logits at once."""
        if not isinstance(self.head, LossHead):
            raise ValueError("this model's head has no loss; declare a head such as `tied` or `language`")
        call = self._call(ids, **given)
        self._check_longest(ids, call)
        return self.head.loss(self.step(ids, past=None, head=False, **call)[0], targets)

    def loss(self, ids: Tensor, targets: Tensor, **given: Unpack[Given]) -> Tensor:
        """The mean of `losses` over the targets that are not -100, a scalar."""
        return self.losses(ids, targets, **given).sum() / (targets != IGNORED).sum().clamp(min=1)

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
        head: bool = True,
    ) -> tuple[Tensor, Any]:
        """The pure part of a call: tensors in; logits (without `head` the stream) and the ModelPast, if any, out."""
        where, after = self._clock(ids, real, labels or {}, past, coords)
        straight = past is None and real is None and coords is None and not labels
        ctx = Context(where, dict(sources or {}), tape, checkpoint, straight)
        out, body = self.hidden(ids, ctx, None if past is None else past.body)
        if head and self.head is not None:
            out = self.head(out)
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

    def _clock(
        self,
        ids: Tensor,
        real: Tensor | None,
        labels: Mapping[str, Tensor],
        past: ModelPast | None,
        coords: Tensor | None,
    ) -> tuple[Where, ModelPast | None]:
        """Where these tokens are, and the clock after them."""
        batch, length = ids.shape[:2]
        now = torch.zeros(batch, dtype=torch.long, device=ids.device) if past is None else past.clock
        if real is None:
            time, after = now[:, None] + torch.arange(length, device=ids.device), now + length
        else:
            time, after = torch.where(real, now[:, None] + real.long().cumsum(1) - 1, -1), now + real.sum(1)
        names, texts = dict(labels), None if past is None else past.texts
        if "document" in names:
            names["start"], texts = text_starts(time, names["document"], past)
        where = Where(time, time[..., None], names)
        if coords is not None:
            where = replace(where, coords=coords)
        elif "start" in names:
            where = replace(where, coords=torch.where(where.real, where.offset, -1)[..., None])
        if past is None or texts is None:
            return where, None
        return where, ModelPast((), after, now, torch.maximum(past.high, after), texts)

    def check_ids(self, ids: Tensor, vocabulary: int | None) -> None:
        """Refuse what the embedding cannot look up; ids on a device are not read, since that would wait for it."""
        if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"ids must be whole numbers (B, T), int64 or int32; came {ids.dtype} {tuple(ids.shape)}")
        if vocabulary is None or ids.device.type != "cpu" or not ids.numel() or torch.compiler.is_compiling():
            return
        least, most = ids.aminmax()
        if least < 0 or most >= vocabulary:
            row, place = ((ids < 0) | (ids >= vocabulary)).nonzero()[0].tolist()
            raise ValueError(
                f"id {int(ids[row, place])} at row {row}, place {place}: the vocabulary has the ids 0 to "
                f"{vocabulary - 1}; padding takes any of them"
            )

    def _call(
        self,
        ids: Tensor,
        *,
        lengths: Tensor | None = None,
        side: str = "right",
        real: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
        coords: Tensor | None = None,
        sources: Mapping[str, Source] | None = None,
        tape: Tape | None = None,
        checkpoint: bool = False,
    ) -> dict[str, Any]:
        """What `step` needs of what was given; what was not given is left out, so that compiled steps are few."""
        self.check_ids(ids, self.spec.vocabulary)
        call = {
            "real": self.real_tokens(ids, lengths, side, real),
            "labels": self._labels(ids, labels) or None,
            "coords": self._coords(ids, coords),
            "sources": sources or None,
            "tape": tape,
            "checkpoint": checkpoint or None,
        }
        return {name: value for name, value in call.items() if value is not None}

    def _check_room(self, ids: Tensor, call: Mapping[str, Any], state: State) -> None:
        """Refuse what does not fit; the device's clock is read only where the host's upper bound is reached."""
        past, mark = state.past, state.mark
        real, prefix = call.get("real"), call.get("labels", {}).get("prefix")
        if ids.shape[0] != past.clock.shape[0]:
            raise ValueError(f"the state holds {past.clock.shape[0]} rows; the call has {ids.shape[0]}")
        if mark.capacity is not None and mark.count + ids.shape[1] > mark.capacity:
            mark.count = int(past.clock.amax())
            new = ids.shape[1] if real is None else real.sum(1)
            need = int((past.clock + new).amax())
            if need > mark.capacity:
                raise ValueError(f"the state holds {mark.capacity} tokens a row; this call needs {need}")
        marked = None if prefix is None else prefix > 0 if real is None else (prefix > 0) & real
        if marked is not None and bool((marked & (past.clock > 0)[:, None]).any()):
            raise ValueError("a prefix is seen from both sides and must come whole, in a state's first call")

    def _check_longest(self, ids: Tensor, call: Mapping[str, Any], state: State | None = None) -> None:
        """Refuse positions that the model has no vector for; the device is asked only where they could come up."""
        coords, count = call.get("coords"), 0 if state is None else state.mark.count
        if self.longest is None or (coords is None and count + ids.shape[1] <= self.longest):
            return
        past = None if state is None else state.past
        check_longest(self._clock(ids, call.get("real"), call.get("labels", {}), past, coords)[0], self.longest)

    def real_tokens(self, ids: Tensor, lengths: Tensor | None, side: str, real: Tensor | None) -> Tensor | None:
        """(B, T) where there is a token, or None where all are."""
        if lengths is not None and real is not None:
            raise ValueError("give either lengths (B,) or real (B, T), not both")
        if real is not None and (real.shape != ids.shape or real.dtype != torch.bool):
            raise ValueError(f"real must be true or false {tuple(ids.shape)}; came {real.dtype} {tuple(real.shape)}")
        if lengths is None:
            return real
        if side not in ("left", "right"):
            raise ValueError(f"side must be 'left' or 'right'; came {side!r}")
        lengths = torch.as_tensor(lengths, device=ids.device)
        if lengths.shape != ids.shape[:1] or bool(((lengths < 0) | (lengths > ids.shape[1])).any()):
            raise ValueError(
                f"lengths must be {ids.shape[0]} numbers from 0 to {ids.shape[1]}; came {lengths.tolist()}"
            )
        place = torch.arange(ids.shape[1], device=ids.device)
        first = ids.shape[1] - lengths if side == "left" else torch.zeros_like(lengths)
        return (place >= first[:, None]) & (place < (first + lengths)[:, None])

    def _labels(self, ids: Tensor, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Every label that the model declares; one that was not given is 0 everywhere."""
        given = given or {}
        if unknown := set(given) - set(self.labels):
            raise ValueError(f"unknown labels {sorted(unknown)}; the model declares {list(self.labels)}")
        if wrong := {name: tuple(label.shape) for name, label in given.items() if label.shape != ids.shape}:
            raise ValueError(f"labels must be {tuple(ids.shape)}, as ids are; came {wrong}")
        return {name: given.get(name, torch.zeros_like(ids)) for name in self.labels}

    def _coords(self, ids: Tensor, given: Tensor | None) -> Tensor | None:
        """What was given; None only where the model has the one coordinate that it can make itself."""
        wanted = (*ids.shape, self.rank)
        if (given is None and self.rank > 1) or (given is not None and given.shape != wanted):
            came = "none" if given is None else tuple(given.shape)
            raise ValueError(f"the model declares {self.rank} coordinates a token: give coords {wanted}; came {came}")
        return given


def check_longest(where: Where, longest: int | None) -> None:
    """Refuse a text that is longer than the positions can tell apart."""
    if longest is None or not where.time.numel():
        return
    need = int(where.coords[..., 0].masked_fill(~where.real, -1).amax()) + 1
    if need > longest:
        raise ValueError(f"a text of {need} tokens; this model's positions end after {longest}")


def text_starts(time: Tensor, document: Tensor, past: ModelPast | None) -> tuple[Tensor, Tensor | None]:
    """The time at which each token's text began, (B, T), and the carried texts after them."""
    batch, length = time.shape
    real, place = time >= 0, torch.arange(length, device=time.device)
    last = torch.where(real, place, -1).cummax(1).values  # the latest real token up to here
    before = torch.cat([last.new_full((batch, 1), -1), last[:, :-1]], 1)
    carried = document.new_zeros(batch, 2)
    if past is not None:
        slot = (past.clock - 1).clamp(min=0) % past.texts.shape[1]
        carried = past.texts.gather(1, slot[:, None, None].expand(-1, 1, 2))[:, 0] * (past.clock > 0)[:, None]
    earlier = torch.where(before < 0, carried[:, :1], document.gather(1, before.clamp(min=0)))
    begins = real & ((document != earlier) | (time == 0))
    start = torch.maximum(torch.where(begins, time, -1).cummax(1).values, carried[:, 1:])
    if past is None:
        return start, None
    size = past.texts.shape[1]
    kept = real & (time >= time.amax(1, keepdim=True) - size + 1)  # one writer a slot
    slot = torch.where(kept, time % size, size)[..., None].expand(-1, -1, 2)
    texts = torch.cat([past.texts, past.texts[:, :1]], 1).scatter(1, slot, torch.stack([document, start], -1))
    return start, texts[:, :size]
