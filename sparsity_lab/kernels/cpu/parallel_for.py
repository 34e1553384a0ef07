"""Run a kernel's loop on torch's own threads, on as many cores as torch may use.

Separate threads, from Python or numba's parallel loops, compete with torch's threads, which keep spinning
after their work. A second core then gains almost nothing, and a call costs 40 to 90 microseconds. Here a call
costs one microsecond.

A kernel takes `begin` and `end` first. A compiled wrapper passes it to `parallel_for`. Call the
wrapper with `threads_for(size)` and `size`:

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
_POINTER, _NUMBER, _SIZE = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def threads_for(size: int) -> int:
    """Return the number of parts into which to divide `size` rows, heads or blocks."""
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
    omp_get_thread_num = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    omp_get_num_threads = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)


def bind(library: Any) -> None:
    """Make the library's functions callable by name from compiled code."""
    for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"):
        binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)


bind(_torch_openmp() or _OneThread)


@intrinsic
def parallel_for(context: Any, kernel: Any, threads: Any, size: Any, arguments: Any) -> Any:
    """Call `kernel(begin, end, *arguments)` on consecutive parts of range(size), one part per thread.

    Raises:
        RuntimeError: the kernel raised an exception.
    """
    signature = kernel.get_call_type(context, (types.intp, types.intp, *arguments.types), {})

    def write(context: Any, builder: Any, own: Any, values: Any) -> Any:
        _, threads, size, packed = values
        compiled = kernel.dispatcher.get_compile_result(signature)
        called = context.declare_function(builder.module, compiled.fndesc)
        context.active_code_library.add_linking_library(compiled.library)
        # the last field is nonzero after an error
        data_type = ir.LiteralStructType([_SIZE, packed.type, _NUMBER])
        part = ir.Function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_POINTER]),
            builder.module.get_unique_name("part"),
        )
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block())
        place = inside.bitcast(part.args[0], data_type.as_pointer())
        total, given, failed = (cgutils.gep_inbounds(inside, place, 0, field) for field in range(3))
        total, given = inside.load(total), inside.load(given)
        number, parts = (_ask(inside, name) for name in ("omp_get_thread_num", "omp_get_num_threads"))
        after = inside.add(number, ir.Constant(_SIZE, 1))
        begin, end = (inside.sdiv(inside.mul(total, edge), parts) for edge in (number, after))
        unpacked = [inside.extract_value(given, index) for index in range(len(arguments.types))]
        status, _ = context.call_conv.call_function(
            inside, called, types.none, signature.args, [begin, end, *unpacked]
        )
        with inside.if_then(status.is_error, likely=False):
            inside.store(ir.Constant(_NUMBER, 1), failed)
        inside.ret_void()

        data = builder.insert_value(ir.Constant(data_type, ir.Undefined), size, 0)
        data = builder.insert_value(data, packed, 1)
        data = builder.insert_value(data, ir.Constant(_NUMBER, 0), 2)
        place = cgutils.alloca_once(builder, data_type)
        builder.store(data, place)
        start_type = ir.FunctionType(ir.VoidType(), [part.type, _POINTER, _NUMBER, _NUMBER])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        flags = ir.Constant(_NUMBER, 0)
        builder.call(start, [part, builder.bitcast(place, _POINTER), builder.trunc(threads, _NUMBER), flags])
        failed = builder.load(cgutils.gep_inbounds(builder, place, 0, 2))
        with builder.if_then(cgutils.is_not_null(builder, failed), likely=False):
            context.call_conv.return_user_exc(builder, RuntimeError, ("a kernel failed",))
        return context.get_dummy_value()

    return types.void(kernel, types.intp, types.intp, arguments), write


def _ask(builder: Any, name: str) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_NUMBER, []), name)
    return builder.sext(builder.call(function, []), _SIZE)
