"""The language model evaluation harness (Gao et al. 2021, `lm_eval`): its tasks, asked of any decoder that loads here.

Its registry has no entry points, so that its command line is started from here: it knows `--model anyformer` then.

    python -m anyformer.training.harness run --model anyformer --model_args path=RUN --tasks TASK
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.extras import need
from anyformer.generation.generate import Writing, token_rows
from anyformer.generation.prompts import Prompts, tokenizer_of
from anyformer.generation.published import published_settings
from anyformer.generation.rules import Rules
from anyformer.generation.sampling import Sampling
from anyformer.generation.stops import Stops
from anyformer.models.hub import located
from anyformer.models.load import load
from anyformer.training.told import check_teller, told

api, registry, helpers = (need(f"lm_eval.{name}", "harness") for name in ("api.model", "api.registry", "utils"))
LENGTH = 2048  # tokens that a model reads, where neither its positions nor its declaration bound them
TOKENS = 256  # that are written, where a task says nothing
MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of the same; the first counts


@registry.register_model("anyformer")
class HarnessModel(api.TemplateLM):
    """How a context and its continuation are encoded is the harness's own rule, which this inherits.

    path: of a run or a published checkpoint. max_length: tokens that are read, at most; longer contexts lose their
    beginning. add_bos_token: whether texts stand after the begin token; None: as the model's own tokenizer has it.
    prefix_token_id: what stands before a text that has nothing before it; None: the begin token, else the end token.
    """

    def __init__(
        self,
        path: str,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        best: bool = False,
        allow: Collection[str] = (),
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ConfigError(f"batch_size must be a number from 1 up; came {batch_size!r}")
        where = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        self._device = where if device is None else torch.device(device)
        known = None if dtype in (None, "auto") else getattr(torch, str(dtype), None)
        if dtype not in (None, "auto") and not isinstance(known, torch.dtype):
            raise ConfigError(f"dtype must be one such as float32 or bfloat16; came {dtype!r}")
        self.model = load(path, device=self._device, dtype=known, best=best, allow=allow)
        check_teller(self.model)
        self.text, self.rows, self.path = tokenizer_of(self.model), int(batch_size), path
        bounds = (max_length, self.model.longest, self.model.spec.to_dict().get("context"))
        self.max_length = min((bound for bound in bounds if bound is not None), default=LENGTH)
        self.add_bos_token, self.settings = add_bos_token, published_settings(located(path), allow)
        self.prefix = self.text.first if prefix_token_id is None else prefix_token_id

    @property
    def eot_token_id(self) -> int | None:
        return self.text.end

    @property
    def prefix_token_id(self) -> int:
        if self.prefix is None:
            raise ConfigError(
                f"{self.path}: its tokenizer has no begin and no end token, after which a text could stand; name one, "
                "as in prefix_token_id=10"
            )
        return self.prefix

    @property
    def tokenizer_name(self) -> str:
        return self.text.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Special tokens that a text spells out are these tokens, as templates of conversations need it."""
        ids = self.text.encode(string, special=True)
        spelt = "" if self.prefix is None else self.text.decode([self.prefix], special=True)
        if add_special_tokens is None and spelt and string.startswith(spelt):
            add_special_tokens = False
        elif add_special_tokens is None:
            add_special_tokens = self.add_bos_token
        if add_special_tokens is False:
            return ids
        before, after = self.text.roles.before, self.text.roles.after
        if before is None or after is None or (self.add_bos_token and not before):
            before, after = () if self.text.begin is None else (self.text.begin,), ()
        return [*before, *ids, *after]

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's own template writes it, up to where the assistant is to answer."""
        if self.text.chat is None:
            raise ConfigError(f"{self.path}: comes with no chat template: leave out --apply_chat_template")
        if not add_generation_prompt:
            raise ConfigError(
                "an answer that the task begins itself is not gone on from here: leave out its gen_prefix"
            )
        return self.text.chat.write(chat_history, ask=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: object
    ) -> list[tuple[float, bool]]:
        rows: list[tuple[list[int], int]] = []
        for texts, context, continuation in requests:
            if not context or not 1 <= len(continuation) <= self.max_length:
                raise InputError(
                    f"a continuation has from 1 to {self.max_length} tokens after at least 1; these have "
                    f"{len(continuation)} after {len(context)}: {texts}"
                )
            rows.append(((context + continuation)[-(self.max_length + 1) :], len(continuation)))
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]))
        for first in range(0, len(order), self.rows):
            some = order[first : first + self.rows]
            for at, found in zip(some, told(self.model, [rows[at] for at in some]), strict=True):
                answers[at] = -float(found.nats.sum()), bool(found.likeliest.all())
                if requests[at][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[at][0], answers[at])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows that do not overlap in what they ask; each token is scored once."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            found = helpers.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(None, *helpers.make_disjoint_window(pair)) for pair in found]
            owners += [number] * (len(windows) - len(owners))
        sums = [0.0] * len(requests)
        for number, (nats, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[number] += nats
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to an end token or one of the strings in `until`; contexts leave room for what is written."""
        encoded = [self.tok_encode(request.args[0]) for request in requests]
        order = sorted(range(len(requests)), key=lambda at: (repr(requests[at].args[1]), -len(encoded[at])))
        texts = [""] * len(requests)
        while order:
            asked = requests[order[0]].args[1]
            some = [at for at in order[: self.rows] if requests[at].args[1] == asked]
            order = order[len(some) :]
            for at, text in zip(some, self._written([encoded[at] for at in some], dict(asked)), strict=True):
                texts[at] = text
                self.cache_hook.add_partial("generate_until", requests[at].args, text)
        return texts

    def _written(self, contexts: Sequence[list[int]], asked: dict[str, Any]) -> list[str]:
        """What the model writes after contexts of which all are asked alike."""
        most = int(next((asked[name] for name in MOST if asked.get(name) is not None), TOKENS))
        until = asked.pop("until", None) or ()
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        sampling = self._sampling({name: value for name, value in asked.items() if name not in MOST})
        if most >= self.max_length:
            raise ConfigError(
                f"{most} tokens to be written leave no room for a context in {self.max_length}: ask for fewer, as in "
                "--gen_kwargs max_gen_toks=64"
            )
        ids = [context[-(self.max_length - most) :] for context in contexts]
        writings = [Writing(self.text.stream(), Stops(stops), most) for _ in ids]
        rules = None if self.settings is None or self.settings.rules == Rules() else self.settings.rules
        rows = token_rows(self.model, Prompts(ids, [most] * len(ids)), sampling, end=self.text.ends, rules=rules)
        for new in rows:
            for writing, token in zip(writings, new, strict=True):
                writing.add(token)
            if all(writing.ended for writing in writings):
                break
        return [writing.text for writing in writings]

    def _sampling(self, asked: dict[str, Any]) -> Sampling:
        """Greedy unless asked otherwise; penalties are those that the checkpoint comes with."""
        draws, temperature = asked.pop("do_sample", None), float(asked.pop("temperature", 0.0) or 0.0)
        draws = temperature > 0 if draws is None else bool(draws)
        named = {name: asked.pop(name) for name in ("top_k", "top_p", "min_p") if name in asked}
        if asked:
            raise ConfigError(f"generation by {', '.join(asked)} is not done here: leave that out of the task")
        base = Sampling() if self.settings is None else self.settings.sampling
        if not draws:
            return replace(base, greedy=True)
        return replace(base, greedy=False, temperature=temperature or 1.0, **named)


def evaluate(
    run: str | Path, tasks: Sequence[str], *, include: str | Path | None = None, limit: int | None = None, **model: Any
) -> dict[str, Any]:
    """What the harness finds for its tasks, or for those whose files are in the folder `include`.

    limit: only so many documents of each. model: as HarnessModel has it.
    """
    evaluator, manager = need("lm_eval", "harness"), need("lm_eval.tasks", "harness").TaskManager
    return evaluator.simple_evaluate(
        model=HarnessModel(str(run), **model),
        tasks=[*tasks],
        task_manager=manager(include_path=None if include is None else str(include)),
        limit=limit,
    )


if __name__ == "__main__":
    need("lm_eval.__main__", "harness").cli_evaluate()
