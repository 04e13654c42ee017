"""GPT-J (Wang & Komatsuzaki 2021): mixer and feed-forward side by side behind one norm, a share of each head turned."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.parallel import Parallel
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import FRACTION, POSITIVE, SIZE, Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.heads.tied import Tied
from anyformer.models.base import ModelType
from anyformer.models.gpt2 import ALIASES, OLD_KEYS, feedforward
from anyformer.models.head import TIES, language
from anyformer.norms.layer import LayerNorm
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

MIXER, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.residual"


class GPTJ(ModelType):
    """GPT-J (Wang & Komatsuzaki 2021)."""

    classes = ("GPTJForCausalLM", "GPTJModel", "GPTJForSequenceClassification")
    prefix = "transformer."
    ties: ClassVar = TIES
    aliases = ALIASES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("rotary", "scale_attn_weights", *OLD_KEYS)
        mixer = Softmax(
            heads=c.take("n_head", SIZE, f"{MIXER}.heads"),
            position=Rotary(channels=c.take("rotary_dim", SIZE, f"{MIXER}.position.channels", 64), pairs="neighbours"),
            dropout=c.take("attn_pdrop", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        norm = LayerNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        residual = Pre(norm=norm, dropout=c.take("resid_pdrop", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        block = Parallel(mixer=mixer, ff=feedforward(c), residual=residual)
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("n_embd", SIZE, "width"),
            dropout=c.take("embd_pdrop", FRACTION, "dropout", 0.0),
            context=c.take("n_positions", SIZE, "context", 2048),
            body=Stack(blocks=(block,) * c.count("n_layer", "body.blocks"), norm=norm),
            head=language(c, name, tied=False, bias=True),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "transformer.h.{i}", "body.blocks.{i}"
        tied = isinstance(spec, Decoder) and isinstance(spec.head, Tied)
        maps = sides(
            {
                f"{theirs}.ln_1": f"{ours}.residual.norm.both",
                f"{theirs}.mlp.fc_in": f"{ours}.ff.up",
                f"{theirs}.mlp.fc_out": f"{ours}.ff.down",
                "transformer.ln_f": "body.norm",
            }
        )
        return {
            "transformer.wte.weight": "embedding.weight",
            f"{theirs}.attn.q_proj.weight": f"{ours}.mixer.q.weight",
            f"{theirs}.attn.k_proj.weight": f"{ours}.mixer.k.weight",
            f"{theirs}.attn.v_proj.weight": f"{ours}.mixer.v.weight",
            f"{theirs}.attn.out_proj.weight": f"{ours}.mixer.o.weight",
            **maps,
            "lm_head.weight": "head.out.weight",
            "lm_head.bias": "head.bias" if tied else "head.out.bias",
            f"{theirs}.attn.bias": None,  # the pattern, as a table
            f"{theirs}.attn.masked_bias": None,
        }
