"""Fast forms against plain ones, outputs and gradients; and what the tape reads and changes inside attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.linear import Linear
from anyformer.core.build import fill_all
from anyformer.core.context import Context, Where
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape
from anyformer.core.tree import tree_map
from anyformer.kernels.attention import Region, attend, fused, merge, plain
from anyformer.kernels.linear import chunked
from anyformer.patterns.base import Pattern, parse

B, T, S, D = 2, 7, 11, 4
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
TOLERANCES = {torch.float64: TIGHT, torch.float32: {"rtol": 1e-4, "atol": 1e-5}}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def where(length: int, first: int, blanks: Sequence[tuple[int, int]] = ()) -> Where:
    """Rows whose times run on from `first`, without a token at the places (row, token) of `blanks`."""
    time = torch.arange(first, first + length).repeat(B, 1)
    for row, token in blanks:
        time[row, token] = -1
    return Where(time, time[..., None], {})


@dataclass
class Edges:
    """A vector of its own for each head and key, beside its value. vectors: (H, S, D)."""

    vectors: Tensor

    def __call__(self, weights: Tensor) -> Tensor:
        return torch.einsum("bhts,hsd->bthd", weights, self.vectors.to(weights.dtype))


def region(
    pattern: str,
    heads: int = 6,
    groups: int = 6,
    scored: bool = False,
    dtype=torch.float64,
    softcap: float | None = None,
    edges: bool = False,
) -> Region:
    """T queries at the end of S keys; a padding key and a padding query in row 1, one head's bias a score."""
    g = generator(3)
    q, k, v = (
        torch.randn(B, n, h, D, generator=g, dtype=torch.float64).to(dtype)
        for n, h in ((T, heads), (S, groups), (S, groups))
    )
    scores = torch.randn(1, heads, T, S, generator=g, dtype=torch.float64).to(dtype) if scored else None
    q_where, k_where = where(T, S - T, [(1, 0)]), where(S, 0, [(1, 0), (1, S - T)])
    adds = Edges(torch.randn(heads, S, D, generator=g, dtype=torch.float64).to(dtype)) if edges else None
    return Region(q, k, v, q_where, k_where, parse(pattern), 0.7, scores, softcap=softcap, adds=adds)


def parts(one: Region) -> list[Tensor]:
    """What gradients are wanted of."""
    edges = one.adds.vectors if isinstance(one.adds, Edges) else None
    return [x for x in (one.q, one.k, one.v, one.scores, edges) if x is not None]


def tracked(one: Region) -> Region:
    q, k, v, *rest = (x.detach().clone().requires_grad_() for x in parts(one))
    adds = Edges(rest.pop()) if isinstance(one.adds, Edges) else None
    return replace(one, q=q, k=k, v=v, scores=rest[0] if rest else None, adds=adds)


def seeing(one: Region) -> Tensor:
    """(B, T): queries that see something."""
    return one.seen.any(-1)


def run(one: Region, form: Callable[[Region], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and gradients of a random sum of the outputs of queries that see something."""
    one = tracked(one)
    out = form(one)
    weights = torch.randn(out.shape, generator=generator(8), dtype=torch.float64).to(out.dtype)
    (out * weights)[seeing(one)].sum().backward()
    grads = [x.grad for x in parts(one) if x.grad is not None]
    assert len(grads) == len(parts(one))
    return out.detach()[seeing(one)], grads


def by_hand(one: Region) -> Tensor:
    """The definition, a pair at a time."""
    heads, groups = one.q.shape[2], one.k.shape[2]
    out = torch.zeros_like(one.q)
    for b in range(B):
        for t in range(T):
            for h in range(heads):
                keys = [s for s in range(S) if one.seen[b, t, s]]
                g = h * groups // heads
                bias = [0.0 if one.scores is None else one.scores[0, h, t, s] for s in keys]
                s = [(one.q[b, t, h] @ one.k[b, j, g]) * one.scale for j in keys]
                s = [x if one.softcap is None else one.softcap * (x / one.softcap).tanh() for x in s]
                values = one.v[b, keys, g] + (one.adds.vectors[h, keys] if isinstance(one.adds, Edges) else 0)
                if keys:
                    weights = torch.stack([x + y for x, y in zip(s, bias, strict=True)]).softmax(0)
                    out[b, t, h] = weights @ values
    return out


def split(one: Region, owner: Sequence[int]) -> list[Region]:
    """The same keys in disjoint regions: `owner` says which each belongs to."""
    regions = []
    for number in sorted(set(owner)):
        keys = torch.tensor([key for key, own in enumerate(owner) if own == number])
        scores = None if one.scores is None else one.scores[..., keys]
        its = tree_map(lambda x, keys=keys: x[:, keys], one.k_where)
        adds = Edges(one.adds.vectors[:, keys]) if isinstance(one.adds, Edges) else None
        regions.append(replace(one, k=one.k[:, keys], v=one.v[:, keys], k_where=its, scores=scores, adds=adds))
    return regions


cases = pytest.mark.parametrize(
    ("pattern", "groups", "scored", "softcap", "edges"),
    [
        ("causal", 6, False, None, False),
        ("causal & window(3)", 2, True, None, False),
        ("causal & (sinks(2) | window(2))", 1, False, None, False),
        ("full", 3, True, None, False),
        ("causal & window(4)", 2, True, 0.8, False),
        ("causal", 3, False, None, True),
        ("full", 2, True, 1.1, True),
    ],
)


@cases
def test_plain_is_the_definition(pattern: str, groups: int, scored: bool, softcap: float | None, edges: bool) -> None:
    one = region(pattern, groups=groups, scored=scored, softcap=softcap, edges=edges)
    out, lse = plain(one)
    assert_close(out[seeing(one)], by_hand(one)[seeing(one)], **TIGHT)
    k = one.k.repeat_interleave(6 // groups, 2)
    scores = torch.einsum("bthd,bshd->bhts", one.q, k) * one.scale
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    scores = scores + (0 if one.scores is None else one.scores)
    total = scores.exp().masked_fill(~one.seen[:, None], 0).sum(-1).log()
    assert_close(lse.transpose(1, 2)[seeing(one)], total.transpose(1, 2)[seeing(one)], **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@cases
def test_fused_is_plain(
    pattern: str, groups: int, scored: bool, softcap: float | None, edges: bool, dtype: torch.dtype
) -> None:
    one = region(pattern, groups=groups, scored=scored, dtype=dtype, softcap=softcap, edges=edges)
    out, grads = run(one, fused)
    expected, wanted = run(one, lambda r: plain(r)[0])
    assert_close(out, expected, **TOLERANCES[dtype])
    for ours, theirs in zip(grads, wanted, strict=True):
        assert_close(ours, theirs, **TOLERANCES[dtype])


@pytest.mark.parametrize("pattern", ["causal", "full"])
def test_the_straight_form_is_plain(pattern: str) -> None:
    """Without padding or past, `straight` lets the fused form go without a mask."""
    one = region(pattern, groups=2)
    one = replace(one, k=one.k[:, :T], v=one.v[:, :T], q_where=where(T, 0), k_where=where(T, 0), straight=True)
    (out, grads), (expected, wanted) = run(one, fused), run(one, lambda r: plain(r)[0])
    assert_close(out, expected, **TIGHT)
    for ours, theirs in zip(grads, wanted, strict=True):
        assert_close(ours, theirs, **TIGHT)


@given(
    owner=st.lists(st.integers(0, 3), min_size=S, max_size=S),
    scored=st.booleans(),
    groups=st.sampled_from([6, 2]),
    softcap=st.sampled_from([None, 0.8]),
    edges=st.booleans(),
)
def test_merged_regions_are_one(
    owner: list[int], scored: bool, groups: int, softcap: float | None, edges: bool
) -> None:
    one = region("causal & (sinks(2) | window(4))", groups=groups, scored=scored, softcap=softcap, edges=edges)
    out, grads = run(one, lambda r: attend(split(r, owner)))
    expected, wanted = run(one, lambda r: plain(r)[0])
    assert_close(out, expected, **TIGHT)
    for ours, theirs in zip(grads, wanted, strict=True):
        assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize("softcap", [None, 0.8])
def test_merged_log_sum_exp_is_that_of_all_keys(softcap: float | None) -> None:
    one = region("causal", scored=True, softcap=softcap)
    _, lse = merge([plain(part) for part in split(one, [0, 1, 2] * 3 + [0, 1])])
    sees = seeing(one)[:, None].expand_as(lse)
    assert_close(lse[sees], plain(one)[1][sees], **TIGHT)


def test_merging_holds_where_scores_are_extreme() -> None:
    """Scores far beyond what exp can hold: only differences count."""
    one = region("full")
    one = replace(one, scale=1000.0)
    assert_close(attend(split(one, [0, 1] * 5 + [1]))[seeing(one)], plain(one)[0][seeing(one)], **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [fused, lambda r: plain(r)[0], lambda r: attend(split(r, [0, 1] * 5 + [1]))])
@pytest.mark.parametrize("all_terms", [False, True])
def test_a_row_that_sees_nothing_is_finite(
    form: Callable[[Region], Tensor], dtype: torch.dtype, all_terms: bool
) -> None:
    one = tracked(region("causal", scored=True, dtype=dtype, softcap=0.8 if all_terms else None, edges=all_terms))
    one = replace(one, k_where=where(S, 0, [(0, s) for s in range(S)]))  # row 0 has no key at all
    out = form(one)
    out.float().square().sum().backward()
    assert out.dtype == dtype and out.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in parts(one))


@pytest.mark.parametrize("form", [fused, lambda r, rate: plain(r, dropout=rate)[0]], ids=["fused", "plain"])
@pytest.mark.parametrize("softcap", [None, 0.8])
@torch.no_grad()
def test_dropout_drops_each_weight_alone(form: Callable[[Region, float], Tensor], softcap: float | None) -> None:
    """The mean is then the output without dropout, the variance p/(1-p) sum_j (w_j v_j)²; no two are correlated."""
    rows, rate = 20_000, 0.3
    one = region("causal", heads=2, groups=1, softcap=softcap)
    one = replace(one, k_where=where(S, 0), q_where=where(T, S - T))
    weights: list[Tensor] = []
    out = plain(one, lambda w: weights.append(w) or w)[0][0]
    variance = torch.einsum("hts,sd->thd", weights[0][0] ** 2, one.v[0, :, 0] ** 2) * rate / (1 - rate)
    names = ("q", "k", "v", "q_where", "k_where")
    one = replace(one, **{n: tree_map(lambda x: x[:1].expand(rows, *x.shape[1:]), getattr(one, n)) for n in names})
    torch.manual_seed(3)
    dropped = form(one, rate)
    assert ((dropped.mean(0) - out).abs() < 5 * (variance / rows).sqrt()).all()
    assert_close(dropped.var(0), variance, rtol=0.1, atol=0)
    noise = ((dropped - out) / variance.sqrt())[..., 0].flatten(1)  # (rows, T H)
    assert ((noise.T @ noise / rows).fill_diagonal_(0).abs() < 5 * rows**-0.5).all()


def test_a_dropped_weight_adds_nothing_either() -> None:
    """What is added is what the values come to, negative: nothing is left, whichever weights were dropped."""
    one = region("causal", edges=True)
    one = replace(one, adds=Edges(-one.v[0].transpose(0, 1)))
    torch.manual_seed(0)
    assert_close(fused(one, 0.4)[0], torch.zeros_like(one.q[0]), **TIGHT)


def test_rows_that_see_nothing_are_the_same_in_both_forms() -> None:
    one = region("causal", scored=True)
    assert not seeing(one).all()
    assert_close(fused(one), plain(one)[0], **TIGHT)


@pytest.mark.parametrize("form", [fused, lambda r: plain(r)[0]])
def test_values_of_padding_are_never_read(form: Callable[[Region], Tensor]) -> None:
    one = region("causal")
    junk = one.v.masked_fill(~one.k_where.real[..., None, None], float("nan"))
    assert torch.equal(form(one), form(replace(one, v=junk)))


@pytest.mark.parametrize("form", ["fused", "plain", "merged"])
def test_dropout_drops_weights_and_scales_the_rest(form: str) -> None:
    one = region("causal")
    eye = torch.eye(S, dtype=torch.float64)[None, :, None].expand(B, S, 6, S)  # outputs are then the weights themselves
    one = replace(one, v=eye, k_where=where(S, 0), q_where=where(T, S - T))
    weights = plain(one)[0]
    torch.manual_seed(1)
    rate = 0.25
    dropped = {
        "fused": lambda: fused(one, rate),
        "plain": lambda: plain(one, dropout=rate)[0],
        "merged": lambda: attend(split(one, [0, 1] * 5 + [1]), rate),
    }[form]()
    assert dropped.shape == weights.shape
    kept = dropped != 0
    assert_close(dropped[kept], (weights / (1 - rate))[kept], **TIGHT)
    share = kept[weights > 0].double().mean().item()
    assert abs(share - (1 - rate)) < 0.06  # 828 draws: four standard deviations


def test_cutting_the_batch_or_the_heads_changes_nothing() -> None:
    """Each row and each group of heads is alone."""
    one = region("causal & window(4)", groups=3)
    alone = replace(one, q=one.q[:1, :, 2:4], k=one.k[:1, :, 1:2], v=one.v[:1, :, 1:2])
    alone = replace(
        alone, q_where=tree_map(lambda x: x[:1], one.q_where), k_where=tree_map(lambda x: x[:1], one.k_where)
    )
    assert_close(fused(alone), fused(one)[:1, :, 2:4], **TIGHT)


# linear attention


Text = tuple[Tensor, ...]


def linear_inputs(starts: Sequence[Sequence[int]], heads: int = 2, size: int = 3, values: int = 5) -> Text:
    """Features, values and text starts; sums of a text that began at 0 (rows: 2)."""
    g, length = generator(6), len(starts[0])
    q, k = (torch.rand(2, heads, length, size, generator=g, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, heads, length, values, generator=g, dtype=torch.float64)
    S = torch.randn(2, heads, size, values, generator=g, dtype=torch.float64)
    z = torch.rand(2, heads, size, generator=g, dtype=torch.float64)
    start = torch.tensor(starts)
    return q, k * (start >= 0)[:, None, :, None], v, start, S, z, torch.zeros(2, dtype=torch.long)


def recurrence(q: Tensor, k: Tensor, v: Tensor, start: Tensor, S: Tensor, z: Tensor, text: Tensor) -> Text:
    """S_t = S_(t-1) + k_t v_t', z_t = z_(t-1) + k_t; a new text begins with none. A token at a time."""
    tops, bottoms, Ss, zs, texts = [], [], [], [], []
    for b in range(q.shape[0]):
        S_b, z_b, text_b = S[b], z[b], int(text[b])
        for t in range(q.shape[2]):
            if (begin := int(start[b, t])) >= 0:  # else padding, which has no text
                if begin != text_b:
                    S_b, z_b, text_b = torch.zeros_like(S_b), torch.zeros_like(z_b), begin
                S_b = S_b + torch.einsum("hd,he->hde", k[b, :, t], v[b, :, t])
                z_b = z_b + k[b, :, t]
            tops.append(torch.einsum("hd,hde->he", q[b, :, t], S_b))
            bottoms.append(torch.einsum("hd,hd->h", q[b, :, t], z_b))
        Ss, zs, texts = [*Ss, S_b], [*zs, z_b], [*texts, text_b]
    rows, length = q.shape[0], q.shape[2]
    top = torch.stack(tops).unflatten(0, (rows, length)).transpose(1, 2)
    bottom = torch.stack(bottoms).unflatten(0, (rows, length)).transpose(1, 2)
    return top, bottom, torch.stack(Ss), torch.stack(zs), torch.tensor(texts)


ONE_TEXT = [[0] * 13, [0] * 13]
TEXTS = [[0] * 4 + [4] * 3 + [7] + [8] * 5, [2] * 9 + [11] * 4]
PADDED = [[0] * 4 + [-1] + [4] * 3 + [-1] * 2 + [7] * 3, [-1] * 5 + [0] * 8]


@pytest.mark.parametrize("chunk", [1, 3, 4, 13, 64])
@pytest.mark.parametrize("starts", [ONE_TEXT, TEXTS, PADDED], ids=["one text", "texts", "padded"])
def test_chunks_are_the_recurrence(starts: Sequence[Sequence[int]], chunk: int) -> None:
    def results(form: Callable[..., Text]) -> tuple[list[Tensor], list[Tensor]]:
        q, k, v, start, S, z, text = linear_inputs(starts)
        leaves = [x.requires_grad_() for x in (q.detach(), k.detach(), v.detach(), S.detach(), z.detach())]
        q, k, v, S, z = leaves
        *outs, text = form(q, k, v, start, S, z, text)
        real = (start >= 0)[:, None].expand_as(outs[1])
        outs = [outs[0][real], outs[1][real], *outs[2:]]  # what padding gives is nobody's
        g = generator(5)
        total = sum((out * torch.randn(out.shape, generator=g, dtype=torch.float64)).sum() for out in outs)
        grads = torch.autograd.grad(total, leaves)
        grads = [*grads[:2], *grads[2:]]
        return [*(out.detach() for out in outs), text], [
            grads[0],
            grads[1] * (start >= 0)[:, None, :, None],
            *grads[2:],
        ]

    outs, grads = results(lambda *given: chunked(*given, chunk=chunk))
    expected, wanted = results(recurrence)
    for ours, theirs in zip([*outs, *grads], [*expected, *wanted], strict=True):
        assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
def test_linear_attention_is_its_equation(kv_heads: int) -> None:
    """phi = elu + 1, no 1/sqrt D, head h reads group floor(h G / H)."""
    mixer = Linear(heads=6, kv_heads=kv_heads, head_size=3, bias=True, eps=0.01).build(Site("mixer", 10)).double()
    fill_all(mixer, 0)
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.normal_(std=0.5, generator=generator(1))
    x = torch.randn(1, 70, 10, dtype=torch.float64, generator=generator(2))  # longer than a chunk
    out, past = mixer(x, Context.start(1, 70))
    named = mixer.state_dict()
    q, k, v = ((x[0] @ named[f"{n}.weight"].T + named[f"{n}.bias"]).unflatten(-1, (-1, 3)) for n in "qkv")
    phi_q, phi_k = (torch.where(y > 0, y + 1, y.exp()) for y in (q, k))
    heads = []
    for h in range(6):
        g = h * kv_heads // 6
        A = (phi_q[:, h] @ phi_k[:, g].T).tril()
        heads.append(A @ v[:, g] / (A.sum(1, keepdim=True) + 0.01))
    expected = torch.cat(heads, 1) @ named["o.weight"].T + named["o.bias"]
    assert past is None
    assert_close(out[0], expected, **TIGHT)


# the tape


def decoder(*mixers: dict) -> Model:
    blocks = [{"kind": "block", "mixer": mixer} for mixer in mixers]
    tree = {"kind": "decoder", "width": 24, "vocabulary": 17, "body": {"kind": "stack", "blocks": blocks}}
    model = from_dict(AnyModel, tree).build(dtype=torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator(11))
    return model


SOFTMAX = {"kind": "softmax", "heads": 4, "kv_heads": 2, "position": "rotary"}
IDS = torch.arange(18).view(2, 9) * 5 % 17
WEIGHTS = "body.blocks.{}.mixer.weights"


def test_recorded_weights_are_a_causal_softmax() -> None:
    model, tape = decoder(SOFTMAX, {**SOFTMAX, "pattern": "causal & window(3)"}), Tape(record=[WEIGHTS.format("*")])
    lengths = torch.tensor([9, 6])
    with torch.no_grad():
        out = model(IDS, lengths=lengths, tape=tape)
        assert_close(out, model(IDS, lengths=lengths), **TIGHT)  # recording changes nothing
    real = (torch.arange(9) < lengths[:, None]).double()[:, None].expand(2, 4, 9)  # padding looks at nothing
    full, window = tape[WEIGHTS.format(0)], tape[WEIGHTS.format(1)]
    assert full.shape == window.shape == (2, 4, 9, 9)
    for weights in (full, window):
        assert_close(weights.sum(-1), real, **TIGHT)
        assert not weights[0].triu(1).any() and not weights[1, :, :6, 6:].any()
    assert not window[0].tril(-3).any() and window[0].tril(-2).any()


def test_a_changed_weight_changes_what_is_read() -> None:
    """Attention set to the identity: each token reads its own value."""
    model = decoder(SOFTMAX, SOFTMAX)
    identity = torch.eye(9, dtype=torch.float64).expand(2, 4, 9, 9)
    names = ["body.blocks.1.mixer.out", "body.blocks.0.stream", WEIGHTS.format(0), WEIGHTS.format(1)]
    tape = Tape(record=names, change={WEIGHTS.format(1): lambda weights: identity})
    with torch.no_grad():
        changed, before = model(IDS, tape=tape), model(IDS)
        block = model.get_submodule("body.blocks.1")
        normed = block.get_submodule("residual.norm.mixer")(tape["body.blocks.0.stream"])
        values = block.get_submodule("mixer.v")(normed).unflatten(-1, (2, 6)).repeat_interleave(2, 2)
    assert torch.equal(tape[WEIGHTS.format(1)], identity)  # changed first, then recorded
    assert not torch.equal(tape[WEIGHTS.format(0)], identity)
    assert_close(tape["body.blocks.1.mixer.out"], values, **TIGHT)
    assert (changed - before).abs().max() > 0.01


def test_a_stream_patched_from_another_text_continues_as_that_text() -> None:
    model, point = decoder(SOFTMAX, SOFTMAX), "body.blocks.0.stream"
    other, tape = (IDS + 3) % 17, Tape(record=[point])
    with torch.no_grad():
        expected = model(other, tape=tape)
        patched = model(IDS, tape=Tape(change={point: lambda stream: tape[point]}))
    assert torch.equal(patched, expected)


def test_recomputed_values_are_overwritten() -> None:
    """Under checkpointing the backward pass runs each block again; the tape keeps one value a point."""
    model = decoder(SOFTMAX, SOFTMAX)
    grads, kept = [], []
    for checkpoint in (False, True):
        seen: list[int] = []

        def halved(weights: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(1)
            return weights * 0.5

        tape = Tape(record=[WEIGHTS.format("*")], change={WEIGHTS.format(0): halved})
        model.zero_grad()
        model(IDS, tape=tape, checkpoint=checkpoint).square().mean().backward()
        assert len(seen) == 1 + checkpoint  # made anew in the backward pass
        grads.append([p.grad for p in model.parameters()])
        kept.append([tape[WEIGHTS.format(i)].detach() for i in range(2)])
        assert len(tape.values) == 2
    for plainly, again in zip([*grads[0], *kept[0]], [*grads[1], *kept[1]], strict=True):
        assert_close(plainly, again, **TIGHT)


def test_a_pattern_written_as_text_is_the_pattern() -> None:
    one = region("causal & window(3)")
    assert isinstance(one.pattern, Pattern) and one.seen[0].sum() == 3 * T
