"""One head of causal attention with a sink, forward and backward, in a processor's cache (`attention.py`).

    p = exp(q k / sqrt(d) - l),  l = log(exp(sink) + sum of exp(q k / sqrt(d)));  out = p v

Queries are processed in blocks. Scores are stored keys first, so that the softmax runs along whole vectors of
queries and skips later keys. The forward pass keeps only l; the backward pass recomputes the scores and uses
l to normalise them. Scores and l are in bits (powers of two) here.

Shapes: n rows times positions, c channels of all heads, h heads; within a head i queries of a block, j keys,
d channels. Blocks are padded to whole vectors; the padding never affects a result.
"""

import math
from typing import Any

import numba
import numpy as np

from sparsity_lab.kernels.cpu.parallel_for import parallel_for
from sparsity_lab.kernels.cpu.simd import (
    BITS,
    LANES,
    TILE,
    as_float,
    as_kind,
    exp2,
    multiply_tile,
    room,
    transpose,
    whole_vectors,
)
from sparsity_lab.kernels.cpu.softmax import add_powers, raise_maxima, softmax_gradient

QUERIES = 128


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def attend_part(
    begin_head: int,
    end_head: int,
    q_nc: np.ndarray,
    k_nc: np.ndarray,
    v_nc: np.ndarray,
    sink_h: np.ndarray,
    time: int,
    out_nc: np.ndarray,
    bits_hn: np.ndarray,
) -> None:
    """Fill `out_nc` and `bits_hn` (l) for a range of heads, numbered row by row.

    A row has `time` positions. Arrays are contiguous. Queries, keys, values and outputs are float32 or int16
    (bfloat16 bits), and so are their gradients; the others are float32.
    """
    heads, d_head = len(sink_h), q_nc.shape[1] // len(sink_h)
    unit = np.float32(BITS / math.sqrt(d_head))
    keys = whole_vectors(time)
    k_jd, v_jd, p_ji = room(keys, d_head), room(keys, d_head), room(keys, QUERIES)
    q_di, out_id = room(d_head, QUERIES), room(QUERIES, d_head)
    most_i, total_i = room(1, QUERIES)[0], room(1, QUERIES)[0]
    for part in range(begin_head, end_head):
        head, first, at = part % heads, part // heads * time, part % heads * d_head
        sink = sink_h[head] * BITS
        _copy(k_nc, first, at, time, d_head, k_jd)
        _copy(v_nc, first, at, time, d_head, v_jd)
        for begin in range(0, time, QUERIES):
            size = min(QUERIES, time - begin)
            transpose(q_nc, first + begin, at, size, d_head, q_di, 0, 0)
            q_di *= unit
            _scores(k_jd, q_di, begin, size, p_ji)
            _hide_later_keys(p_ji, begin, size)
            most_i[:] = sink
            for key in range(begin + size):
                seen = _seen(key, begin, size)
                for query in range(seen.start, seen.stop, LANES):
                    raise_maxima(p_ji, most_i, key, query)
            for i in range(QUERIES):
                total_i[i] = exp2(sink - most_i[i])
            for key in range(begin + size):
                seen = _seen(key, begin, size)
                for query in range(seen.start, seen.stop, LANES):
                    add_powers(p_ji, most_i, total_i, key, query)
            _from_keys(p_ji, v_jd, begin, size, out_id)
            for query in range(size):
                n, share = first + begin + query, np.float32(1) / total_i[query]
                for channel in range(d_head):
                    place = at + channel
                    out_nc[n, place] = as_kind(out_id[query, channel] * share, out_nc[n, place])
                bits_hn[head, n] = most_i[query] + np.log2(total_i[query])


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def attend_back_part(
    begin_head: int,
    end_head: int,
    q_nc: np.ndarray,
    k_nc: np.ndarray,
    v_nc: np.ndarray,
    sink_h: np.ndarray,
    time: int,
    out_nc: np.ndarray,
    bits_hn: np.ndarray,
    grad_nc: np.ndarray,
    dq_nc: np.ndarray,
    dk_nc: np.ndarray,
    dv_nc: np.ndarray,
    dsink_bh: np.ndarray,
) -> None:
    """Fill the gradients of the inputs from that of the output. `dsink_bh` is separate for each row."""
    heads, d_head = len(sink_h), q_nc.shape[1] // len(sink_h)
    scale, unit = np.float32(1 / math.sqrt(d_head)), np.float32(BITS / math.sqrt(d_head))
    keys = whole_vectors(time)
    k_jd, v_jd, p_ji = room(keys, d_head), room(keys, d_head), room(keys, QUERIES)
    dk_jd, dv_jd, ds_ji = room(keys, d_head), room(keys, d_head), room(keys, QUERIES)
    q_id, grad_id, dq_id = room(QUERIES, d_head), room(QUERIES, d_head), room(QUERIES, d_head)
    q_di, grad_di, out_di = room(d_head, QUERIES), room(d_head, QUERIES), room(d_head, QUERIES)
    out_i, bits_i = room(1, QUERIES)[0], room(1, QUERIES)[0]
    for part in range(begin_head, end_head):
        head, first, at = part % heads, part // heads * time, part % heads * d_head
        _copy(k_nc, first, at, time, d_head, k_jd)
        _copy(v_nc, first, at, time, d_head, v_jd)
        dk_jd[:], dv_jd[:], dsink = 0, 0, np.float32(0)
        for begin in range(0, time, QUERIES):
            size = min(QUERIES, time - begin)
            _copy(q_nc, first + begin, at, size, d_head, q_id)
            _copy(grad_nc, first + begin, at, size, d_head, grad_id)
            transpose(q_id, 0, 0, size, d_head, q_di, 0, 0)
            transpose(grad_id, 0, 0, size, d_head, grad_di, 0, 0)
            q_di *= unit
            _scores(k_jd, q_di, begin, size, p_ji)
            _hide_later_keys(p_ji, begin, size)
            _scores(v_jd, grad_di, begin, size, ds_ji)
            transpose(out_nc, first + begin, at, size, d_head, out_di, 0, 0)
            bits_i[:size] = bits_hn[head, first + begin : first + begin + size]
            out_i[:] = 0
            for channel in range(d_head):
                for query in range(QUERIES):
                    out_i[query] += grad_di[channel, query] * out_di[channel, query]
            for query in range(size):
                dsink -= exp2(sink_h[head] * BITS - bits_i[query]) * out_i[query]
            for key in range(begin + size):
                seen = _seen(key, begin, size)
                for query in range(seen.start, seen.stop, LANES):
                    softmax_gradient(p_ji, ds_ji, bits_i, out_i, scale, key, query)
            _from_keys(ds_ji, k_jd, begin, size, dq_id)
            _from_queries(ds_ji, q_id, begin, size, dk_jd)
            _from_queries(p_ji, grad_id, begin, size, dv_jd)
            _copy_back(dq_id, size, d_head, dq_nc, first + begin, at)
        _copy_back(dk_jd, time, d_head, dk_nc, first, at)
        _copy_back(dv_jd, time, d_head, dv_nc, first, at)
        dsink_bh[part // heads, head] = dsink


@numba.njit(cache=True, nogil=True)
def attend(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(attend_part, threads, size, arguments)


@numba.njit(cache=True, nogil=True)
def attend_back(threads: int, size: int, *arguments: Any) -> None:
    parallel_for(attend_back_part, threads, size, arguments)


@numba.njit(cache=True)
def _copy(x_nc: np.ndarray, row: int, column: int, rows: int, columns: int, target: np.ndarray) -> None:
    for i in range(rows):
        for j in range(columns):
            target[i, j] = as_float(x_nc[row + i, column + j])


@numba.njit(cache=True)
def _copy_back(source: np.ndarray, rows: int, columns: int, x_nc: np.ndarray, row: int, column: int) -> None:
    for i in range(rows):
        for j in range(columns):
            x_nc[row + i, column + j] = as_kind(source[i, j], x_nc[row + i, column + j])


@numba.njit(cache=True)
def _seen(key: int, begin: int, size: int) -> slice:
    """Return the slice of whole vectors that covers the block's queries from the key's position on."""
    return slice(max(0, key - begin) // LANES * LANES, whole_vectors(size))


@numba.njit(cache=True)
def _hide_later_keys(s_ji: np.ndarray, begin: int, size: int) -> None:
    for key in range(begin, begin + size):
        since = key - begin
        s_ji[key, since // LANES * LANES : since] = -np.inf


@numba.njit(cache=True)
def _scores(k_jd: np.ndarray, q_di: np.ndarray, begin: int, size: int, s_ji: np.ndarray) -> None:
    """Multiply each key with the block's queries that may see it, and some earlier ones that fill a tile."""
    for key in range(0, begin + size, TILE):
        for query in range(_seen(key, begin, size).start, size, LANES):
            multiply_tile(k_jd, (key, 0), q_di, (0, query), len(q_di), s_ji, (key, query), False)


@numba.njit(cache=True)
def _from_keys(p_ji: np.ndarray, v_jd: np.ndarray, begin: int, size: int, out_id: np.ndarray) -> None:
    """Set each query's row to the weighted sum of the keys' rows."""
    for query in range(0, size, TILE):
        depth = begin + min(query + TILE, size)
        for channel in range(0, v_jd.shape[1], LANES):
            multiply_tile(p_ji.T, (query, 0), v_jd, (0, channel), depth, out_id, (query, channel), False)


@numba.njit(cache=True)
def _from_queries(p_ji: np.ndarray, q_id: np.ndarray, begin: int, size: int, out_jd: np.ndarray) -> None:
    """Add the weighted sum of the queries' rows to each key's row."""
    for key in range(0, begin + size, TILE):
        since = _seen(key, begin, size).start
        for channel in range(0, q_id.shape[1], LANES):
            at, depth = (key, channel), size - since
            multiply_tile(p_ji, (key, since), q_id, (since, channel), depth, out_jd, at, True)
