"""What a reader of another program's checkpoint gives: the same model as Hugging Face would publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class Lazy(Mapping[str, Tensor]):
    """Tensors by name, each made when it is asked for and not kept: no more than one is in memory."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self.makers = makers

    def __getitem__(self, name: str) -> Tensor:
        return self.makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.makers  # Mapping's own would make the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


@dataclass(frozen=True)
class Foreign:
    """A config with its `model_type`, and tensors under the names of that type's files.

    tokenizer: the text of a `tokenizer.json`. chat_template: as it was found. None: there was none.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: str | None = None
    chat_template: str | None = None
