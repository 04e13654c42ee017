"""DistilBERT (Sanh et al. 2019): half of BERT's layers, without token types and without a pooler."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, SIZE, Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.heads.classify import Classify
from anyformer.heads.span import Span
from anyformer.models.answers import each_token, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import FF, MIXER, OLD_NORMS, Usual, classes, masked, task
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.patterns.full import Full
from anyformer.positions.learned import Learned
from anyformer.residuals.post import Post


class DistilBert(ModelType):
    """DistilBERT, half of BERT's layers (Sanh et al. 2019)."""

    classes = classes("DistilBert")
    prefix = "distilbert."
    renamed = OLD_NORMS
    ties: ClassVar = {"vocab_projector.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual(
            norm=LayerNorm(eps=1e-12),
            dropout=c.take("dropout", FRACTION, "dropout", 0.1),
            activation=c.take("activation", ACTIVATIONS, f"{FF}.activation", "gelu"),
        )
        c.ignore("sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings")  # how the table of positions began
        c.ignore("qa_dropout", "seq_classif_dropout")  # of heads that are not there
        mixer = Softmax(
            heads=c.take("n_heads", SIZE, f"{MIXER}.heads"),
            pattern=Full(),
            bias=True,
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.1),
        )
        ff = MLP(hidden=c.take("hidden_dim", SIZE, f"{FF}.hidden"), activation=usual.activation)
        block = Block(mixer=mixer, ff=ff, residual=Post(norm=usual.norm, dropout=usual.dropout))
        return Encoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("dim", SIZE, "width"),
            position=Learned(length=c.take("max_position_embeddings", SIZE, "position.length", 512)),
            norm=usual.norm,
            dropout=usual.dropout,
            body=Stack(blocks=(block,) * c.count("n_layers", "body.blocks"), norm=NoNorm()),
            head=self.head(c, name, usual),
        )

    def head(self, c: Config, name: str, usual: Usual) -> HeadSpec | None:
        """What a class answers."""
        match task(name):
            case "MaskedLM":
                return masked(c, usual)
            case "SequenceClassification":
                dropout = c.take("seq_classif_dropout", FRACTION, "head.dropout", 0.2)
                return whole_text(c, Classify(hidden=True, activation="relu", dropout=dropout))
            case "TokenClassification":
                return each_token(c, usual.dropout)
            case "QuestionAnswering":
                return Span()
            case _:
                return None

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        theirs, ours = "distilbert.transformer.layer.{i}", "body.blocks.{i}"
        parts = {
            "distilbert.embeddings.LayerNorm": "norm",
            f"{theirs}.attention.q_lin": f"{ours}.mixer.q",
            f"{theirs}.attention.k_lin": f"{ours}.mixer.k",
            f"{theirs}.attention.v_lin": f"{ours}.mixer.v",
            f"{theirs}.attention.out_lin": f"{ours}.mixer.o",
            f"{theirs}.sa_layer_norm": f"{ours}.residual.norm.mixer",
            f"{theirs}.ffn.lin1": f"{ours}.ff.up",
            f"{theirs}.ffn.lin2": f"{ours}.ff.down",
            f"{theirs}.output_layer_norm": f"{ours}.residual.norm.ff",
            "vocab_transform": "head.dense",
            "vocab_layer_norm": "head.norm",
            "pre_classifier": "head.pooler.dense",
            "qa_outputs" if isinstance(spec.head, Span) else "classifier": "head.out",
        }
        return {
            "distilbert.embeddings.word_embeddings.weight": "embedding.weight",
            "distilbert.embeddings.position_embeddings.weight": "position.weight",
            "distilbert.embeddings.position_ids": None,
            "vocab_projector.bias": "head.decoder.bias",
            **sides(parts),
        }
