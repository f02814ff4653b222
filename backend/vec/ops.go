package vec

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// The operations of [compute.StandardOps] and [compute.FusedOps]: each is recorded with what adds it to another backend.
// GoMLX writes the fused ones that are not here as standard ones, for which there are kernels.

type (
	values = []compute.Value
	target = compute.Function
)

// The settings of the operations that have kernels here.
type (
	broadcast struct {
		shape shapes.Shape
		axes  []int
	}
	window struct {
		reduction                                    compute.ReduceOpType
		size, strides, inputDilations, sizeDilations []int
		paddings                                     [][2]int
	}
	slice struct{ starts, limits, strides []int }
	dot   struct {
		lhsContracting, lhsBatch, rhsContracting, rhsBatch []int
		config                                             compute.DotGeneralConfig
	}
	convolution struct {
		axes                            compute.ConvolveAxesConfig
		strides                         []int
		paddings                        [][2]int
		inputDilations, kernelDilations []int
		channelGroups, batchGroups      int
		bf16                            bool // of numbers rounded to bfloat16, or to be
	}
)

// Abs implements [compute.StandardOps].
func (f *Function) Abs(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeAbs, target.Abs, x)
}

// BitCount implements [compute.StandardOps].
func (f *Function) BitCount(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeBitCount, target.BitCount, x)
}

// BitwiseNot implements [compute.StandardOps].
func (f *Function) BitwiseNot(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeBitwiseNot, target.BitwiseNot, x)
}

// Ceil implements [compute.StandardOps].
func (f *Function) Ceil(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeCeil, target.Ceil, x)
}

// Clz implements [compute.StandardOps].
func (f *Function) Clz(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeClz, target.Clz, x)
}

// Cos implements [compute.StandardOps].
func (f *Function) Cos(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeCos, target.Cos, x)
}

// Erf implements [compute.StandardOps].
func (f *Function) Erf(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeErf, target.Erf, x)
}

// Exp implements [compute.StandardOps].
func (f *Function) Exp(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeExp, target.Exp, x)
}

// Expm1 implements [compute.StandardOps].
func (f *Function) Expm1(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeExpm1, target.Expm1, x)
}

// Floor implements [compute.StandardOps].
func (f *Function) Floor(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeFloor, target.Floor, x)
}

// Identity implements [compute.StandardOps].
func (f *Function) Identity(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeIdentity, target.Identity, x)
}

// IsFinite implements [compute.StandardOps].
func (f *Function) IsFinite(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeIsFinite, target.IsFinite, x)
}

// IsNaN implements [compute.StandardOps].
func (f *Function) IsNaN(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeIsNaN, target.IsNaN, x)
}

// Log implements [compute.StandardOps].
func (f *Function) Log(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLog, target.Log, x)
}

// Log1p implements [compute.StandardOps].
func (f *Function) Log1p(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLog1p, target.Log1p, x)
}

// LogicalNot implements [compute.StandardOps].
func (f *Function) LogicalNot(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLogicalNot, target.LogicalNot, x)
}

// Logistic implements [compute.StandardOps].
func (f *Function) Logistic(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLogistic, target.Logistic, x)
}

// Neg implements [compute.StandardOps].
func (f *Function) Neg(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeNeg, target.Neg, x)
}

// Round implements [compute.StandardOps].
func (f *Function) Round(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeRound, target.Round, x)
}

// Rsqrt implements [compute.StandardOps].
func (f *Function) Rsqrt(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeRsqrt, target.Rsqrt, x)
}

// Sign implements [compute.StandardOps].
func (f *Function) Sign(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeSign, target.Sign, x)
}

// Sin implements [compute.StandardOps].
func (f *Function) Sin(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeSin, target.Sin, x)
}

// Sqrt implements [compute.StandardOps].
func (f *Function) Sqrt(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeSqrt, target.Sqrt, x)
}

// Tanh implements [compute.StandardOps].
func (f *Function) Tanh(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeTanh, target.Tanh, x)
}

// Add implements [compute.StandardOps].
func (f *Function) Add(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeAdd, target.Add, lhs, rhs)
}

// BitwiseAnd implements [compute.StandardOps].
func (f *Function) BitwiseAnd(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseAnd, target.BitwiseAnd, lhs, rhs)
}

// BitwiseOr implements [compute.StandardOps].
func (f *Function) BitwiseOr(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseOr, target.BitwiseOr, lhs, rhs)
}

// BitwiseXor implements [compute.StandardOps].
func (f *Function) BitwiseXor(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseXor, target.BitwiseXor, lhs, rhs)
}

// Div implements [compute.StandardOps].
func (f *Function) Div(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeDiv, target.Div, lhs, rhs)
}

// Equal implements [compute.StandardOps].
func (f *Function) Equal(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeEqual, target.Equal, lhs, rhs)
}

// GreaterOrEqual implements [compute.StandardOps].
func (f *Function) GreaterOrEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeGreaterOrEqual, target.GreaterOrEqual, lhs, rhs)
}

// GreaterThan implements [compute.StandardOps].
func (f *Function) GreaterThan(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeGreaterThan, target.GreaterThan, lhs, rhs)
}

// LessOrEqual implements [compute.StandardOps].
func (f *Function) LessOrEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLessOrEqual, target.LessOrEqual, lhs, rhs)
}

// LessThan implements [compute.StandardOps].
func (f *Function) LessThan(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLessThan, target.LessThan, lhs, rhs)
}

// LogicalAnd implements [compute.StandardOps].
func (f *Function) LogicalAnd(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalAnd, target.LogicalAnd, lhs, rhs)
}

// LogicalOr implements [compute.StandardOps].
func (f *Function) LogicalOr(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalOr, target.LogicalOr, lhs, rhs)
}

// LogicalXor implements [compute.StandardOps].
func (f *Function) LogicalXor(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalXor, target.LogicalXor, lhs, rhs)
}

// Max implements [compute.StandardOps].
func (f *Function) Max(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMax, target.Max, lhs, rhs)
}

// Min implements [compute.StandardOps].
func (f *Function) Min(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMin, target.Min, lhs, rhs)
}

// Mul implements [compute.StandardOps].
func (f *Function) Mul(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMul, target.Mul, lhs, rhs)
}

// NotEqual implements [compute.StandardOps].
func (f *Function) NotEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeNotEqual, target.NotEqual, lhs, rhs)
}

// Pow implements [compute.StandardOps].
func (f *Function) Pow(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypePow, target.Pow, lhs, rhs)
}

// Rem implements [compute.StandardOps].
func (f *Function) Rem(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeRem, target.Rem, lhs, rhs)
}

// ShiftLeft implements [compute.StandardOps].
func (f *Function) ShiftLeft(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftLeft, target.ShiftLeft, lhs, rhs)
}

// ShiftRightArithmetic implements [compute.StandardOps].
func (f *Function) ShiftRightArithmetic(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftRightArithmetic, target.ShiftRightArithmetic, lhs, rhs)
}

// ShiftRightLogical implements [compute.StandardOps].
func (f *Function) ShiftRightLogical(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftRightLogical, target.ShiftRightLogical, lhs, rhs)
}

// Sub implements [compute.StandardOps].
func (f *Function) Sub(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeSub, target.Sub, lhs, rhs)
}

// ReduceBitwiseAnd implements [compute.StandardOps].
func (f *Function) ReduceBitwiseAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseAnd, target.ReduceBitwiseAnd, x, axes)
}

// ReduceBitwiseOr implements [compute.StandardOps].
func (f *Function) ReduceBitwiseOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseOr, target.ReduceBitwiseOr, x, axes)
}

// ReduceBitwiseXor implements [compute.StandardOps].
func (f *Function) ReduceBitwiseXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseXor, target.ReduceBitwiseXor, x, axes)
}

// ReduceLogicalAnd implements [compute.StandardOps].
func (f *Function) ReduceLogicalAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalAnd, target.ReduceLogicalAnd, x, axes)
}

// ReduceLogicalOr implements [compute.StandardOps].
func (f *Function) ReduceLogicalOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalOr, target.ReduceLogicalOr, x, axes)
}

// ReduceLogicalXor implements [compute.StandardOps].
func (f *Function) ReduceLogicalXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalXor, target.ReduceLogicalXor, x, axes)
}

// ReduceMax implements [compute.StandardOps].
func (f *Function) ReduceMax(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceMax, target.ReduceMax, x, axes)
}

// ReduceMin implements [compute.StandardOps].
func (f *Function) ReduceMin(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceMin, target.ReduceMin, x, axes)
}

// ReduceProduct implements [compute.StandardOps].
func (f *Function) ReduceProduct(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceProduct, target.ReduceProduct, x, axes)
}

// ReduceSum implements [compute.StandardOps].
func (f *Function) ReduceSum(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceSum, target.ReduceSum, x, axes)
}

// ArgMinMax implements [compute.StandardOps].
func (f *Function) ArgMinMax(x compute.Value, axis int, outputDType dtypes.DType, isMin bool) (compute.Value, error) {
	return f.one(compute.OpTypeArgMinMax, []any{axis, outputDType, isMin}, func(g target, in values) (compute.Value, error) {
		return g.ArgMinMax(in[0], axis, outputDType, isMin)
	}, x)
}

// Bitcast implements [compute.StandardOps].
func (f *Function) Bitcast(operand compute.Value, targetDType dtypes.DType) (compute.Value, error) {
	return f.one(compute.OpTypeBitcast, targetDType, func(g target, in values) (compute.Value, error) {
		return g.Bitcast(in[0], targetDType)
	}, operand)
}

// BroadcastInDim implements [compute.StandardOps].
func (f *Function) BroadcastInDim(operand compute.Value, outputShape shapes.Shape, broadcastAxes []int) (compute.Value, error) {
	broadcastAxes = slices.Clone(broadcastAxes)
	return f.one(compute.OpTypeBroadcastInDim, broadcast{outputShape, broadcastAxes}, func(g target, in values) (compute.Value, error) {
		return g.BroadcastInDim(in[0], outputShape, broadcastAxes)
	}, operand)
}

// Clamp implements [compute.StandardOps].
func (f *Function) Clamp(lo, x, hi compute.Value) (compute.Value, error) {
	return f.one(compute.OpTypeClamp, nil, func(g target, in values) (compute.Value, error) {
		return g.Clamp(in[0], in[1], in[2])
	}, lo, x, hi)
}

// Concatenate implements [compute.StandardOps].
func (f *Function) Concatenate(axis int, operands ...compute.Value) (compute.Value, error) {
	return f.one(compute.OpTypeConcatenate, axis, func(g target, in values) (compute.Value, error) {
		return g.Concatenate(axis, in...)
	}, operands...)
}

// ConvertDType implements [compute.StandardOps].
func (f *Function) ConvertDType(x compute.Value, dtype dtypes.DType) (compute.Value, error) {
	if v, ok := x.(*value); ok && dtype == dtypes.Float32 && v.isNarrowed() {
		return f.roundBF16(v.node.in[0])
	}
	return f.one(compute.OpTypeConvertDType, dtype, func(g target, in values) (compute.Value, error) {
		return g.ConvertDType(in[0], dtype)
	}, x)
}

// CumSum implements [compute.StandardOps].
func (f *Function) CumSum(operand compute.Value, axis int, options compute.CumSumOptions) (compute.Value, error) {
	return f.one(compute.OpTypeCumSum, []any{axis, options}, func(g target, in values) (compute.Value, error) {
		return g.CumSum(in[0], axis, options)
	}, operand)
}

// Iota implements [compute.StandardOps].
func (f *Function) Iota(shape shapes.Shape, iotaAxis int) (compute.Value, error) {
	return f.one(compute.OpTypeIota, []any{shape, iotaAxis}, func(g target, in values) (compute.Value, error) {
		return g.Iota(shape, iotaAxis)
	})
}

// Pad implements [compute.StandardOps].
func (f *Function) Pad(x, fillValue compute.Value, axesConfig ...compute.PadAxis) (compute.Value, error) {
	axesConfig = slices.Clone(axesConfig)
	return f.one(compute.OpTypePad, axesConfig, func(g target, in values) (compute.Value, error) {
		return g.Pad(in[0], in[1], axesConfig...)
	}, x, fillValue)
}

// ReduceWindow implements [compute.StandardOps].
func (f *Function) ReduceWindow(input compute.Value, reductionType compute.ReduceOpType, windowDimensions, strides, inputDilations, windowDilations []int, paddings [][2]int) (compute.Value, error) {
	windowDimensions = slices.Clone(windowDimensions)
	strides = slices.Clone(strides)
	inputDilations = slices.Clone(inputDilations)
	windowDilations = slices.Clone(windowDilations)
	paddings = slices.Clone(paddings)
	return f.one(compute.OpTypeReduceWindow, window{reductionType, windowDimensions, strides, inputDilations, windowDilations, paddings}, func(g target, in values) (compute.Value, error) {
		return g.ReduceWindow(in[0], reductionType, windowDimensions, strides, inputDilations, windowDilations, paddings)
	}, input)
}

// Reshape implements [compute.StandardOps].
func (f *Function) Reshape(x compute.Value, dimensions ...int) (compute.Value, error) {
	dimensions = slices.Clone(dimensions)
	return f.one(compute.OpTypeReshape, dimensions, func(g target, in values) (compute.Value, error) {
		return g.Reshape(in[0], dimensions...)
	}, x)
}

// Reverse implements [compute.StandardOps].
func (f *Function) Reverse(x compute.Value, axes ...int) (compute.Value, error) {
	axes = slices.Clone(axes)
	return f.one(compute.OpTypeReverse, axes, func(g target, in values) (compute.Value, error) {
		return g.Reverse(in[0], axes...)
	}, x)
}

// Slice implements [compute.StandardOps].
func (f *Function) Slice(x compute.Value, starts, limits, strides []int) (compute.Value, error) {
	starts = slices.Clone(starts)
	limits = slices.Clone(limits)
	strides = slices.Clone(strides)
	return f.one(compute.OpTypeSlice, slice{starts, limits, strides}, func(g target, in values) (compute.Value, error) {
		return g.Slice(in[0], starts, limits, strides)
	}, x)
}

// Transpose implements [compute.StandardOps].
func (f *Function) Transpose(x compute.Value, permutation ...int) (compute.Value, error) {
	permutation = slices.Clone(permutation)
	return f.one(compute.OpTypeTranspose, permutation, func(g target, in values) (compute.Value, error) {
		return g.Transpose(in[0], permutation...)
	}, x)
}

// Where implements [compute.StandardOps].
func (f *Function) Where(condition, onTrue, onFalse compute.Value) (compute.Value, error) {
	return f.one(compute.OpTypeWhere, nil, func(g target, in values) (compute.Value, error) {
		return g.Where(in[0], in[1], in[2])
	}, condition, onTrue, onFalse)
}

// Gather implements [compute.StandardOps].
func (f *Function) Gather(operand, startIndices compute.Value, indexVectorAxis int, offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes []int, indicesAreSorted bool) (compute.Value, error) {
	offsetOutputAxes = slices.Clone(offsetOutputAxes)
	collapsedSliceAxes = slices.Clone(collapsedSliceAxes)
	startIndexMap = slices.Clone(startIndexMap)
	sliceSizes = slices.Clone(sliceSizes)
	return f.one(compute.OpTypeGather, []any{indexVectorAxis, offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes, indicesAreSorted}, func(g target, in values) (compute.Value, error) {
		return g.Gather(in[0], in[1], indexVectorAxis, offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes, indicesAreSorted)
	}, operand, startIndices)
}

// ScatterMax implements [compute.StandardOps].
func (f *Function) ScatterMax(operand, scatterIndices, updates compute.Value, indexVectorAxis int, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	updateWindowAxes = slices.Clone(updateWindowAxes)
	insertedWindowAxes = slices.Clone(insertedWindowAxes)
	scatterAxesToOperandAxes = slices.Clone(scatterAxesToOperandAxes)
	return f.one(compute.OpTypeScatterMax, []any{indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices}, func(g target, in values) (compute.Value, error) {
		return g.ScatterMax(in[0], in[1], in[2], indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
	}, operand, scatterIndices, updates)
}

// ScatterMin implements [compute.StandardOps].
func (f *Function) ScatterMin(operand, scatterIndices, updates compute.Value, indexVectorAxis int, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	updateWindowAxes = slices.Clone(updateWindowAxes)
	insertedWindowAxes = slices.Clone(insertedWindowAxes)
	scatterAxesToOperandAxes = slices.Clone(scatterAxesToOperandAxes)
	return f.one(compute.OpTypeScatterMin, []any{indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices}, func(g target, in values) (compute.Value, error) {
		return g.ScatterMin(in[0], in[1], in[2], indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
	}, operand, scatterIndices, updates)
}

// ScatterSum implements [compute.StandardOps].
func (f *Function) ScatterSum(operand, scatterIndices, updates compute.Value, indexVectorAxis int, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	updateWindowAxes = slices.Clone(updateWindowAxes)
	insertedWindowAxes = slices.Clone(insertedWindowAxes)
	scatterAxesToOperandAxes = slices.Clone(scatterAxesToOperandAxes)
	return f.one(compute.OpTypeScatterSum, []any{indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices}, func(g target, in values) (compute.Value, error) {
		return g.ScatterSum(in[0], in[1], in[2], indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
	}, operand, scatterIndices, updates)
}

// SelectAndScatterMax implements [compute.StandardOps].
func (f *Function) SelectAndScatterMax(operand, source compute.Value, windowDimensions, windowStrides []int, paddings [][2]int) (compute.Value, error) {
	windowDimensions = slices.Clone(windowDimensions)
	windowStrides = slices.Clone(windowStrides)
	paddings = slices.Clone(paddings)
	return f.one(compute.OpTypeSelectAndScatterMax, window{size: windowDimensions, strides: windowStrides, paddings: paddings}, func(g target, in values) (compute.Value, error) {
		return g.SelectAndScatterMax(in[0], in[1], windowDimensions, windowStrides, paddings)
	}, operand, source)
}

// SelectAndScatterMin implements [compute.StandardOps].
func (f *Function) SelectAndScatterMin(operand, source compute.Value, windowDimensions, windowStrides []int, paddings [][2]int) (compute.Value, error) {
	windowDimensions = slices.Clone(windowDimensions)
	windowStrides = slices.Clone(windowStrides)
	paddings = slices.Clone(paddings)
	return f.one(compute.OpTypeSelectAndScatterMin, window{size: windowDimensions, strides: windowStrides, paddings: paddings}, func(g target, in values) (compute.Value, error) {
		return g.SelectAndScatterMin(in[0], in[1], windowDimensions, windowStrides, paddings)
	}, operand, source)
}

// SchedulingBarrier implements [compute.StandardOps].
func (f *Function) SchedulingBarrier(operand compute.Value, dependencies ...compute.Value) (compute.Value, error) {
	return f.one(compute.OpTypeSchedulingBarrier, nil, func(g target, in values) (compute.Value, error) {
		return g.SchedulingBarrier(in[0], in[1:]...)
	}, append(values{operand}, dependencies...)...)
}

// DotGeneral implements [compute.StandardOps].
func (f *Function) DotGeneral(lhs compute.Value, lhsContractingAxes, lhsBatchAxes []int, rhs compute.Value, rhsContractingAxes, rhsBatchAxes []int, config compute.DotGeneralConfig) (compute.Value, error) {
	lhsContractingAxes = slices.Clone(lhsContractingAxes)
	lhsBatchAxes = slices.Clone(lhsBatchAxes)
	rhsContractingAxes = slices.Clone(rhsContractingAxes)
	rhsBatchAxes = slices.Clone(rhsBatchAxes)
	if f.isBFloat16(lhs, rhs) && config == (compute.DotGeneralConfig{AccumulatorDType: dtypes.Float32, OutputDType: dtypes.Float32}) {
		return f.inFloat32(lhs, rhs, dtypes.Float32, func(lhs, rhs compute.Value) (compute.Value, error) {
			return f.DotGeneral(lhs, lhsContractingAxes, lhsBatchAxes, rhs, rhsContractingAxes, rhsBatchAxes, compute.DotGeneralConfig{})
		})
	}
	return f.one(compute.OpTypeDotGeneral, dot{lhsContractingAxes, lhsBatchAxes, rhsContractingAxes, rhsBatchAxes, config}, func(g target, in values) (compute.Value, error) {
		return g.DotGeneral(in[0], lhsContractingAxes, lhsBatchAxes, in[1], rhsContractingAxes, rhsBatchAxes, config)
	}, lhs, rhs)
}

// ConvGeneral implements [compute.StandardOps].
func (f *Function) ConvGeneral(input, kernel compute.Value, axes compute.ConvolveAxesConfig, strides []int, paddings [][2]int, inputDilations, kernelDilations []int, channelGroupCount, batchGroupCount int) (compute.Value, error) {
	axes = axes.Clone()
	strides = slices.Clone(strides)
	paddings = slices.Clone(paddings)
	inputDilations = slices.Clone(inputDilations)
	kernelDilations = slices.Clone(kernelDilations)
	record := func(input, kernel compute.Value, bf16 bool) (compute.Value, error) {
		return f.one(compute.OpTypeConvGeneral, convolution{axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount, bf16}, func(g target, in values) (compute.Value, error) {
			return g.ConvGeneral(in[0], in[1], axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount)
		}, input, kernel)
	}
	if f.isBFloat16(input, kernel) {
		return f.inFloat32(input, kernel, dtypes.BFloat16, func(input, kernel compute.Value) (compute.Value, error) { return record(input, kernel, true) })
	}
	return record(input, kernel, false)
}

// isBFloat16 is whether both operands are bfloat16.
func (f *Function) isBFloat16(x, y compute.Value) bool {
	a, errA := f.Shape(x)
	b, errB := f.Shape(y)
	return errA == nil && errB == nil && a.DType == dtypes.BFloat16 && b.DType == dtypes.BFloat16
}

// inFloat32 is a product of bfloat16 numbers: their products are exact in float32, and sums are kept there. As in XLA, what was
// float32 before it was rounded, and is float32 again after, may stay so: where there are kernels of bfloat16, they do the rounding.
func (f *Function) inFloat32(x, y compute.Value, result dtypes.DType, product func(x, y compute.Value) (compute.Value, error)) (compute.Value, error) {
	x, err := f.widened(x)
	if err != nil {
		return nil, err
	}
	if y, err = f.widened(y); err != nil {
		return nil, err
	}
	z, err := product(x, y)
	if err != nil || result == dtypes.Float32 {
		return z, err
	}
	return f.ConvertDType(z, result)
}

// isNarrowed reports whether v is float32 rounded to bfloat16.
func (v *value) isNarrowed() bool {
	return v.node != nil && v.node.op == compute.OpTypeConvertDType && v.shape.DType == dtypes.BFloat16 && v.node.in[0].shape.DType == dtypes.Float32
}

// widened is a value of bfloat16 as float32, not rounded if kernels of bfloat16 will do it.
func (f *Function) widened(x compute.Value) (compute.Value, error) {
	v := x.(*value)
	move := func(again func(x compute.Value) (compute.Value, error)) (compute.Value, error) {
		from, err := f.widened(v.node.in[0])
		if err != nil {
			return nil, err
		}
		return again(from)
	}
	switch {
	case v.isNarrowed() && f.builder.backend.set.BF16() != nil:
		return v.node.in[0], nil
	case v.node == nil || v.fn != f:
	case v.node.op == compute.OpTypeReverse:
		return move(func(x compute.Value) (compute.Value, error) { return f.Reverse(x, v.node.attr.([]int)...) })
	case v.node.op == compute.OpTypeTranspose:
		return move(func(x compute.Value) (compute.Value, error) { return f.Transpose(x, v.node.attr.([]int)...) })
	case v.node.op == compute.OpTypeReshape:
		return move(func(x compute.Value) (compute.Value, error) { return f.Reshape(x, v.shape.Dimensions...) })
	}
	return f.ConvertDType(x, dtypes.Float32)
}

// roundBF16 is float32 rounded to bfloat16 and back. The result of a product of bfloat16 stays as it is.
func (f *Function) roundBF16(x *value) (compute.Value, error) {
	if x.node != nil && x.node.op == compute.OpTypeConvGeneral && x.node.attr.(convolution).bf16 {
		return x, nil
	}
	return f.one(opRoundBF16, nil, func(g target, in values) (compute.Value, error) {
		narrow, err := g.ConvertDType(in[0], dtypes.BFloat16)
		if err != nil {
			return nil, err
		}
		return g.ConvertDType(narrow, dtypes.Float32)
	}, x)
}

// RNGBitGenerator implements [compute.StandardOps].
func (f *Function) RNGBitGenerator(state compute.Value, shape shapes.Shape) (newState, bits compute.Value, err error) {
	outs, err := f.record(compute.OpTypeRNGBitGenerator, shape, values{state}, nil, func(g target, in values, _ []target) (values, error) {
		newState, bits, err := g.RNGBitGenerator(in[0], shape)
		return values{newState, bits}, err
	})
	if err != nil {
		return nil, nil, err
	}
	return outs[0], outs[1], nil
}

// OptimizationBarrier implements [compute.StandardOps].
func (f *Function) OptimizationBarrier(operands ...compute.Value) ([]compute.Value, error) {
	return f.record(compute.OpTypeOptimizationBarrier, nil, operands, nil, func(g target, in values, _ []target) (values, error) {
		return g.OptimizationBarrier(in...)
	})
}

// quantized splits a quantization into its settings and its values.
func quantized(q *compute.Quantization) (settings compute.Quantization, scale, zero compute.Value) {
	if q == nil {
		return settings, nil, nil
	}
	settings = *q
	settings.Scale, settings.ZeroPoint = nil, nil
	return settings, q.Scale, q.ZeroPoint
}

// QuantizedEmbeddingLookup implements [compute.FusedOps].
func (f *Function) QuantizedEmbeddingLookup(data, indices compute.Value, quantization *compute.Quantization) (compute.Value, error) {
	settings, scale, zero := quantized(quantization)
	return f.one(compute.OpTypeQuantizedEmbeddingLookup, settings, func(g target, in values) (compute.Value, error) {
		q := settings
		q.Scale, q.ZeroPoint = in[2], in[3]
		return g.QuantizedEmbeddingLookup(in[0], in[1], &q)
	}, data, indices, scale, zero)
}

// FusedQuantizedDense implements [compute.FusedOps].
func (f *Function) FusedQuantizedDense(x, weights, bias compute.Value, quantization *compute.Quantization, activation compute.ActivationType) (compute.Value, error) {
	settings, scale, zero := quantized(quantization)
	return f.one(compute.OpTypeFusedQuantizedDense, []any{settings, activation}, func(g target, in values) (compute.Value, error) {
		q := settings
		q.Scale, q.ZeroPoint = in[3], in[4]
		return g.FusedQuantizedDense(in[0], in[1], in[2], &q, activation)
	}, x, weights, bias, scale, zero)
}
