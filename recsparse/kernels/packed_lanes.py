"""Steps of packed rows: sixteen columns at a time where rows meet vectors, sixteen entries at a time where they step.

A row's entries lie one after the other and a bitmap says in which columns they live. They are spread to their columns
to meet a vector, and the vector's numbers at these columns are squeezed together to meet them: one instruction each
where the processor has it (AVX-512), a short loop elsewhere. No memory beyond a row's end is touched.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer
from recsparse.kernels.lanes import (
    LANES,
    SHORT,
    SINGLE,
    SINGLES,
    WORDS,
    constant,
    first_lanes,
    gather,
    load,
    splat,
    store,
)
from recsparse.kernels.sgd import ADAGRAD, ADAM, BETA1, BETA2, EPSILON, SGD

_LOOSE = ("contract", "arcp", "reassoc", "nsz")
_LONG, _WORD = ir.IntType(64), ir.IntType(32)
_SHORTS = ir.VectorType(SHORT, LANES)
_CHOSEN = ir.VectorType(ir.IntType(1), LANES)


def _call(builder: Any, name: str, result: Any, *arguments: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


def _read(builder: Any, array: Any, at: Any, wanted: Any, kind: Any = SINGLES, name: str = "f32") -> Any:
    """The wanted lanes from entry ``at`` on, zeros in others, whose memory is not touched."""
    pointer = builder.bitcast(builder.gep(array, [at]), kind.as_pointer())
    nothing = ir.Constant(kind, None)
    return _call(builder, f"llvm.masked.load.v{LANES}{name}.p0", kind, pointer, _WORD(1), wanted, nothing)


def _write(builder: Any, lanes: Any, array: Any, at: Any, wanted: Any) -> None:
    """The wanted lanes only."""
    pointer = builder.bitcast(builder.gep(array, [at]), SINGLES.as_pointer())
    _call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), lanes, pointer, _WORD(1), wanted)


def _over_chunks(
    builder: Any, bits: Any, bit: Any, dim: Any, start: Any, body: Callable[[Any, Any, Any], None]
) -> None:
    """Call ``body(column, at, living)`` for each sixteen of ``dim`` columns, whose entries begin at ``at``."""
    place = cgutils.alloca_once_value(builder, start)

    def chunk(column: Any, inside: Any) -> None:
        first = builder.add(bit, column)
        pointer = builder.gep(bits, [builder.lshr(first, _LONG(3))])
        word = builder.lshr(load(builder, pointer, _WORD), builder.trunc(builder.and_(first, _LONG(7)), _WORD))
        living = builder.and_(word, inside)
        at = builder.load(place)
        body(column, at, builder.bitcast(builder.trunc(living, SHORT), _CHOSEN))
        count = _call(builder, "llvm.ctpop.i32", _WORD, living)
        builder.store(builder.add(at, builder.zext(count, _LONG)), place)

    left = builder.and_(dim, _LONG(LANES - 1))
    full = builder.sub(dim, left)
    with cgutils.for_range_slice(builder, _LONG(0), full, _LONG(LANES), inc=True) as (column, _):
        chunk(column, _WORD(0xFFFF))
    with builder.if_then(builder.icmp_signed(">", left, _LONG(0))):
        chunk(full, builder.sub(builder.shl(_WORD(1), builder.trunc(left, _WORD)), _WORD(1)))


def _spread(builder: Any, values: Any, at: Any, living: Any) -> Any:
    """The entries from ``at`` on in the columns that live, zeros in others."""
    name = f"llvm.masked.expandload.v{LANES}f32"
    return _call(builder, name, SINGLES, builder.gep(values, [at]), living, ir.Constant(SINGLES, None))


@intrinsic
def dot_packed(typing_context, vector, values, start, bits, bit, dim):  # type: ignore[no-untyped-def]
    """The product of ``vector``, with room up to the next sixteen, and the row whose bits begin at ``bit``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector, values, bits = (data_pointer(context, builder, signature.args[at], args[at]) for at in (0, 1, 3))
        _, _, start, _, bit, dim = args
        total = cgutils.alloca_once_value(builder, ir.Constant(SINGLES, None))

        def add(column: Any, at: Any, living: Any) -> None:
            own = load(builder, builder.gep(vector, [column]), SINGLES)
            product = builder.fmul(own, _spread(builder, values, at, living), flags=_LOOSE)
            builder.store(builder.fadd(builder.load(total), product, flags=_LOOSE), total)

        _over_chunks(builder, bits, bit, dim, start, add)
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        return _call(builder, name, SINGLE, SINGLE(-0.0), builder.load(total), fastmath=_LOOSE)

    long = types.int64
    return types.float32(vector, values, long, bits, long, long), codegen


@intrinsic
def unpack(typing_context, values, start, bits, bit, dim, out):  # type: ignore[no-untyped-def]
    """Write the row whose bits begin at ``bit`` with its zeros, up to the next sixteen."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        values, bits, out = (data_pointer(context, builder, signature.args[at], args[at]) for at in (0, 2, 5))
        _, start, _, bit, dim, _ = args

        def write(column: Any, at: Any, living: Any) -> None:
            store(builder, _spread(builder, values, at, living), builder.gep(out, [column]))

        _over_chunks(builder, bits, bit, dim, start, write)
        return context.get_dummy_value()

    long = types.int64
    return types.void(values, long, bits, long, long, out), codegen


def _squeezer(adds: bool) -> Callable[..., None]:
    @intrinsic
    def squeeze(typing_context, vector, values, start, bits, bit, dim, weight, pull, out):  # type: ignore[no-untyped-def]
        """Write ``vector`` at the columns that live to ``out``, one after the other; what follows there is undone.

        One of the two also adds ``weight`` times the row to ``pull``.
        """

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            vector, values, bits, pull, out = (
                data_pointer(context, builder, signature.args[at], args[at]) for at in (0, 1, 3, 7, 8)
            )
            _, _, start, _, bit, dim, weight, _, _ = args
            weight = splat(builder, weight, SINGLES)
            out = builder.gep(out, [builder.neg(start)])

            def write(column: Any, at: Any, living: Any) -> None:
                own = load(builder, builder.gep(vector, [column]), SINGLES)
                name, rest = f"llvm.experimental.vector.compress.v{LANES}f32", ir.Constant(SINGLES, ir.Undefined)
                store(builder, _call(builder, name, SINGLES, own, living, rest), builder.gep(out, [at]))
                if adds:
                    product = builder.fmul(_spread(builder, values, at, living), weight, flags=_LOOSE)
                    place = builder.gep(pull, [column])
                    store(builder, builder.fadd(load(builder, place, SINGLES), product, flags=_LOOSE), place)

            _over_chunks(builder, bits, bit, dim, start, write)
            return context.get_dummy_value()

        long, single = types.int64, types.float32
        return types.void(vector, values, long, bits, long, long, single, pull, out), codegen

    return squeeze  # type: ignore[no-any-return]


squeeze, squeeze_and_add = _squeezer(False), _squeezer(True)


@intrinsic
def gather_lanes(typing_context, vector, columns, at, n, out, to):  # type: ignore[no-untyped-def]
    """``out[to + k] = vector[columns[at + k]]`` for the first ``n`` of sixteen k, zeros for others."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector, columns, out = (data_pointer(context, builder, signature.args[at], args[at]) for at in (0, 1, 4))
        _, _, at, n, _, to = args
        wanted = first_lanes(builder, n)
        places = builder.zext(_read(builder, columns, at, wanted, _SHORTS, "i16"), WORDS)
        found = gather(builder, builder.bitcast(vector, _WORD.as_pointer()), places, wanted)
        store(builder, builder.bitcast(found, SINGLES), builder.gep(out, [to]))
        return context.get_dummy_value()

    long = types.int64
    return types.void(vector, columns, long, long, out, long), codegen


def _stepper(optimiser: int) -> Callable[..., None]:
    @intrinsic
    def step_lanes(typing_context, values, first, second, at, n, aim, to, weight, reg, rate, scale, scale2):  # type: ignore[no-untyped-def]
        """Step the first ``n`` of the sixteen entries from ``at`` on, and their state, along their slopes.

        These are ``weight * aim[to:] - reg * values[at:]``.
        """

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            at, n, _, to, weight, reg, rate, scale, scale2 = args[3:]
            values, first, second, aim = (
                data_pointer(context, builder, signature.args[place], args[place]) for place in (0, 1, 2, 5)
            )
            wanted = first_lanes(builder, n)
            own = _read(builder, values, at, wanted)
            aimed = load(builder, builder.gep(aim, [to]), SINGLES)
            pulled = builder.fmul(aimed, splat(builder, weight, SINGLES), flags=_LOOSE)
            pull = builder.fsub(pulled, builder.fmul(own, splat(builder, reg, SINGLES), flags=_LOOSE), flags=_LOOSE)
            step = splat(builder, rate, SINGLES)

            def blend(state: Any, share: float, new: Any) -> Any:
                old = builder.fmul(_read(builder, state, at, wanted), constant(SINGLES, share))
                mixed = builder.fadd(old, builder.fmul(new, constant(SINGLES, 1 - share)), flags=_LOOSE)
                _write(builder, mixed, state, at, wanted)
                return mixed

            def over_root(number: Any, square: Any) -> Any:
                root = _call(builder, f"llvm.sqrt.v{LANES}f32", SINGLES, square)
                return builder.fdiv(number, builder.fadd(root, constant(SINGLES, EPSILON)), flags=_LOOSE)

            if optimiser == ADAGRAD:
                square = builder.fmul(pull, pull, flags=_LOOSE)
                square = builder.fadd(_read(builder, first, at, wanted), square, flags=_LOOSE)
                _write(builder, square, first, at, wanted)
                pull = over_root(pull, square)
            elif optimiser == ADAM:
                square = blend(second, BETA2, builder.fmul(pull, pull, flags=_LOOSE))
                mean = blend(first, BETA1, pull)
                step = builder.fmul(step, splat(builder, scale, SINGLES))
                pull = over_root(mean, builder.fmul(square, splat(builder, scale2, SINGLES)))
            moved = builder.fadd(own, builder.fmul(step, pull, flags=_LOOSE), flags=_LOOSE)
            _write(builder, moved, values, at, wanted)
            return context.get_dummy_value()

        single, long = types.float32, types.int64
        arguments = (values, first, second, long, long, aim, long, single, single, single, single, single)
        return types.void(*arguments), codegen

    return step_lanes  # type: ignore[no-any-return]


step_sgd, step_adagrad, step_adam = (_stepper(optimiser) for optimiser in (SGD, ADAGRAD, ADAM))
