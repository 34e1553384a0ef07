"""What may be found in place of a valid file: random bytes and JSON, cuts, and changes of its structure.

JSON and JSON Lines are changed in one place. Files of tensors lose one or gain one, or one of their tensors
changes its shape, its type, its name, or a number to NaN or infinity; those must be refused.
"""

import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**9, 10**30, 1e308, float("nan"), float("inf"), "", "\ud800"]),
    st.floats(),
    st.text(max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
TENSOR_CHANGES = ("drop", "add", "rename", "reshape", "integers", "nan", "infinite")


class Damage(NamedTuple):
    """A file's content, and whether the reader must refuse it."""

    content: bytes
    must_refuse: bool = False

    def __repr__(self) -> str:
        return f"Damage({len(self.content)} bytes, must_refuse={self.must_refuse})"


def damaged(valid: bytes, optional: frozenset[str] = frozenset()) -> st.SearchStrategy[Damage]:
    """What may be found under a file's name in place of `valid`; `optional`: tensors that may be missing."""

    def overwritten(changes: list[tuple[int, int]]) -> bytes:
        data = bytearray(valid)
        for place, byte in changes:
            data[place] = byte
        return bytes(data)

    change = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255))
    kinds = [
        st.binary(max_size=300),
        VALUES.map(lambda value: json.dumps(value).encode()),
        st.integers(0, 3000).map(lambda depth: b"[" * depth),
        st.integers(0, len(valid)).map(lambda size: valid[:size]),
        st.lists(change, min_size=1, max_size=8).map(overwritten),
        st.binary(max_size=50).map(lambda more: valid + more),
    ]
    plain = st.one_of(kinds).map(Damage)
    structural = _of_tensors(valid, optional)
    structural = _of_json(valid) if structural is None else structural
    return plain if structural is None else st.one_of(plain, structural)


def _of_json(valid: bytes) -> st.SearchStrategy[Damage] | None:
    """Change one place of a JSON value, or of one line of JSON Lines."""
    lines = False
    try:
        structure = json.loads(valid)
    except ValueError:
        try:
            structure = [json.loads(line) for line in valid.splitlines()]
        except ValueError:
            return None
        lines = True
    places = list(_places(structure))

    def altered(drawn: tuple[int, str, Any]) -> Damage:
        index, how, value = drawn
        copy: Any = json.loads(json.dumps(structure))
        *way, key = places[index]
        holder = copy
        for part in way:
            holder = holder[part]
        if how == "replace":
            holder[key] = value
        elif how == "delete":
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(value)] = holder.pop(key)
        text = "\n".join(map(json.dumps, copy)) if lines else json.dumps(copy)
        return Damage(text.encode())

    alterations = st.tuples(
        st.integers(0, len(places) - 1), st.sampled_from(["replace", "replace", "delete", "rename"]), VALUES
    )
    return alterations.map(altered)


def _of_tensors(valid: bytes, optional: frozenset[str]) -> st.SearchStrategy[Damage] | None:
    """Change one tensor of a safetensors file, or of a dict of tensors that torch saved."""
    try:
        tensors, is_torch = load(valid), False
    except Exception:
        try:
            tensors, is_torch = torch.load(io.BytesIO(valid), weights_only=True), True
        except Exception:
            return None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return None
    floats = {name for name, tensor in tensors.items() if tensor.is_floating_point()}

    def altered(drawn: tuple[str, str, str, int]) -> Damage:
        name, how, new, place = drawn
        copy = {key: tensor.clone() for key, tensor in tensors.items()}
        must_refuse = True
        if how in ("nan", "infinite"):
            copy[name].view(-1)[place % copy[name].numel()] = float(how.replace("infinite", "inf"))
            must_refuse = name in floats
        elif how == "reshape":
            copy[name] = torch.cat([copy[name], copy[name][:1]])
        elif how == "integers":
            copy[name] = copy[name].to(torch.int32)
        elif how == "add":
            copy[new] = torch.zeros(2)
            must_refuse = new not in tensors
        else:
            moved = copy.pop(name)
            must_refuse = name not in optional
            if how == "rename":
                copy[new] = moved
                must_refuse = new != name and not (name in optional and new in tensors)
        if not is_torch:
            return Damage(save(copy), must_refuse)
        buffer = io.BytesIO()
        torch.save(copy, buffer)
        return Damage(buffer.getvalue(), must_refuse)

    drawn = st.tuples(
        st.sampled_from(sorted(tensors)),
        st.sampled_from(TENSOR_CHANGES),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(sorted(tensors)),
        st.integers(0, 10**6),
    )
    return drawn.filter(lambda one: one[1] not in ("nan", "infinite") or one[0] in floats).map(altered)


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*way, key)
        yield from _places(part, (*way, key))
