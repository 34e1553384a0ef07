"""Vectors of attention's softmax: maxima, powers of two and their gradients (`attention_heads.py`).

The compiler does not vectorise the same loops at every vector width, so the vectors are written out. Powers
equal `simd.exp2` to the bit.

Each function works on LANES adjacent floats of row `key` of a block (keys, queries), from `query` on, and on
the same floats of arrays over queries. All are float32.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array

from sparsity_lab.kernels.cpu.parallel_for import intrinsic
from sparsity_lab.kernels.cpu.simd import FLOAT, INTEGER, LANES, LEAST, SERIES, SHIFT, everywhere, strides

_VECTOR, _INTEGERS = ir.VectorType(FLOAT, LANES), ir.VectorType(INTEGER, LANES)


@intrinsic
def raise_maxima(context: Any, s_ji: Any, most_i: Any, key: Any, query: Any) -> Any:
    """Set most = max(most, s); a NaN of `s` wins."""
    _require_floats(s_ji, most_i)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        s_at, most_at = _places(context, builder, signature.args, arguments)
        s, most = (builder.load(place, align=4) for place in (s_at, most_at))
        builder.store(builder.select(builder.fcmp_ordered(">", most, s), most, s), most_at, align=4)
        return context.get_dummy_value()

    return types.void(s_ji, most_i, types.intp, types.intp), write


@intrinsic
def add_powers(context: Any, s_ji: Any, most_i: Any, total_i: Any, key: Any, query: Any) -> Any:
    """Replace s by p = 2^(s - most), and add p to `total`."""
    _require_floats(s_ji, most_i, total_i)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = _places(context, builder, signature.args, arguments)
        s, most, total = (builder.load(place, align=4) for place in places)
        p = _exp2(builder, builder.fsub(s, most))
        builder.store(p, places[0], align=4)
        builder.store(builder.fadd(total, p), places[2], align=4)
        return context.get_dummy_value()

    return types.void(s_ji, most_i, total_i, types.intp, types.intp), write


@intrinsic
def softmax_gradient(
    context: Any, s_ji: Any, d_ji: Any, bits_i: Any, out_i: Any, scale: Any, key: Any, query: Any
) -> Any:
    """Replace s by p = 2^(s - bits), and p's gradient d by that of the scores, p · (d - out) · scale."""
    _require_floats(s_ji, d_ji, bits_i, out_i)

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, scale = signature.args, arguments[4]
        places = _places(context, builder, [*kinds[:4], *kinds[5:]], [*arguments[:4], *arguments[5:]])
        s, d, bits, out = (builder.load(place, align=4) for place in places)
        p = _exp2(builder, builder.fsub(s, bits))
        d = builder.fmul(builder.fmul(p, builder.fsub(d, out)), everywhere(builder, scale))
        builder.store(p, places[0], align=4)
        builder.store(d, places[1], align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(s_ji, d_ji, bits_i, out_i, types.float32, index, index), write


def _require_floats(*arrays: Any) -> None:
    if any(array.dtype != types.float32 for array in arrays):
        raise TypingError(f"{', '.join(str(array.dtype) for array in arrays)}: must be float32")


def _places(context: Any, builder: Any, kinds: Any, arguments: Any) -> list[Any]:
    """Return pointers to the vectors of all arrays; the last two arguments are key and query."""
    *arrays, key, query = arguments
    found = []
    for kind, array in zip(kinds, arrays, strict=False):
        *row, step = strides(context, builder, kind, array)
        place = builder.mul(query, step)
        if row:
            place = builder.add(place, builder.mul(key, row[0]))
        data = make_array(kind)(context, builder, array).data
        found.append(cgutils.pointer_add(builder, data, place, _VECTOR.as_pointer()))
    return found


def _exp2(builder: Any, x: Any) -> Any:
    """Compute `simd.exp2` of a vector: 2^(whole part) · series of the rest."""
    zeros = _all(0.0)
    x = builder.select(builder.fcmp_ordered(">", x, zeros), zeros, x)
    whole = builder.fsub(builder.fadd(x, _all(SHIFT)), _all(SHIFT))
    rest = builder.fsub(x, whole)
    power = _all(SERIES[-1])
    for coefficient in SERIES[-2::-1]:
        product = builder.fmul(power, rest, flags=["contract"])
        power = builder.fadd(product, _all(coefficient), flags=["contract"])
    biased = builder.add(builder.fptosi(whole, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
    factor = builder.bitcast(builder.shl(biased, ir.Constant(_INTEGERS, [23] * LANES)), _VECTOR)
    return builder.select(builder.fcmp_ordered("<", x, _all(LEAST)), zeros, builder.fmul(power, factor))


def _all(number: Any) -> Any:
    return ir.Constant(_VECTOR, [float(number)] * LANES)
