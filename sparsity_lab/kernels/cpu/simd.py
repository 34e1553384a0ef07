"""Small blocks in vector registers: transposition, products, and powers of two.

Computation is in float32. Blocks in memory may also hold bfloat16, whose bits numba sees as int16.

A transpose element by element takes three times as long. Libraries optimise large products, but not the small
ones of a single attention head.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, codegen, config, types
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array
from torch import Tensor

from sparsity_lab.kernels.cpu.parallel_for import intrinsic

# The features for which numba compiles: those of this processor, unless its environment variables name others
_NAMED = vars(config)["CPU_FEATURES"] or vars(config)["CPU_NAME"]
_FEATURES = (_NAMED or codegen.get_host_cpu_features()).split(",")
# Whether there are instructions for bfloat16: rounding to it, sums of products of pairs
BFLOAT_INSTRUCTIONS = "+avx512bf16" in _FEATURES
TILE = 8  # rows and columns per transposed tile; rows per multiplied tile
# floats in a vector; columns per multiplied tile
LANES = 16 if "+avx512f" in _FEATURES else 8
TOKENS = 32  # tokens that one nonzero weight multiplies at once (`gathered.py`)
FLOAT, INTEGER = ir.FloatType(), ir.IntType(32)
_FLOATS = np.empty(0, dtype=np.float32)
BITS = np.float32(1 / math.log(2))  # bits per nat: exp(x) = 2^(BITS x)
# Taylor coefficients of 2^x
SERIES = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))
SHIFT = np.float32(1.5 * 2**23)  # adding and subtracting it rounds to the nearest integer
LEAST = np.float32(-126)


def as_array(x: Tensor) -> np.ndarray:
    """Return a view of a float32 tensor, or of a bfloat16 tensor's bits as int16."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


class Bfloat(ir.Type):
    """LLVM's bfloat16, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloat)

    def __hash__(self) -> int:
        return hash(Bfloat)


@numba.njit(cache=True)
def whole_vectors(size: int) -> int:
    """Round `size` up to a multiple of the vector width."""
    return (size + LANES - 1) // LANES * LANES


@numba.njit(cache=True)
def room(rows: int, columns: int) -> np.ndarray:
    """Allocate a float32 block of whole vectors, none of which crosses a cache line."""
    return room_like(rows, columns, _FLOATS)


@numba.njit(cache=True)
def room_like(rows: int, columns: int, kind: np.ndarray) -> np.ndarray:
    """Allocate such a block of the element type of `kind`, float32 or int16."""
    lanes = 4 * LANES // kind.itemsize
    width = (columns + lanes - 1) // lanes * lanes
    memory = np.empty(rows * width + lanes, dtype=kind.dtype)
    first = -(memory.ctypes.data // memory.itemsize) % lanes
    return memory[first : first + rows * width].reshape(rows, width)


@numba.njit(cache=True)
def transpose(
    source: np.ndarray, row: int, column: int, rows: int, columns: int, target: np.ndarray, to: int, at: int
) -> None:
    """Set target[to + j, at + i] = source[row + i, column + j] for i < `rows`, j < `columns`.

    Each of the two is float32 or int16 (bfloat16 bits); values are rounded to the target's type.
    """
    whole_rows, whole_columns = rows // TILE * TILE, columns // TILE * TILE
    for i in range(0, whole_rows, TILE):
        for j in range(0, whole_columns, TILE):
            _transpose_tile(source, (row + i, column + j), target, (to + j, at + i))
        for j in range(whole_columns, columns):
            for further in range(i, i + TILE):
                value = as_float(source[row + further, column + j])
                target[to + j, at + further] = as_kind(value, target[to + j, at + further])
    for i in range(whole_rows, rows):
        for j in range(columns):
            target[to + j, at + i] = as_kind(as_float(source[row + i, column + j]), target[to + j, at + i])


@numba.njit(cache=True, inline="always")
def exp2(x: np.float32) -> np.float32:
    """Compute 2^x to 2 ulp for x <= 0. Larger x count as 0; below -126 the result is 0."""
    x = np.float32(0) if x > 0 else x
    whole = (x + SHIFT) - SHIFT
    rest = x - whole
    power = SERIES[7]
    power = power * rest + SERIES[6]
    power = power * rest + SERIES[5]
    power = power * rest + SERIES[4]
    power = power * rest + SERIES[3]
    power = power * rest + SERIES[2]
    power = power * rest + SERIES[1]
    power = power * rest + SERIES[0]
    return np.float32(0) if x < LEAST else _times_power(power, whole)


@intrinsic
def _times_power(context: Any, x: Any, exponent: Any) -> Any:
    """Compute x · 2^exponent; both are float32, the exponent is an integer from -126 to 127."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(builder.fptosi(arguments[1], INTEGER), ir.Constant(INTEGER, 127))
        power = builder.bitcast(builder.shl(biased, ir.Constant(INTEGER, 23)), FLOAT)
        return builder.fmul(arguments[0], power)

    return types.float32(types.float32, types.float32), write


@intrinsic
def as_float(context: Any, number: Any) -> Any:
    """Return a float32 unchanged; convert an int16 that holds bfloat16 bits to float32."""
    _require_float(number)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0] if number == types.float32 else _widened(builder, arguments[0])

    return types.float32(number), write


@intrinsic
def as_kind(context: Any, number: Any, like: Any) -> Any:
    """Invert `as_float`: convert a float32 to the type of `like`, rounding to nearest, ties to even.

    A processor's own instruction turns subnormal numbers to 0.
    """
    _require_float(like)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0] if like == types.float32 else _rounded(builder, arguments[0])

    return like(types.float32, like), write


def _require_float(kind: Any) -> None:
    if kind not in (types.float32, types.int16):
        raise TypingError(f"{kind}: must be float32, or int16 for bfloat16")


def _widened(builder: Any, bits: Any) -> Any:
    """Convert bfloat16 bits, one or a vector, to float32."""
    integer, number = _alike(bits.type, INTEGER), _alike(bits.type, FLOAT)
    return builder.bitcast(builder.shl(builder.zext(bits, integer), _constant(integer, 16)), number)


def _rounded(builder: Any, number: Any) -> Any:
    """Convert float32, one or a vector, to bfloat16 bits."""
    halves = _alike(number.type, ir.IntType(16))
    if BFLOAT_INSTRUCTIONS:
        return builder.bitcast(builder.fptrunc(number, _alike(number.type, Bfloat())), halves)
    integer = _alike(number.type, INTEGER)
    bits, sixteen = builder.bitcast(number, integer), _constant(integer, 16)
    odd = builder.and_(builder.lshr(bits, sixteen), _constant(integer, 1))
    rounded = builder.add(builder.add(bits, _constant(integer, 0x7FFF)), odd)
    no_number = builder.fcmp_unordered("uno", number, number)
    rounded = builder.select(no_number, _constant(integer, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(rounded, sixteen), halves)


def _alike(kind: Any, element: Any) -> Any:
    """Return a type with as many elements as `kind`, one or a vector of them."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


@intrinsic
def multiply_tile(
    context: Any, a: Any, a_at: Any, b: Any, b_at: Any, depth: Any, c: Any, c_at: Any, add: Any
) -> Any:
    """Set c = a @ b, or with `add` c += a @ b, for TILE rows and LANES columns; sums stay in registers.

    Each block begins at the given (row, column): TILE x depth of `a`, depth x LANES of `b`. Columns of `b`
    and `c` must be adjacent in memory; `a` may be a transposed view. All are float32.
    """
    if not a.dtype == b.dtype == c.dtype == types.float32:
        raise TypingError(f"{a.dtype}, {b.dtype}, {c.dtype}: must be float32")
    at = types.UniTuple(types.intp, 2)
    return types.void(a, at, b, at, types.intp, c, at, types.boolean), _write_product


def _write_product(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    a, a_at, b, b_at, depth, c, c_at, add = arguments
    kind_a, _, kind_b, _, _, kind_c, _, _ = signature.args
    vector = ir.VectorType(FLOAT, LANES)
    zeros = ir.Constant(vector, [0.0] * LANES)
    written = _rows(context, builder, kind_c, c, c_at, vector)
    sums = [cgutils.alloca_once(builder, vector) for _ in range(TILE)]
    for place, total in zip(written, sums, strict=True):
        builder.store(builder.select(add, builder.load(place, align=4), zeros), total)
    rows = _rows(context, builder, kind_a, a, a_at, FLOAT)
    (b_row, *_) = _rows(context, builder, kind_b, b, b_at, vector)
    _, a_step = strides(context, builder, kind_a, a)
    b_step, _ = strides(context, builder, kind_b, b)
    with cgutils.for_range(builder, depth) as loop:
        further = cgutils.pointer_add(builder, b_row, builder.mul(loop.index, b_step), vector.as_pointer())
        line = builder.load(further, align=4)
        for row, total in zip(rows, sums, strict=True):
            place = cgutils.pointer_add(builder, row, builder.mul(loop.index, a_step), FLOAT.as_pointer())
            factor = everywhere(builder, builder.load(place, align=4))
            product = builder.fmul(factor, line, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
    for place, total in zip(written, sums, strict=True):
        builder.store(builder.load(total), place, align=4)
    return context.get_dummy_value()


def everywhere(builder: Any, number: Any) -> Any:
    """Broadcast one float to a vector."""
    vector = ir.VectorType(FLOAT, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(INTEGER, 0))
    lanes = ir.Constant(ir.VectorType(INTEGER, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)


@intrinsic
def _transpose_tile(context: Any, source: Any, source_at: Any, target: Any, target_at: Any) -> Any:
    if not {source.dtype, target.dtype} <= {types.float32, types.int16}:
        raise TypingError(f"{source.dtype} to {target.dtype}: must be float32 or int16")
    at = types.UniTuple(types.intp, 2)
    return types.void(source, at, target, at), _write_tile


def _write_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Transpose a tile: for block sizes 4, 2, 1, swap the two off-diagonal blocks of each 2x2 group."""
    source, source_at, target, target_at = arguments
    from_float, to_float = (signature.args[i].dtype == types.float32 for i in (0, 2))
    floats, halves = (ir.VectorType(kind, TILE) for kind in (FLOAT, ir.IntType(16)))
    read = _rows(context, builder, signature.args[0], source, source_at, floats if from_float else halves)
    written = _rows(context, builder, signature.args[2], target, target_at, floats if to_float else halves)
    tile = [builder.load(place, align=2) for place in read]
    if not from_float:
        tile = [_widened(builder, bits) for bits in tile]
    lanes = ir.VectorType(INTEGER, TILE)
    for size in (4, 2, 1):
        upper = ir.Constant(lanes, [TILE + i - size if i & size else i for i in range(TILE)])
        lower = ir.Constant(lanes, [TILE + i if i & size else i + size for i in range(TILE)])
        for i in range(TILE):
            if not i & size:
                pair = tile[i], tile[i + size]
                tile[i] = builder.shuffle_vector(*pair, upper)
                tile[i + size] = builder.shuffle_vector(*pair, lower)
    for values, place in zip(tile, written, strict=True):
        builder.store(values if to_float else _rounded(builder, values), place, align=2)
    return context.get_dummy_value()


def _rows(context: Any, builder: Any, kind: Any, matrix: Any, at: Any, what: Any) -> list[Any]:
    """Return pointers of type `what` into TILE consecutive rows, starting at (row, column) `at`."""
    row, column = cgutils.unpack_tuple(builder, at)
    row_bytes, column_bytes = strides(context, builder, kind, matrix)
    place = builder.add(builder.mul(row, row_bytes), builder.mul(column, column_bytes))
    data = make_array(kind)(context, builder, matrix).data
    pointers = []
    for _ in range(TILE):
        pointers.append(cgutils.pointer_add(builder, data, place, what.as_pointer()))
        place = builder.add(place, row_bytes)
    return pointers


def strides(context: Any, builder: Any, kind: Any, matrix: Any) -> list[Any]:
    """Return the strides in bytes between rows and between columns."""
    return cgutils.unpack_tuple(builder, make_array(kind)(context, builder, matrix).strides)
