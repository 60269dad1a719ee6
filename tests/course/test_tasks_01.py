"""Exercise 01: right answers pass however they are written, every planted mistake is refused, stubs are not judged."""

import math

import numpy as np
import pytest
import torch

from bigbird_mini.course.checking import evaluate

# ---------------------------------------------------------------- 1.1 one head


def head_matmul(q, k, v):
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v


def head_einsum(q, k, v):
    scores = torch.einsum("id,jd->ij", q, k) / math.sqrt(q.shape[1])
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return torch.einsum("ij,je->ie", weights / weights.sum(1, keepdim=True), v)


def head_loop(q, k, v):
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        weights = torch.softmax(torch.stack([q[i] @ key for key in k]) / q.shape[1] ** 0.5, dim=0)
        for j in range(len(k)):
            out[i] += weights[j] * v[j]
    return out


def head_float32(q, k, v):
    return head_matmul(q.float(), k.float(), v.float())


@pytest.mark.parametrize("answer", [head_matmul, head_einsum, head_loop, head_float32])
def test_one_head_right(answer):
    assert evaluate("1.1", answer).record() == {
        "task": "1.1",
        "title": "one head by hand",
        "points": 2,
        "max": 2,
        "outcome": "right",
        "why": "",
    }


def plain_softmax(scores):
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def scores_of(q, k):
    return q @ k.T / q.shape[1] ** 0.5


def keys_changed(q, k, v):
    k /= q.shape[1] ** 0.5
    return torch.softmax(q @ k.T, -1) @ v


WRONG_HEADS = {
    "no scale": lambda q, k, v: torch.softmax(q @ k.T, -1) @ v,
    "scale 1/d": lambda q, k, v: torch.softmax(q @ k.T / q.shape[1], -1) @ v,
    "scale by sqrt(e)": lambda q, k, v: torch.softmax(q @ k.T / v.shape[1] ** 0.5, -1) @ v,
    "scale by sqrt(n)": lambda q, k, v: torch.softmax(q @ k.T / q.shape[0] ** 0.5, -1) @ v,
    "softmax over queries": lambda q, k, v: torch.softmax(scores_of(q, k), 0) @ v,
    "q and k swapped": lambda q, k, v: torch.softmax(scores_of(k, q), -1) @ v,
    "sum in place of softmax": lambda q, k, v: scores_of(q, k) / scores_of(q, k).sum(-1, keepdim=True) @ v,
    "no normalising": lambda q, k, v: (scores_of(q, k) - scores_of(q, k).amax(-1, keepdim=True)).exp() @ v,
    "exp overflows": lambda q, k, v: plain_softmax(scores_of(q, k)) @ v,
    "one maximum for all rows": lambda q, k, v: plain_softmax(scores_of(q, k) - scores_of(q, k).max()) @ v,
    "weights returned": lambda q, k, v: torch.softmax(scores_of(q, k), -1),
    "transposed": lambda q, k, v: head_matmul(q, k, v).T,
    "no return": lambda q, k, v: None,
    "a list": lambda q, k, v: head_matmul(q, k, v).tolist(),
    "a NumPy array": lambda q, k, v: head_matmul(q, k, v).numpy(),
    "rounded to integers": lambda q, k, v: head_matmul(q, k, v).long(),
    "input changed": keys_changed,
}


@pytest.mark.parametrize("mistake", WRONG_HEADS)
def test_one_head_wrong(mistake):
    result = evaluate("1.1", WRONG_HEADS[mistake])
    assert result.points == 0
    assert result.outcome in ("wrong", "error"), result
    assert len(result.why) > 20 and "fault of the course" not in result.why


def test_one_head_says_where():
    why = evaluate("1.1", WRONG_HEADS["no scale"]).why
    assert why.startswith("With 7 queries, 6 keys, d = 5, e = 4: the first difference is at query 0, number 0: found ")
    assert "expected" in why and "of 28 numbers differ" in why
    assert "found nan" in evaluate("1.1", WRONG_HEADS["exp overflows"]).why
    assert "scores in the thousands" in evaluate("1.1", WRONG_HEADS["exp overflows"]).why
    assert "shape (4, 7), it should have (7, 4)" in evaluate("1.1", WRONG_HEADS["transposed"]).why
    assert "changes its input `k`" in evaluate("1.1", keys_changed).why
    assert "`return`" in evaluate("1.1", WRONG_HEADS["no return"]).why


# ---------------------------------------------------------------- 1.2 many heads


def heads_matmul(q, k, v, key_mask):
    mask = key_mask[:, None, None, :]
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


def heads_einsum(q, k, v, key_mask):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    scores = torch.where(key_mask[:, None, None], scores, -1e30)
    weights = torch.softmax(scores, -1) * key_mask[:, None, None]
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def heads_loop(q, k, v, key_mask):
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            real = key_mask[b]
            if real.any():
                out[b, h] = head_matmul(q[b, h], k[b, h][real], v[b, h][real])
    return out


@pytest.mark.parametrize("answer", [heads_matmul, heads_einsum, heads_loop])
def test_many_heads_right(answer):
    result = evaluate("1.2", answer)
    assert (result.outcome, result.why, result.points) == ("right", "", 2)


def heads_with(mask_scores, mask_weights=lambda weights, mask: weights):
    def multi_head(q, k, v, key_mask):
        scores = mask_scores(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, key_mask)
        weights = torch.softmax(scores, -1).nan_to_num(0.0)
        return mask_weights(weights, key_mask) @ v

    return multi_head


def batch_and_heads_mixed(q, k, v, key_mask):
    b, h, n, d = q.shape
    q, k, v = (x.reshape(h, b, n, d).transpose(0, 1) for x in (q, k, v))
    return heads_matmul(q, k, v, key_mask)


def heads_and_tokens_mixed(q, k, v, key_mask):
    b, h, n, d = q.shape
    return heads_matmul(q, k, v, key_mask).transpose(1, 2).reshape(b, h, n, d)


INF = float("inf")
WRONG_MANY = {
    "mask ignored": heads_with(lambda s, m: s),
    "masked after softmax": heads_with(lambda s, m: s, lambda w, m: w * m[:, None, None]),
    "mask on queries": heads_with(lambda s, m: s.masked_fill(~m[:, None, :, None], -INF)),
    "mask on queries and keys": heads_with(
        lambda s, m: s.masked_fill(~(m[:, None, :, None] & m[:, None, None, :]), -INF)
    ),
    "mask inverted": heads_with(lambda s, m: s.masked_fill(m[:, None, None], -INF)),
    "minus ten": heads_with(lambda s, m: s - 10.0 * ~m[:, None, None]),
    "minus a hundred": heads_with(lambda s, m: s - 100.0 * ~m[:, None, None]),
    "filled with minus ten thousand": heads_with(
        lambda s, m: s.masked_fill(~m[:, None, None], -1e4), lambda w, m: w * m.any(-1)[:, None, None, None]
    ),
    "filled with minus a hundred": heads_with(
        lambda s, m: s.masked_fill(~m[:, None, None], -100.0), lambda w, m: w * m.any(-1)[:, None, None, None]
    ),
    "average where all is padding": heads_with(lambda s, m: s.masked_fill(~m[:, None, None], -1e30)),
    "nan where all is padding": lambda q, k, v, key_mask: (
        torch.softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~key_mask[:, None, None], -INF), -1) @ v
    ),
    "exp overflows": lambda q, k, v, key_mask: (
        (w := (q @ k.mT / q.shape[-1] ** 0.5).exp() * key_mask[:, None, None])
        / w.sum(-1, keepdim=True).clamp(min=1e-300)
        @ v
    ),
    "scores times mask": heads_with(lambda s, m: s * m[:, None, None]),
    "mask of the first document": heads_with(lambda s, m: s.masked_fill(~m[:1, None, None], -INF)),
    "mask over heads": heads_with(lambda s, m: s.masked_fill(~m[None, :, None], -INF)),
    "batch and heads mixed": batch_and_heads_mixed,
    "heads and tokens mixed": heads_and_tokens_mixed,
    "no scale": lambda q, k, v, key_mask: heads_matmul(q * q.shape[-1] ** 0.5, k, v, key_mask),
    "softmax over queries": lambda q, k, v, key_mask: (
        torch.softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~key_mask[:, None, None], -1e30), -2) @ v
    ),
}


@pytest.mark.parametrize("mistake", WRONG_MANY)
def test_many_heads_wrong(mistake):
    result = evaluate("1.2", WRONG_MANY[mistake])
    assert result.points == 0
    assert result.outcome == ("error" if mistake == "mask over heads" else "wrong"), result


def test_many_heads_says_where():
    why = evaluate("1.2", WRONG_MANY["nan where all is padding"]).why
    assert "all padding, so its rows are zeros" in why
    assert "document 1, head 0, query 0, number 0: found nan, expected 0 " in why
    assert evaluate("1.2", WRONG_MANY["no scale"]).why.startswith("Where every token is real: ")
    assert "ends in padding" in evaluate("1.2", WRONG_MANY["mask ignored"]).why


# ---------------------------------------------------------------- 1.3 memory


def bytes_formula(n, heads, bytes_per_number=4):
    return heads * n * n * bytes_per_number


def bytes_numpy(n, heads, bytes_per_number=4):
    return np.int64(n) ** 2 * heads * bytes_per_number


@pytest.mark.parametrize("answer", [bytes_formula, bytes_numpy])
def test_memory_right(answer):
    assert evaluate("1.3", answer).points == 1


WRONG_BYTES = {
    "hidden size": lambda n, heads, bytes_per_number=4: n * n * heads * 64 * bytes_per_number,
    "n times hidden": lambda n, heads, bytes_per_number=4: n * heads * 64 * bytes_per_number,
    "heads forgotten": lambda n, heads, bytes_per_number=4: n * n * bytes_per_number,
    "half": lambda n, heads, bytes_per_number=4: heads * n * n // 2 * bytes_per_number,
    "half, a float": lambda n, heads, bytes_per_number=4: heads * n * n / 2 * bytes_per_number,
    "size ignored": lambda n, heads, bytes_per_number=4: heads * n * n,
    "always float32": lambda n, heads, bytes_per_number=4: heads * n * n * 4,
    "bits": lambda n, heads, bytes_per_number=4: heads * n * n * bytes_per_number * 8,
    "linear": lambda n, heads, bytes_per_number=4: heads * n * bytes_per_number,
    "a float": lambda n, heads, bytes_per_number=4: float(heads * n * n * bytes_per_number),
    "a tensor": lambda n, heads, bytes_per_number=4: torch.tensor(heads * n * n * bytes_per_number),
    "megabytes": lambda n, heads, bytes_per_number=4: heads * n * n * bytes_per_number // 2**20,
    "no default": lambda n, heads, bytes_per_number: heads * n * n * bytes_per_number,
}


@pytest.mark.parametrize("mistake", WRONG_BYTES)
def test_memory_wrong(mistake):
    result = evaluate("1.3", WRONG_BYTES[mistake])
    assert result.outcome == ("error" if mistake == "no default" else "wrong"), result


def test_memory_says_where():
    assert evaluate("1.3", WRONG_BYTES["heads forgotten"]).why == "For n = 7, heads = 3: found 196, expected 588."
    assert "n = 4096, heads = 12, bytes_per_number = 2" in evaluate("1.3", WRONG_BYTES["always float32"]).why
    assert "a float (4.0)" in evaluate("1.3", WRONG_BYTES["a float"]).why


# ---------------------------------------------------------------- stubs and crashes, for each task


def stub(*args, **kwargs):
    # TODO: your code here
    raise NotImplementedError


def dots(*args):
    return ...


@pytest.mark.parametrize("number", ["1.1", "1.2", "1.3"])
@pytest.mark.parametrize("answer", [stub, dots, ...])
def test_stubs_are_not_attempted(number, answer):
    result = evaluate(number, answer)
    assert (result.outcome, result.points) == ("not attempted", 0)


@pytest.mark.parametrize("number", ["1.1", "1.2", "1.3"])
def test_crash_shows_the_learners_line(number):
    def crashing(*args):
        scores = 1 / 0
        return scores

    result = evaluate(number, crashing)
    assert (result.outcome, result.points) == ("error", 0)
    assert "ZeroDivisionError: division by zero (called with " in result.why
    assert "scores = 1 / 0" in result.why
    assert "compare.py" not in result.why and "function(" not in result.why


@pytest.mark.parametrize("number", ["1.1", "1.2", "1.3"])
@pytest.mark.parametrize("answer", [3, torch.ones(2), "head_attention", None])
def test_a_value_where_a_function_is_asked(number, answer):
    result = evaluate(number, answer)
    assert result.outcome == "wrong" and "Hand over the function itself" in result.why
