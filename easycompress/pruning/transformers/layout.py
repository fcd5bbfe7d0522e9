"""Where a transformer's attention and feed-forward blocks are, found by structure and by the names in use.

What a block's removal means is said in cuts: which tensors, along which axis, how many places a head or neuron has.
A block that doesn't fit what is known here, in names or in shapes, isn't listed and so stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from easycompress.pruning.transformers.blocks import Block, Cut, Matrix, Role, matrix
from easycompress.pruning.transformers.narrow import is_fused

if TYPE_CHECKING:
    from collections.abc import Iterator

SEPARATE = (
    ("query", "key", "value"),  # BERT, RoBERTa, ALBERT, Swin of transformers
    ("q_proj", "k_proj", "v_proj"),  # Llama, Mistral, Qwen, OPT, BART, ViT, CLIP
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("q", "k", "v"),  # T5
    ("to_q", "to_k", "to_v"),
)
STACKED = ("qkv_proj", "qkv")  # Phi-3, timm: all queries, then all keys, then all values
INTERLEAVED = ("query_key_value",)  # GPT-NeoX: query, key and value of one head after the other
OUTPUTS = ("o_proj", "out_proj", "out_lin", "o", "to_out", "dense", "proj")
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
GROUP_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
TOTALS = ("all_head_size", "inner_dim", "split_size", "attn_dim")
PARTS: tuple[Role, ...] = ("query", "key", "value")

FEED_FORWARD = (
    (("intermediate.dense",), "output.dense"),  # BERT, RoBERTa
    (("gate_proj", "up_proj"), "down_proj"),  # Llama
    (("gate_up_proj",), "down_proj"),  # Phi-3: both in one matrix
    (("wi_0", "wi_1"), "wo"),  # T5 1.1
    (("wi",), "wo"),  # T5
    (("lin1",), "lin2"),  # DistilBERT
    (("fc1",), "fc2"),  # ViT, CLIP, BART, OPT
    (("c_fc",), "c_proj"),  # GPT-2
    (("linear1",), "linear2"),  # torch.nn.TransformerEncoderLayer
    (("ffn",), "ffn_output"),  # ALBERT
    (("w1", "w3"), "w2"),
    (("dense_h_to_4h",), "dense_4h_to_h"),  # GPT-NeoX, Falcon, BLOOM
    (("up_proj",), "down_proj"),
)
ELEMENTWISE = (nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Dropout, nn.Identity)


def find_blocks(model: nn.Module) -> list[Block]:
    """Return the attention and feed-forward blocks that are understood, in the order of the modules."""
    blocks: list[Block] = []
    for name, module in model.named_modules():
        block = _attention(model, name, module)
        if block is not None:
            blocks.append(block)
    inside = tuple(block.name + "." for block in blocks)
    taken: set[str] = set()
    for name, module in model.named_modules():
        if (name + ".").startswith(inside):
            continue  # an attention's own small nets, such as the position bias of Swin v2
        for block in _feed_forwards(name, module):
            tensors = {cut.tensor for cut in block.cuts}
            if not tensors & taken:
                blocks.append(block)
                taken |= tensors
    return blocks


def number(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """Return the first of the attributes that is a whole number."""
    found = (getattr(module, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def _attention(model: nn.Module, name: str, module: nn.Module) -> Block | None:
    if isinstance(getattr(module, "in_proj_weight", None), Tensor):
        return _packed(name, module)
    if hasattr(module, "relative_position_index") and matrix(module, "qkv") is not None:
        return _window(name, module)
    if matrix(module, "c_attn") is not None:
        return _fused(name, module)
    if any(matrix(module, child) is not None for child in STACKED + INTERLEAVED):
        return _one_matrix(name, module)
    for names in SEPARATE:
        layers = [matrix(module, child, name) for child in names]
        if all(layer is not None for layer in layers):
            return _separate(model, name, module, [layer for layer in layers if layer is not None])
    return None


def _separate(model: nn.Module, name: str, module: nn.Module, layers: list[Matrix]) -> Block | None:
    """Return a block with a matrix each for queries, keys and values."""
    query, key, value = layers
    output = next((m for m in (matrix(module, out, name) for out in OUTPUTS) if m is not None), None)
    if output is None and "." in name:
        output = matrix(model, f"{name.rpartition('.')[0]}.output.dense")  # BERT: beside the attention, not in it
    heads, size = number(module, HEAD_COUNTS), number(module, HEAD_SIZES)
    if size is None and heads:
        size = query.outputs // heads
    if not size or output is None or query.outputs % size or key.outputs % size or key.outputs != value.outputs:
        return None
    units, groups = query.outputs // size, key.outputs // size
    if output.inputs != query.outputs or units % groups or (heads is not None and heads != units):
        return None
    if _has_wide_norm(module, {query.outputs, key.outputs} - {size}):  # one of a head's size runs head by head
        return None
    inputs = query.out("unit", size, 0, "query") + key.out("group", size, 0, "key")
    inputs += value.out("group", size, 0, "value") + _per_head(name, module, units)
    return Block(name, "attention", units, groups, tuple(inputs), output.into(size, "output"), _tie(model, name))


def _fused(name: str, module: nn.Module) -> Block | None:
    """Return GPT-2's block: one matrix for all three, or for keys and values beside one for cross-attention queries."""
    both, query, output = matrix(module, "c_attn", name), matrix(module, "q_attn", name), matrix(module, "c_proj", name)
    heads = number(module, HEAD_COUNTS)
    if both is None or output is None or not heads or output.inputs % heads:
        return None
    size, total = output.inputs // heads, output.inputs
    if number(module, HEAD_SIZES) not in (None, size) or both.outputs != total * (2 if query else 3):
        return None
    first = [] if query is None else query.out("unit", size, 0, "query")
    places = zip(range(0, both.outputs, total), PARTS if query is None else PARTS[1:], strict=True)
    inputs = first + [cut for offset, role in places for cut in both.out("unit", size, offset, role)]
    return Block(name, "attention", heads, heads, tuple(inputs), output.into(size, "output"), name)


def _one_matrix(name: str, module: nn.Module) -> Block | None:
    """Return a block with one matrix for queries, keys and values, which keeps its head size when heads go."""
    both = next((m for m in (matrix(module, child, name) for child in STACKED + INTERLEAVED) if m is not None), None)
    output = next((m for m in (matrix(module, out, name) for out in OUTPUTS) if m is not None), None)
    mixed = both is not None and both.path.endswith(INTERLEAVED)
    # Others that interleave have biases that depend on the number of heads (BLOOM), or share keys (Falcon).
    size, heads = number(module, ("head_size",) if mixed else HEAD_SIZES), number(module, HEAD_COUNTS)
    if size is None and heads and output is not None and is_fused(module):
        size = output.inputs // heads
    if both is None or output is None or not size or output.inputs % size:
        return None
    units, rest = output.inputs // size, both.outputs - output.inputs
    groups = rest // (2 * size)
    if rest != 2 * groups * size or not groups or units % groups or heads not in (None, units):
        return None
    if mixed and groups != units:
        return None
    if _has_wide_norm(module, {units * size, groups * size} - {size}):
        return None
    first, second = units * size, (units + groups) * size
    stacked = both.out("unit", size, 0, "query") + both.out("group", size, first, "key")
    stacked += both.out("group", size, second, "value")
    inputs = both.out("unit", 3 * size) if mixed else stacked
    return Block(name, "attention", units, groups, tuple(inputs), output.into(size, "output"), name)


def _packed(name: str, module: nn.Module) -> Block | None:
    """Return torch.nn.MultiheadAttention's block, narrowed or not."""
    heads, size, output = number(module, HEAD_COUNTS), number(module, HEAD_SIZES), matrix(module, "out_proj", name)
    plain = getattr(module, "bias_k", None) is None and not getattr(module, "add_zero_attn", False)
    if not heads or not size or output is None or output.inputs != heads * size or not plain:
        return None
    names = ["in_proj_weight"] + (["in_proj_bias"] if module.in_proj_bias is not None else [])
    places = list(zip(range(0, 3 * heads * size, heads * size), PARTS, strict=True))
    inputs = [Cut(f"{name}.{tensor}", 0, "unit", size, offset, role) for tensor in names for offset, role in places]
    return Block(name, "attention", heads, heads, tuple(inputs), output.into(size, "output"), name)


def _window(name: str, module: nn.Module) -> Block | None:
    """Return torchvision's Swin block, version 1 or 2, narrowed or not."""
    both, output, heads = matrix(module, "qkv", name), matrix(module, "proj", name), number(module, HEAD_COUNTS)
    if both is None or output is None or not heads or not hasattr(module, "shift_size"):
        return None
    size, total = output.inputs // heads, output.inputs
    if both.outputs != 3 * total or total % heads:
        return None
    places = zip(range(0, 3 * total, total), PARTS, strict=True)
    inputs = [cut for offset, role in places for cut in both.out("unit", size, offset, role)]
    inputs += _per_head(name, module, heads)
    return Block(name, "attention", heads, heads, tuple(inputs), output.into(size, "output"), name)


def _per_head(name: str, module: nn.Module, heads: int) -> list[Cut]:
    """Return the cuts of the position biases and scales that have one place a head."""
    known = (
        ("relative_position_bias_table", 1),
        ("relative_attention_bias.weight", 1),
        ("relative_position_bias.relative_position_bias_table", 1),
        ("logit_scale", 0),
        ("cpb_mlp.2.weight", 0),
    )
    tensors = dict(module.named_parameters())
    return [
        Cut(f"{name}.{tensor}", axis)
        for tensor, axis in known
        if tensor in tensors and tensors[tensor].shape[axis] == heads
    ]


def _tie(model: nn.Module, name: str) -> str:
    """Return what ties an attention to others: T5's first layer computes the position bias that all layers use."""
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return name
    stack, kind = ".".join(parts[:place]), parts[-1]
    for path, module in model.named_modules():
        if path.startswith(f"{stack}.") and path.endswith(f".{kind}") and hasattr(module, "relative_attention_bias"):
            return f"{stack}.*.{kind}"
    return name


def _has_wide_norm(module: nn.Module, sizes: set[int]) -> bool:
    """Tell whether a normalisation runs over all units at once: without some of them it gives other numbers.

    One that is named after nothing, as ALBERT's, stands behind the block and has the model's width.
    """
    named = [(child.rpartition(".")[0], p) for child, p in module.named_parameters() if p.dim() == 1]
    wide = [child.lower() for child, p in named if p.numel() in sizes]
    return any("norm" in child and child.rpartition(".")[2] not in ("layernorm", "layer_norm") for child in wide)


def _feed_forwards(name: str, module: nn.Module) -> Iterator[Block]:
    if isinstance(module, nn.Sequential):
        yield from _sequential(name, module)
        return
    for firsts, last in FEED_FORWARD:
        ins, out = [matrix(module, first, name) for first in firsts], matrix(module, last, name)
        found = [layer for layer in ins if layer is not None]
        if out is not None and len(found) == len(firsts):
            halves = found[0].outputs // out.inputs if len(found) == 1 else 1
            block = _neurons(name, found, out, halves)
            if block is not None and not _has_wide_norm(module, {block.units} - {out.outputs}):
                yield block
            return


def _sequential(name: str, module: nn.Sequential) -> Iterator[Block]:
    """Yield a pair of linear layers with nothing but functions of single numbers between them (torchvision's MLP)."""
    first: Matrix | None = None
    for child, layer in module.named_children():
        here = matrix(module, child, name)
        if here is not None and first is not None and here.outputs == first.inputs:
            block = _neurons(name, [first], here, 1)
            if block is not None:
                yield block
            first = None
        elif here is not None:
            first = here
        elif not isinstance(layer, ELEMENTWISE):
            first = None


def _neurons(name: str, firsts: list[Matrix], last: Matrix, halves: int) -> Block | None:
    """Return a feed-forward block whose first matrices, or halves of one, each make one number a neuron."""
    width = last.inputs
    fits = all(m.outputs == width * halves and m.inputs == firsts[0].inputs for m in firsts)
    if not fits or halves not in (1, 2) or firsts[0].inputs != last.outputs:
        return None
    inputs = [cut for m in firsts for half in range(halves) for cut in m.out(offset=half * width)]
    return Block(name, "feed-forward", width, width, tuple(inputs), last.into(), name)
