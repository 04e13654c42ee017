"""Formal Algorithms for Transformers (Phuong & Hutter 2022), algorithms 1 to 10, as they are printed.

An oracle: loops over tokens and heads, nothing of the library's. Vectors are COLUMNS as in the paper: X is (d, l), the
scores K'Q are (l_z, l_x), and the softmax runs down each column. Tokens and positions count from 0 here, from 1 there.
The paper's layer_norm has no epsilon; every implementation adds one, and so does this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf, sqrt

import torch
from torch import Tensor

Mask = Callable[[int, int], bool]  # (t_z, t_x): whether query t_x may read key t_z


@dataclass(frozen=True)
class Head:
    """W_q, W_k (d_attn, d_x or d_z), W_v (d_mid, d_z); biases are columns."""

    W_q: Tensor
    b_q: Tensor
    W_k: Tensor
    b_k: Tensor
    W_v: Tensor
    b_v: Tensor


@dataclass(frozen=True)
class MultiHead:
    """W_o (d_out, H d_mid), b_o (d_out,)."""

    heads: Sequence[Head]
    W_o: Tensor
    b_o: Tensor


@dataclass(frozen=True)
class Norm:
    """gamma, beta: (d_e,)."""

    gamma: Tensor
    beta: Tensor
    eps: float = 1e-5


@dataclass(frozen=True)
class Perceptron:
    """W_1 (d_mlp, d_e), b_1, W_2 (d_e, d_mlp), b_2."""

    W_1: Tensor
    b_1: Tensor
    W_2: Tensor
    b_2: Tensor


@dataclass(frozen=True)
class EncoderLayer:
    """One layer of algorithms 9 and 10, and of algorithm 8's encoder."""

    attention: MultiHead
    norm_1: Norm
    mlp: Perceptron
    norm_2: Norm


@dataclass(frozen=True)
class DecoderLayer:
    """One layer of algorithm 8's decoder."""

    attention: MultiHead
    norm_3: Norm
    cross: MultiHead
    norm_4: Norm
    mlp: Perceptron
    norm_5: Norm


@dataclass(frozen=True)
class Embeddings:
    """W_e (d_e, N_V), W_p (d_e, l_max)."""

    W_e: Tensor
    W_p: Tensor


def token_embedding(v: int, W_e: Tensor) -> Tensor:
    """Algorithm 1."""
    return W_e[:, v]


def positional_embedding(t: int, W_p: Tensor) -> Tensor:
    """Algorithm 2."""
    return W_p[:, t]


def embed(x: Sequence[int], theta: Embeddings) -> Tensor:
    """The first lines of algorithms 8 to 10: a column per token."""
    columns = [token_embedding(v, theta.W_e) + positional_embedding(t, theta.W_p) for t, v in enumerate(x)]
    return torch.stack(columns, 1)


def single_query(e: Tensor, context: Sequence[Tensor], head: Head) -> Tensor:
    """Algorithm 3: basic single-query attention."""
    q = head.W_q @ e + head.b_q
    keys = [head.W_k @ e_t + head.b_k for e_t in context]
    values = [head.W_v @ e_t + head.b_v for e_t in context]
    exponentials = [torch.exp(q @ k / sqrt(len(q))) for k in keys]
    total = sum(exponentials)
    return torch.stack([a / total * v for a, v in zip(exponentials, values, strict=True)]).sum(0)


def attention_weights(X: Tensor, Z: Tensor, head: Head, mask: Mask) -> Tensor:
    """The softmax of algorithm 4, (l_z, l_x): each column sums to 1."""
    Q = head.W_q @ X + head.b_q[:, None]
    K = head.W_k @ Z + head.b_k[:, None]
    S = K.T @ Q
    for t_z in range(Z.shape[1]):
        for t_x in range(X.shape[1]):
            if not mask(t_z, t_x):
                S[t_z, t_x] = float("-inf")
    return torch.softmax(S / sqrt(Q.shape[0]), dim=0)


def attention(X: Tensor, Z: Tensor, head: Head, mask: Mask) -> Tensor:
    """Algorithm 4."""
    V = head.W_v @ Z + head.b_v[:, None]
    return V @ attention_weights(X, Z, head, mask)


def mh_attention(X: Tensor, Z: Tensor, W: MultiHead, mask: Mask) -> Tensor:
    """Algorithm 5."""
    Y = torch.cat([attention(X, Z, head, mask) for head in W.heads], 0)
    return W.W_o @ Y + W.b_o[:, None]


def layer_norm(e: Tensor, norm: Norm) -> Tensor:
    """Algorithm 6."""
    m = e.sum() / len(e)
    v = ((e - m) ** 2).sum() / len(e)
    return (e - m) / torch.sqrt(v + norm.eps) * norm.gamma + norm.beta


def rms_norm(e: Tensor, norm: Norm) -> Tensor:
    """Algorithm 6 with m = beta = 0."""
    v = (e**2).sum() / len(e)
    return e / torch.sqrt(v + norm.eps) * norm.gamma


def unembedding(e: Tensor, W_u: Tensor) -> Tensor:
    """Algorithm 7."""
    p = torch.exp(W_u @ e - (W_u @ e).max())
    return p / p.sum()


def columns(function: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """A function of one column, of every column."""
    return torch.stack([function(X[:, t]) for t in range(X.shape[1])], 1)


def everything(t_z: int, t_x: int) -> bool:
    """Mask = 1."""
    return True


def not_later(t_z: int, t_x: int) -> bool:
    """Mask = [t_z <= t_x]."""
    return t_z <= t_x


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def gelu(x: Tensor) -> Tensor:
    """x P(N(0, 1) <= x)."""
    phi = [(1 + erf(value / sqrt(2))) / 2 for value in x.flatten().tolist()]
    return x * torch.tensor(phi, dtype=x.dtype).view_as(x)


def multi_layer(X: Tensor, mlp: Perceptron, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The feed-forward part of algorithms 8 to 10."""
    return mlp.W_2 @ activation(mlp.W_1 @ X + mlp.b_1[:, None]) + mlp.b_2[:, None]


def post_norm(X: Tensor, layers: Sequence[EncoderLayer], activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The encoder of algorithm 8 (ReLU) and of algorithm 9 (GELU)."""
    for layer in layers:
        X = X + mh_attention(X, X, layer.attention, everything)
        X = columns(lambda e, norm=layer.norm_1: layer_norm(e, norm), X)
        X = X + multi_layer(X, layer.mlp, activation)
        X = columns(lambda e, norm=layer.norm_2: layer_norm(e, norm), X)
    return X


def ed_transformer(
    z: Sequence[int],
    x: Sequence[int],
    embeddings: Embeddings,
    encoder: Sequence[EncoderLayer],
    decoder: Sequence[DecoderLayer],
    W_u: Tensor,
) -> Tensor:
    """Algorithm 8: P (N_V, l_x)."""
    Z = post_norm(embed(z, embeddings), encoder, relu)
    X = embed(x, embeddings)
    for layer in decoder:
        X = X + mh_attention(X, X, layer.attention, not_later)
        X = columns(lambda e, norm=layer.norm_3: layer_norm(e, norm), X)
        X = X + mh_attention(X, Z, layer.cross, everything)
        X = columns(lambda e, norm=layer.norm_4: layer_norm(e, norm), X)
        X = X + multi_layer(X, layer.mlp, relu)
        X = columns(lambda e, norm=layer.norm_5: layer_norm(e, norm), X)
    return columns(lambda e: unembedding(e, W_u), X)


def e_body(x: Sequence[int], embeddings: Embeddings, layers: Sequence[EncoderLayer]) -> Tensor:
    """Algorithm 9 up to its last lines: X (d_e, l)."""
    return post_norm(embed(x, embeddings), layers, gelu)


def e_transformer(
    x: Sequence[int],
    embeddings: Embeddings,
    layers: Sequence[EncoderLayer],
    W_f: Tensor,
    b_f: Tensor,
    norm: Norm,
    W_u: Tensor,
) -> Tensor:
    """Algorithm 9: P (N_V, l)."""
    X = gelu(W_f @ e_body(x, embeddings, layers) + b_f[:, None])
    X = columns(lambda e: layer_norm(e, norm), X)
    return columns(lambda e: unembedding(e, W_u), X)


def d_transformer(
    x: Sequence[int], embeddings: Embeddings, layers: Sequence[EncoderLayer], norm: Norm, W_u: Tensor
) -> Tensor:
    """Algorithm 10: P (N_V, l)."""
    X = embed(x, embeddings)
    for layer in layers:
        normed = columns(lambda e, norm=layer.norm_1: layer_norm(e, norm), X)
        X = X + mh_attention(normed, normed, layer.attention, not_later)
        normed = columns(lambda e, norm=layer.norm_2: layer_norm(e, norm), X)
        X = X + multi_layer(normed, layer.mlp, gelu)
    X = columns(lambda e: layer_norm(e, norm), X)
    return columns(lambda e: unembedding(e, W_u), X)
