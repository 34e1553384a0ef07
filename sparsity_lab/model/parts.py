"""A kernel's loop on as many cores as torch may use, by torch's own threads.

Threads of our own, Python's or those of numba's parallel loops, wait for cores on which torch's still spin: a
second core then gains next to nothing, and each call costs 40 to 90 microseconds; here it costs one.

A kernel takes `begin` and `end` first. A compiled function calls `in_parts` with it; it is called with
`threads_for(size)` and `size`:

    @numba.njit(cache=True, nogil=True)
    def _work(threads, size, *arguments):
        in_parts(_work_part, threads, size, arguments)
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic

intrinsic: Any = numba_intrinsic  # whose type asks callers for the context, too
_POINTER, _NUMBER, _SIZE = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def threads_for(size: int) -> int:
    """How many parts to make of so many rows, heads or blocks."""
    return max(1, min(torch.get_num_threads(), size))


def _find_torch_threads() -> bool:
    """Make torch's OpenMP known to compiled code; False where it is not GNU's, or not to be found."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line}
    for path in sorted(path for path in paths if "torch" in Path(path).parent.as_posix()):
        library = ctypes.CDLL(path)
        for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"):
            binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
        return True
    return False


_SHARED = _find_torch_threads()  # else a kernel's parts are one


@intrinsic
def in_parts(context: Any, kernel: Any, threads: Any, size: Any, arguments: Any) -> Any:
    """Call `kernel(begin, end, *arguments)` for consecutive parts of range(size), one in each of `threads`.

    An error in the kernel is not seen.
    """
    signature = kernel.get_call_type(context, (types.intp, types.intp, *arguments.types), {})

    def write(context: Any, builder: Any, own: Any, values: Any) -> Any:
        _, threads, size, packed = values
        compiled = kernel.dispatcher.get_compile_result(signature)
        called = context.declare_function(builder.module, compiled.fndesc)
        context.active_code_library.add_linking_library(compiled.library)

        def call(inside: Any, begin: Any, end: Any, packed: Any) -> None:
            unpacked = [inside.extract_value(packed, index) for index in range(len(arguments.types))]
            convention = context.call_conv
            convention.call_function(inside, called, types.none, signature.args, [begin, end, *unpacked])

        if not _SHARED:
            call(builder, ir.Constant(_SIZE, 0), size, packed)
            return context.get_dummy_value()
        data_type = ir.LiteralStructType([_SIZE, packed.type])
        part = ir.Function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_POINTER]),
            builder.module.get_unique_name("part"),
        )
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block())
        data = inside.load(inside.bitcast(part.args[0], data_type.as_pointer()))
        total = inside.extract_value(data, 0)
        number, parts = (_ask(inside, name) for name in ("omp_get_thread_num", "omp_get_num_threads"))
        after = inside.add(number, ir.Constant(_SIZE, 1))
        begin, end = (inside.sdiv(inside.mul(total, edge), parts) for edge in (number, after))
        call(inside, begin, end, inside.extract_value(data, 1))
        inside.ret_void()

        place = cgutils.alloca_once(builder, data_type)
        data = builder.insert_value(ir.Constant(data_type, ir.Undefined), size, 0)
        builder.store(builder.insert_value(data, packed, 1), place)
        start_type = ir.FunctionType(ir.VoidType(), [part.type, _POINTER, _NUMBER, _NUMBER])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        flags = ir.Constant(_NUMBER, 0)
        builder.call(start, [part, builder.bitcast(place, _POINTER), builder.trunc(threads, _NUMBER), flags])
        return context.get_dummy_value()

    return types.void(kernel, types.intp, types.intp, arguments), write


def _ask(builder: Any, name: str) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_NUMBER, []), name)
    return builder.sext(builder.call(function, []), _SIZE)
