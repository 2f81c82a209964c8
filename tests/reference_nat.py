"""The paper's translator once more, written from its description alone: plain loops, no code of the library.

The decoder's input exists in two forms: that of the paper's text, and that of the authors' code, which tiles the columns.

State-dict names are those of the authors' checkpoints. Slow; for tests.
"""

import math

import torch
from torch import Tensor

HEADS = 8


def shapes(tok_dim: int, width: int, vocab: int, grid: int, layers: int = 4, blocks: int = 4, ratio: int = 2) -> dict[str, tuple]:
    """Name and shape of every tensor of a checkpoint."""
    found: dict[str, tuple] = {"linear_proj.weight": (width, tok_dim), "linear_proj.bias": (width,)}
    for part, side in (("nat_enc", grid), ("nat_dec", 2 * grid)):
        for axis in ("row", "col"):
            found[f"{part}.pos_embedding.{axis}_embed.weight"] = (side, width // 2)
    places = [(f"nat_enc.layers.{i}", True) for i in range(layers)]
    places += [(f"nat_dec.transformer.layers.{i}", False) for i in range(3 * blocks)]
    for place, fused in places:
        for norm in ("norm1", "norm2"):
            found |= {f"{place}.{norm}.weight": (width,), f"{place}.{norm}.bias": (width,)}
        found[f"{place}.attn.to_queries.weight"] = (width, width)
        for name in ["keys_values"] if fused else ["keys", "values"]:
            found[f"{place}.attn.to_{name}.weight"] = (2 * width if fused else width, width)
        found |= {f"{place}.attn.project.weight": (width, width), f"{place}.attn.project.bias": (width,)}
        found |= {f"{place}.mlp.fc1.weight": (ratio * width, width), f"{place}.mlp.fc1.bias": (ratio * width,)}
        found |= {f"{place}.mlp.fc2.weight": (width, ratio * width), f"{place}.mlp.fc2.bias": (width,)}
    found |= {"nat_dec.ln_final.weight": (width,), "nat_dec.ln_final.bias": (width,)}
    return found | {"outNet.weight": (vocab, width), "outNet.bias": (vocab,)}


def random_state(seed: int = 0, **sizes: int) -> dict[str, Tensor]:
    """Weights of ordinary size: every layer changes the outcome."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(**sizes).items():
        values = torch.randn(shape, generator=generator)
        is_norm = "norm" in name or "ln_final" in name
        state[name] = 1 + 0.3 * values if is_norm and name.endswith("weight") else values / math.sqrt(shape[-1])
    return state


def log_probabilities(state: dict[str, Tensor], embedded: Tensor, as_in_their_code: bool = False) -> Tensor:
    """Embeddings of the content tokens of one picture (n*n, tok_dim) -> log-probabilities (4*n*n, vocab).

    With `as_in_their_code` the decoder begins at (row, column) with content token (row // 2, column mod n), as the authors' code
    does; without, with (row // 2, column // 2), as the paper says.
    """
    weights = {name: tensor.double() for name, tensor in state.items()}
    n = len(weights["nat_enc.pos_embedding.row_embed.weight"])
    e = torch.stack([linear(weights, "linear_proj", token).clamp(min=0) for token in embedded.double()])

    x = e + positions(weights, "nat_enc")
    layer = 0
    while f"nat_enc.layers.{layer}.norm1.weight" in weights:
        place = f"nat_enc.layers.{layer}"
        normed = torch.stack([norm(weights, f"{place}.norm1", row) for row in x])
        both = weights[f"{place}.attn.to_keys_values.weight"]
        keys, values = normed @ both[: len(both) // 2].T, normed @ both[len(both) // 2 :].T
        x = x + attention(weights, place, normed, keys, values, diagonal=True)
        x = x + mlp(weights, place, x)
        layer += 1
    memory = x

    begins_with = []
    for row in range(2 * n):
        for column in range(2 * n):
            read = column % n if as_in_their_code else column // 2
            begins_with.append(e[(row // 2) * n + read])
    x = torch.stack(begins_with)
    places = positions(weights, "nat_dec")
    layer = 0
    while f"nat_dec.transformer.layers.{layer}.norm1.weight" in weights:
        place = f"nat_dec.transformer.layers.{layer}"
        query, key, value = [(x, x, x), (places, places, x), (x, memory, memory)][layer % 3]
        query = torch.stack([norm(weights, f"{place}.norm1", row) for row in query])
        keys = key @ weights[f"{place}.attn.to_keys.weight"].T
        values = value @ weights[f"{place}.attn.to_values.weight"].T
        x = x + attention(weights, place, query, keys, values, diagonal=layer % 3 == 2)
        x = x + mlp(weights, place, x)
        layer += 1
    out = torch.stack([linear(weights, "outNet", norm(weights, "nat_dec.ln_final", row)) for row in x])
    return out - out.exp().sum(-1, keepdim=True).log()


def linear(weights: dict[str, Tensor], name: str, row: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]


def norm(weights: dict[str, Tensor], name: str, row: Tensor) -> Tensor:
    centred = row - row.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mlp(weights: dict[str, Tensor], place: str, x: Tensor) -> Tensor:
    normed = [norm(weights, f"{place}.norm2", row) for row in x]
    return torch.stack([linear(weights, f"{place}.mlp.fc2", linear(weights, f"{place}.mlp.fc1", r).clamp(min=0)) for r in normed])


def attention(weights: dict[str, Tensor], place: str, query: Tensor, keys: Tensor, values: Tensor, diagonal: bool) -> Tensor:
    """Queries come before their projection, keys and values after. Without `diagonal` a position does not see itself."""
    queries = query @ weights[f"{place}.attn.to_queries.weight"].T
    size = queries.shape[1] // HEADS
    rows = []
    for i, q in enumerate(queries):
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            seen = [j for j in range(len(keys)) if diagonal or j != i]
            scores = torch.stack([q[part] @ keys[j, part] / math.sqrt(size) for j in seen]).exp()
            heads.append(sum(s / scores.sum() * values[j, part] for s, j in zip(scores, seen, strict=True)))
        rows.append(linear(weights, f"{place}.attn.project", torch.cat(heads)))
    return torch.stack(rows)


def positions(weights: dict[str, Tensor], part: str) -> Tensor:
    rows, columns = (weights[f"{part}.pos_embedding.{axis}_embed.weight"] for axis in ("row", "col"))
    return torch.stack([torch.cat([columns[x], rows[y]]) for y in range(len(rows)) for x in range(len(columns))])
