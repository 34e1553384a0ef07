"""Sums over rows that a list names: the inner loops of products by nonzeros, forward and for the gradient."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array

from sparsity_lab.kernels.cpu.parallel_for import intrinsic
from sparsity_lab.kernels.cpu.simd import (
    BFLOAT_INSTRUCTIONS,
    FLOAT,
    INTEGER,
    LANES,
    TOKENS,
    Bfloat,
    everywhere,
    strides,
)

PAIR_TOKENS = 64  # in a row of bfloat16


@intrinsic
def add_columns(
    context: Any, x: Any, columns: Any, values: Any, begin: Any, end: Any, start: Any, y: Any, row: Any
) -> Any:
    """Set y[row] = start + sum of values[n] · x[columns[n]] over `begin` <= n < `end`; float32.

    Rows of `x` and `y` are TOKENS adjacent floats; columns are int32. Several partial sums stay in registers
    and are added at the end.
    """
    if not x.dtype == values.dtype == y.dtype == types.float32:
        raise TypingError(f"{x.dtype}, {values.dtype}, {y.dtype}: must be float32")
    index = types.intp
    return types.void(x, columns, values, index, index, types.float32, y, index), _write_sum


def _write_sum(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    x, columns, values, begin, end, start, y, row = arguments
    kind_x, kind_columns, kind_values, _, _, _, kind_y, _ = signature.args
    vector, size = ir.VectorType(FLOAT, LANES), ir.IntType(64)
    vectors = TOKENS // LANES
    together = max(1, 8 // vectors)  # eight independent sums hide the latency of an addition
    zeros = ir.Constant(vector, [0.0] * LANES)
    sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(together)]
    for totals in sums:
        for total in totals:
            builder.store(zeros, total)
    x_data = make_array(kind_x)(context, builder, x).data
    x_step, _ = strides(context, builder, kind_x, x)
    column_data = make_array(kind_columns)(context, builder, columns).data
    value_data = make_array(kind_values)(context, builder, values).data

    def add(index: Any, totals: list[Any]) -> None:
        column = builder.zext(builder.load(builder.gep(column_data, [index])), size)
        line = cgutils.pointer_add(builder, x_data, builder.mul(column, x_step), vector.as_pointer())
        factor = everywhere(builder, builder.load(builder.gep(value_data, [index])))
        for number, total in enumerate(totals):
            place = builder.gep(line, [ir.Constant(size, number)])
            product = builder.fmul(factor, builder.load(place, align=4), flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)

    step = ir.Constant(size, together)
    whole = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), step), step))
    with cgutils.for_range_slice(builder, begin, whole, step, size) as (index, _):
        for number, totals in enumerate(sums):
            add(builder.add(index, ir.Constant(size, number)), totals)
    with cgutils.for_range_slice(builder, whole, end, ir.Constant(size, 1), size) as (index, _):
        add(index, sums[0])
    y_step, _ = strides(context, builder, kind_y, y)
    y_data = make_array(kind_y)(context, builder, y).data
    written = cgutils.pointer_add(builder, y_data, builder.mul(row, y_step), vector.as_pointer())
    for number in range(vectors):
        total = everywhere(builder, start)
        for totals in sums:
            total = builder.fadd(total, builder.load(totals[number]))
        builder.store(total, builder.gep(written, [ir.Constant(size, number)]), align=4)
    return context.get_dummy_value()


@intrinsic
def add_products(
    context: Any, x: Any, columns: Any, begin: Any, end: Any, g: Any, row: Any, sums: Any
) -> Any:
    """Add the dot product of g[row] and x[columns[n]] to sums[n] for `begin` <= n < `end`.

    Rows of `x` and `g` are TOKENS adjacent float32 or, with BFLOAT_INSTRUCTIONS, PAIR_TOKENS adjacent
    bfloat16 (int16 bits); sums are float32 and columns int32. LANES products are formed together and summed
    by halves. The order of a sum does not depend on `begin` or `end`.
    """
    allowed = (types.float32, types.int16) if BFLOAT_INSTRUCTIONS else (types.float32,)
    if x.dtype != g.dtype or x.dtype not in allowed or sums.dtype != types.float32:
        raise TypingError(f"{x.dtype}, {g.dtype}, {sums.dtype}: must be float32, or int16 with AVX512_BF16")
    index = types.intp
    return types.void(x, columns, index, index, g, index, sums), _write_products


def _write_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    x, columns, begin, end, g, row, sums = arguments
    kind_x, kind_columns, _, _, kind_g, _, kind_sums = signature.args
    vector, size = ir.VectorType(FLOAT, LANES), ir.IntType(64)
    pairs = kind_x.dtype == types.int16
    loaded = ir.VectorType(INTEGER, LANES) if pairs else vector  # a pair of bfloat16 is read as one integer
    vectors = range(PAIR_TOKENS // (2 * LANES) if pairs else TOKENS // LANES)
    x_data = make_array(kind_x)(context, builder, x).data
    x_step, _ = strides(context, builder, kind_x, x)
    g_step, _ = strides(context, builder, kind_g, g)
    g_data = make_array(kind_g)(context, builder, g).data
    g_row = cgutils.pointer_add(builder, g_data, builder.mul(row, g_step), loaded.as_pointer())
    factors = [builder.load(builder.gep(g_row, [ir.Constant(size, v)]), align=4) for v in vectors]
    column_data = make_array(kind_columns)(context, builder, columns).data
    sum_data = make_array(kind_sums)(context, builder, sums).data
    if pairs:
        bfloats = ir.VectorType(Bfloat(), 2 * LANES)
        kind_of_add = ir.FunctionType(vector, [vector, bfloats, bfloats])
        instruction = f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}"
        add_pairs = cgutils.get_or_insert_function(builder.module, kind_of_add, instruction)

    def product(index: Any) -> Any:
        column = builder.zext(builder.load(builder.gep(column_data, [index])), size)
        line = cgutils.pointer_add(builder, x_data, builder.mul(column, x_step), loaded.as_pointer())
        total = ir.Constant(vector, [0.0] * LANES) if pairs else None
        for v in vectors:
            one = builder.load(builder.gep(line, [ir.Constant(size, v)]), align=4)
            if pairs:
                both = [builder.bitcast(value, bfloats) for value in (factors[v], one)]
                total = builder.call(add_pairs, [total, *both])
                continue
            one = builder.fmul(factors[v], one, flags=["contract"])
            total = one if total is None else builder.fadd(total, one, flags=["contract"])
        return total

    def halve(a: Any, b: Any, half: int) -> Any:
        """Add each half of every 2 x `half` lanes to its other half: first halves of `a`, second of `b`."""
        lanes = ir.VectorType(INTEGER, LANES)
        own = ir.Constant(lanes, [i + LANES if i & half else i for i in range(LANES)])
        other = ir.Constant(lanes, [(i ^ half) + LANES if i & half else i ^ half for i in range(LANES)])
        return builder.fadd(builder.shuffle_vector(a, b, own), builder.shuffle_vector(a, b, other))

    step = ir.Constant(size, LANES)
    whole = builder.add(begin, builder.mul(builder.sdiv(builder.sub(end, begin), step), step))
    with cgutils.for_range_slice(builder, begin, whole, step, size) as (index, _):
        totals = [product(builder.add(index, ir.Constant(size, lane))) for lane in range(LANES)]
        while (half := len(totals) // 2) > 0:
            totals = [halve(totals[i], totals[i + half], half) for i in range(half)]
        place = builder.bitcast(builder.gep(sum_data, [index]), vector.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=4), totals[0]), place, align=4)
    with cgutils.for_range_slice(builder, whole, end, ir.Constant(size, 1), size) as (index, _):
        total, half = product(index), LANES // 2
        while half > 0:
            total, half = halve(total, total, half), half // 2
        place = builder.gep(sum_data, [index])
        first = builder.extract_element(total, ir.Constant(INTEGER, 0))
        builder.store(builder.fadd(builder.load(place), first), place)
    return context.get_dummy_value()
