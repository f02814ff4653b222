package vec

import (
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/adaad-go/adaad/internal/kern"
)

// Operations that GoMLX writes as several.
const (
	opAbove     compute.OpType = -1 - iota // 1 where the first operand is greater than the second, else 0
	opGate                                 // the first operand where the second is above 0, else 0
	opRoundBF16                            // to the nearest bfloat16
)

// step computes dst = op(a, b, c), element by element; NaN stays NaN. dst may be one of the operands.
type step func(set *kern.Set, dst, a, b, c []float32)

func one(f func(set *kern.Set, dst, a []float32)) step {
	return func(set *kern.Set, dst, a, _, _ []float32) { f(set, dst, a) }
}

func two(f func(set *kern.Set, dst, a, b []float32)) step {
	return func(set *kern.Set, dst, a, b, _ []float32) { f(set, dst, a, b) }
}

// turned is two with its operands exchanged.
func turned(f func(set *kern.Set, dst, a, b []float32)) step {
	return func(set *kern.Set, dst, a, b, _ []float32) { f(set, dst, b, a) }
}

// each makes a step of a function of one number.
func each(f func(float32) float32) step {
	return func(_ *kern.Set, dst, a, _, _ []float32) {
		dst = dst[:len(a)]
		for i, x := range a {
			dst[i] = f(x)
		}
	}
}

// wide makes a step of a function of one float64.
func wide(f func(float64) float64) step {
	return each(func(x float32) float32 { return float32(f(float64(x))) })
}

// pair makes a step of a function of two numbers.
func pair(f func(x, y float64) float64) step {
	return func(_ *kern.Set, dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = float32(f(float64(x), float64(b[i])))
		}
	}
}

func truth(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// steps are the elementwise operations.
var steps = map[compute.OpType]step{
	compute.OpTypeAdd: two((*kern.Set).Add),
	compute.OpTypeSub: two((*kern.Set).Sub),
	compute.OpTypeMul: two((*kern.Set).Mul),
	compute.OpTypeDiv: two((*kern.Set).Div),
	compute.OpTypeMax: two((*kern.Set).Max),
	compute.OpTypeMin: two((*kern.Set).Min),
	compute.OpTypePow: pair(math.Pow),
	compute.OpTypeRem: pair(math.Mod),

	compute.OpTypeAbs:   one((*kern.Set).Abs),
	compute.OpTypeNeg:   one((*kern.Set).Neg),
	compute.OpTypeSign:  one((*kern.Set).Sign),
	compute.OpTypeSqrt:  one((*kern.Set).Sqrt),
	compute.OpTypeRsqrt: one((*kern.Set).Rsqrt),
	compute.OpTypeExp:   one((*kern.Set).Exp),
	compute.OpTypeLog:   one((*kern.Set).Log),
	compute.OpTypeFloor: one((*kern.Set).Floor),
	compute.OpTypeCeil:  one((*kern.Set).Ceil),
	compute.OpTypeRound: one((*kern.Set).Round),
	compute.OpTypeExpm1: wide(math.Expm1),
	compute.OpTypeLog1p: wide(math.Log1p),
	compute.OpTypeTanh:  wide(math.Tanh),
	compute.OpTypeErf:   wide(math.Erf),
	compute.OpTypeSin:   wide(math.Sin),
	compute.OpTypeCos:   wide(math.Cos),
	compute.OpTypeLogistic: wide(func(x float64) float64 {
		if x >= 0 {
			return 1 / (1 + math.Exp(-x))
		}
		e := math.Exp(x)
		return e / (1 + e)
	}),

	compute.OpTypeEqual:          two((*kern.Set).Equal),
	compute.OpTypeNotEqual:       two((*kern.Set).NotEqual),
	compute.OpTypeGreaterThan:    two((*kern.Set).Above),
	compute.OpTypeGreaterOrEqual: turned((*kern.Set).LessEqual),
	compute.OpTypeLessThan:       two((*kern.Set).Less),
	compute.OpTypeLessOrEqual:    two((*kern.Set).LessEqual),
	compute.OpTypeIsNaN:          each(func(x float32) float32 { return truth(x != x) }),
	compute.OpTypeIsFinite:       each(func(x float32) float32 { return truth(x-x == 0) }),
	compute.OpTypeLogicalAnd:     two((*kern.Set).Mul),
	compute.OpTypeLogicalOr:      two((*kern.Set).Max),
	compute.OpTypeLogicalXor:     two((*kern.Set).NotEqual),
	compute.OpTypeLogicalNot:     each(func(x float32) float32 { return 1 - x }),

	opAbove: two((*kern.Set).Above),
	opGate:  two((*kern.Set).Gate),

	opRoundBF16: each(kern.RoundBF16),

	compute.OpTypeWhere: (*kern.Set).Select,
	compute.OpTypeClamp: (*kern.Set).Clamp,
}

// kernels are the elementwise operations and sums of one instruction set.
type kernels struct{ set *kern.Set }

// step is the kernel of an operation.
func (k kernels) step(op compute.OpType) func(dst, a, b, c []float32) {
	f := steps[op]
	return func(dst, a, b, c []float32) { f(k.set, dst, a, b, c) }
}

// sumRow adds up x: short pieces in float32 and those in float64, so that the sums of long rows stay exact enough.
func (k kernels) sumRow(x []float32) float32 {
	var total float64
	for ; len(x) > 4096; x = x[4096:] {
		total += float64(k.set.SumRow(x[:4096]))
	}
	return float32(total + float64(k.set.SumRow(x)))
}

// sideBySide is the number of elements of short rows that are added up side by side.
const sideBySide = 128

// addRows adds the rows of x, as long as y, to y. It uses sideBySide elements of scratch memory.
func (k kernels) addRows(y, x, scratch []float32) {
	switch {
	case len(y) == 1:
		y[0] += k.sumRow(x)
		return
	case len(y) <= sideBySide/2 && len(x) >= 2*sideBySide:
		wide := scratch[:sideBySide/len(y)*len(y)]
		clear(wide)
		head := len(x) / len(wide) * len(wide)
		k.set.SumColumns(wide, x[:head])
		k.set.SumColumns(y, wide)
		x = x[head:]
	}
	k.set.SumColumns(y, x)
}

// of is the kernel of an elementwise node.
func (k kernels) of(n *node) func(dst, a, b, c []float32) {
	if n.op != compute.OpTypeConvertDType {
		return k.step(n.op)
	}
	if n.out[0].shape.DType == dtypes.Bool {
		return func(dst, a, _, _ []float32) {
			for i, x := range a {
				dst[i] = truth(x != 0)
			}
		}
	}
	return func(dst, a, _, _ []float32) { copy(dst, a) } // loading converted it already
}
