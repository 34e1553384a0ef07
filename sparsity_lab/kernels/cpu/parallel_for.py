"""Run a kernel's loop on torch's own threads, on as many cores as torch may use.

Separate threads, from Python or numba's parallel loops, compete with torch's threads, which keep spinning
after their work. A second core then gains almost nothing, and a call costs 40 to 90 microseconds. Here a call
costs one microsecond.

The rows are divided into several pieces per thread, and a thread that is free takes the next one. So a thread
whose core is shared with another program does less of the work, instead of keeping the others waiting.

A kernel takes `begin` and `end` first; its results must not depend on where pieces begin. A compiled wrapper
passes it to `parallel_for`. Call the wrapper with `threads_for(size)` and `size`:

    @numba.njit(cache=True, nogil=True)
    def _work(threads, size, *arguments):
        parallel_for(_work_part, threads, size, arguments)
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic

intrinsic: Any = numba_intrinsic  # retyped: its declared type asks callers for the context too
PIECES = 4  # per thread; a kernel's fixed cost for each piece is some microseconds
_POINTER, _NUMBER, _SIZE = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def threads_for(size: int) -> int:
    """Return the number of threads for `size` rows, heads or blocks."""
    return max(1, min(torch.get_num_threads(), size))


def _torch_openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library that torch has loaded, if it is GNU's."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line}
    found = sorted(path for path in paths if "torch" in Path(path).parent.as_posix())
    return ctypes.CDLL(found[0]) if found else None


_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _OneThread:
    """Single-threaded substitute where torch does not use GNU's OpenMP."""

    GOMP_parallel = ctypes.CFUNCTYPE(None, _TASK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(
        lambda task, data, threads, flags: task(data)
    )


def bind(library: Any) -> None:
    """Make the library's `GOMP_parallel` callable by name from compiled code."""
    binding.add_symbol("GOMP_parallel", ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value)


bind(_torch_openmp() or _OneThread)


@intrinsic
def parallel_for(context: Any, kernel: Any, threads: Any, size: Any, arguments: Any) -> Any:
    """Call `kernel(begin, end, *arguments)` on consecutive pieces of range(size).

    One thread takes all of range(size) as one piece. Several threads take PIECES pieces each, or more or
    fewer if one is slower than another.

    Raises:
        RuntimeError: the kernel raised an exception.
    """
    signature = kernel.get_call_type(context, (types.intp, types.intp, *arguments.types), {})

    def write(context: Any, builder: Any, own: Any, values: Any) -> Any:
        _, threads, size, packed = values
        compiled = kernel.dispatcher.get_compile_result(signature)
        called = context.declare_function(builder.module, compiled.fndesc)
        context.active_code_library.add_linking_library(compiled.library)
        # size, pieces, the next piece to take, the kernel's arguments, nonzero after an error
        data_type = ir.LiteralStructType([_SIZE, _SIZE, _SIZE, packed.type, _NUMBER])
        part = ir.Function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_POINTER]),
            builder.module.get_unique_name("part"),
        )
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block())
        place = inside.bitcast(part.args[0], data_type.as_pointer())
        total, pieces, following, given, failed = (
            cgutils.gep_inbounds(inside, place, 0, field) for field in range(5)
        )
        total, pieces, given = inside.load(total), inside.load(pieces), inside.load(given)
        unpacked = [inside.extract_value(given, index) for index in range(len(arguments.types))]
        take, work, done = (part.append_basic_block(name) for name in ("take", "work", "done"))
        inside.branch(take)
        inside.position_at_end(take)
        piece = inside.atomic_rmw("add", following, ir.Constant(_SIZE, 1), "monotonic")
        inside.cbranch(inside.icmp_signed("<", piece, pieces), work, done)
        inside.position_at_end(work)
        after = inside.add(piece, ir.Constant(_SIZE, 1))
        begin, end = (inside.sdiv(inside.mul(total, edge), pieces) for edge in (piece, after))
        status, _ = context.call_conv.call_function(
            inside, called, types.none, signature.args, [begin, end, *unpacked]
        )
        with inside.if_then(status.is_error, likely=False):
            inside.store(ir.Constant(_NUMBER, 1), failed)
        inside.branch(take)
        inside.position_at_end(done)
        inside.ret_void()

        several = builder.icmp_signed(">", threads, ir.Constant(_SIZE, 1))
        most = builder.mul(threads, ir.Constant(_SIZE, PIECES))
        fewer = builder.select(builder.icmp_signed("<", size, most), size, most)
        pieces = builder.select(several, fewer, ir.Constant(_SIZE, 1))
        data = ir.Constant(data_type, ir.Undefined)
        fields = (size, pieces, ir.Constant(_SIZE, 0), packed, ir.Constant(_NUMBER, 0))
        for index, value in enumerate(fields):
            data = builder.insert_value(data, value, index)
        place = cgutils.alloca_once(builder, data_type)
        builder.store(data, place)
        start_type = ir.FunctionType(ir.VoidType(), [part.type, _POINTER, _NUMBER, _NUMBER])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        flags = ir.Constant(_NUMBER, 0)
        builder.call(start, [part, builder.bitcast(place, _POINTER), builder.trunc(threads, _NUMBER), flags])
        failed = builder.load(cgutils.gep_inbounds(builder, place, 0, 4))
        with builder.if_then(cgutils.is_not_null(builder, failed), likely=False):
            context.call_conv.return_user_exc(builder, RuntimeError, ("a kernel failed",))
        return context.get_dummy_value()

    return types.void(kernel, types.intp, types.intp, arguments), write
