"""An exported program (.pt2) -> a module of layers, without the model's source and without running the file's code."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError, one_line
from easycompress.core.quiet import quiet
from easycompress.intake.archives import check_program
from easycompress.intake.lift_proof import lifted

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

EXPORTERS = ("torch.export", "torch._export", "torch")
"""Loggers that tell what torch does while it reads."""


def read_exported(path: Path, *, trust_pickle: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module of a .pt2 file, in float32 and evaluation mode, and notes for the user.

    Its inputs are called as the exported forward's. Raises BadInput: not such a file, of a torch that this one can't
    read, parts that could run code (without `trust_pickle`); CannotCompress: see lift_proof.lifted.
    """
    if not trust_pickle:
        check_program(path)
    program = _loaded(path)
    try:
        return lifted_program(program, str(path))
    except EasyCompressError:
        raise
    except Exception as error:  # parts that don't fit each other fail in many ways
        what = f"{type(error).__name__}: {one_line(error, 120)}"
        raise CannotCompress(f"{path}: torch can't run this program ({what}); export the model again") from error


def lifted_program(program: torch.export.ExportedProgram, where: str) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return the module of layers that a program stands for, and notes for the user."""
    with quiet(*EXPORTERS):
        try:
            source = program.module(check_guards=False)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise CannotCompress(f"{where}: torch can't run this program: {one_line(error, 160)}") from error
        if not isinstance(source, fx.GraphModule):
            raise CannotCompress(f"{where}: torch gives a {type(source).__name__} for it, no graph; export it again")
        tensors = _example(program, source, where)
        source = _flattened(program, source)
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in source.parameters())
        source.float()
        tensors = [t.float() if half and t.is_floating_point() else t for t in tensors]
        return lifted(source, tensors, where)


def _loaded(path: Path) -> torch.export.ExportedProgram:
    try:
        with quiet(*EXPORTERS):
            return torch.export.load(path)
    except Exception as error:  # a program of another version fails in many ways
        here, there = torch.__version__.partition("+")[0], _written_by(path)
        why = "" if there and there != here else f" ({one_line(error, 120)})"  # else torch's own words say nothing
        raise BadInput(
            f"{path}: torch {here} can't read this program{there and f' of torch {there}'}{why}; export the "
            f"model again on the CPU with torch {here}"
        ) from error


def _written_by(path: Path) -> str:
    """Return the version that wrote the file, as far as the file says."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if "/models/" in n)
            found = json.loads(archive.read(name))
        return str(found["torch_version"]).partition("+")[0]
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError, KeyError, TypeError):
        return ""


def _example(program: torch.export.ExportedProgram, source: fx.GraphModule, where: str) -> list[Tensor]:
    """Return the inputs that the program was exported with, one tensor for each placeholder."""
    places = [node for node in source.graph.nodes if node.op == "placeholder"]
    if program.example_inputs is None:
        raise CannotCompress(f"{where}: holds no example inputs; export it again with torch.export.save")
    args, keywords = program.example_inputs
    spec = program.call_spec.in_spec
    names = spec.children_specs[1].context if spec is not None and spec.num_children > 1 else list(keywords)
    values = pytree.tree_leaves((args, {name: keywords[name] for name in names}))
    tensors = []
    for node, value in zip(places, values, strict=True):
        if isinstance(value, Tensor):
            tensors.append(value.detach().clone())
        elif node.users:
            raise CannotCompress(f"{where}: its input {node.name} is a {type(value).__name__}; only tensors can be fed")
        else:
            source.graph.erase_node(node)
    return tensors


def _flattened(program: torch.export.ExportedProgram, source: fx.GraphModule) -> fx.GraphModule:
    """Return a module that takes its tensors one by one under their names, and gives a dict or tuples as before.

    It is a new one, because torch's own checks on every call that the inputs are shaped as they were.
    """
    output = source.graph.output_node()
    flat = output.args[0]
    spec = program.call_spec.out_spec
    if isinstance(flat, (tuple, list)) and spec is not None:
        made = pytree.tree_unflatten(list(flat), spec)
        if not isinstance(made, (fx.Node, tuple, list, dict)):  # a model's own output class
            made = dict(made.items()) if hasattr(made, "items") else tuple(flat)
        output.args = (made,)
    source.graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(source, source.graph)
