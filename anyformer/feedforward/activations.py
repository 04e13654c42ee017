"""The nonlinearities by name. `gelu` is the exact one (erf), `gelu_tanh` GPT-2's approximation, 5e-4 away, and
`quick_gelu` CLIP's, x sigmoid(1.702 x), 2e-2 away (Hendrycks & Gimpel 2016).

`relu2` is relu(x)² (So et al. 2021, Primer). As the gate of `gated`, sigmoid makes GLU, relu ReGLU, gelu GEGLU, silu
SwiGLU, and identity the bilinear form (Shazeer 2020).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid", "identity"]

FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * F.sigmoid(1.702 * x),
    "silu": F.silu,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
    "identity": lambda x: x,
}
