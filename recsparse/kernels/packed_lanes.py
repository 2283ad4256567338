"""Steps of packed rows, sixteen entries at a time and none beyond a row's end: short rows are the rule there."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer
from recsparse.kernels.lanes import LANES, SHORT, SINGLES, WORDS, constant, first_lanes, gather, load, splat, store
from recsparse.kernels.sgd import ADAGRAD, ADAM, BETA1, BETA2, EPSILON, SGD

_LOOSE = ("contract", "arcp")
_SHORTS = ir.VectorType(SHORT, LANES)
_FLAG = ir.IntType(32)


def _read(builder: Any, array: Any, at: Any, wanted: Any, kind: Any, name: str) -> Any:
    """The wanted lanes from entry ``at`` on, zeros in others, whose memory is not touched."""
    pointer = builder.bitcast(builder.gep(array, [at]), kind.as_pointer())
    signature = ir.FunctionType(kind, [pointer.type, _FLAG, wanted.type, kind])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.load.v{LANES}{name}.p0")
    return builder.call(function, [pointer, _FLAG(1), wanted, ir.Constant(kind, None)])


def _write(builder: Any, lanes: Any, array: Any, at: Any, wanted: Any) -> None:
    """The wanted lanes only."""
    pointer = builder.bitcast(builder.gep(array, [at]), lanes.type.as_pointer())
    signature = ir.FunctionType(ir.VoidType(), [lanes.type, pointer.type, _FLAG, wanted.type])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(function, [lanes, pointer, _FLAG(1), wanted])


@intrinsic
def slope_lanes(typing_context, vector, columns, values, at, n, weight, reg, slope, to):  # type: ignore[no-untyped-def]
    """``slope[to + k] = weight * vector[columns[at + k]] - reg * values[at + k]`` for the first ``n`` of sixteen k.

    Columns are uint16, all else float32; zeros are written for other k.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at, n, weight, reg, _, to = args[3:]
        vector, columns, values, slope = (
            data_pointer(context, builder, signature.args[place], args[place]) for place in (0, 1, 2, 7)
        )
        wanted = first_lanes(builder, n)
        places = builder.zext(_read(builder, columns, at, wanted, _SHORTS, "i16"), WORDS)
        found = gather(builder, builder.bitcast(vector, ir.IntType(32).as_pointer()), places, wanted)
        pulled = builder.fmul(builder.bitcast(found, SINGLES), splat(builder, weight, SINGLES), flags=_LOOSE)
        own = _read(builder, values, at, wanted, SINGLES, "f32")
        decay = builder.fmul(own, splat(builder, reg, SINGLES), flags=_LOOSE)
        store(builder, builder.fsub(pulled, decay, flags=_LOOSE), builder.gep(slope, [to]))
        return context.get_dummy_value()

    single, long = types.float32, types.int64
    return types.void(vector, columns, values, long, long, single, single, slope, long), codegen


def _stepper(optimiser: int) -> Callable[..., None]:
    @intrinsic
    def step_lanes(typing_context, values, first, second, at, n, slope, to, rate, scale, scale2):  # type: ignore[no-untyped-def]
        """Step the first ``n`` of the sixteen entries from ``at`` on along ``slope[to:]``, and their state."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            at, n, _, to, rate, scale, scale2 = args[3:]
            values, first, second, slope = (
                data_pointer(context, builder, signature.args[place], args[place]) for place in (0, 1, 2, 5)
            )
            wanted = first_lanes(builder, n)
            pull = load(builder, builder.gep(slope, [to]), SINGLES)
            step = splat(builder, rate, SINGLES)

            def blend(state: Any, share: float, new: Any) -> Any:
                old = builder.fmul(_read(builder, state, at, wanted, SINGLES, "f32"), constant(SINGLES, share))
                mixed = builder.fadd(old, builder.fmul(new, constant(SINGLES, 1 - share)), flags=_LOOSE)
                _write(builder, mixed, state, at, wanted)
                return mixed

            def over_root(number: Any, square: Any) -> Any:
                kind = ir.FunctionType(SINGLES, [SINGLES])
                root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
                below = builder.fadd(builder.call(root, [square]), constant(SINGLES, EPSILON))
                return builder.fdiv(number, below, flags=_LOOSE)

            if optimiser == ADAGRAD:
                square = builder.fmul(pull, pull, flags=_LOOSE)
                square = builder.fadd(_read(builder, first, at, wanted, SINGLES, "f32"), square, flags=_LOOSE)
                _write(builder, square, first, at, wanted)
                pull = over_root(pull, square)
            elif optimiser == ADAM:
                square = blend(second, BETA2, builder.fmul(pull, pull, flags=_LOOSE))
                mean = blend(first, BETA1, pull)
                step = builder.fmul(step, splat(builder, scale, SINGLES))
                pull = over_root(mean, builder.fmul(square, splat(builder, scale2, SINGLES)))
            own = _read(builder, values, at, wanted, SINGLES, "f32")
            moved = builder.fadd(own, builder.fmul(step, pull, flags=_LOOSE), flags=_LOOSE)
            _write(builder, moved, values, at, wanted)
            return context.get_dummy_value()

        single, long = types.float32, types.int64
        arguments = (values, first, second, long, long, slope, long, single, single, single)
        return types.void(*arguments), codegen

    return step_lanes  # type: ignore[no-any-return]


step_sgd, step_adagrad, step_adam = (_stepper(optimiser) for optimiser in (SGD, ADAGRAD, ADAM))
