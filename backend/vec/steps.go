package vec

import (
	"maps"
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/adaad-go/adaad/internal/kern"
)

// Operations that GoMLX writes as several.
const (
	opAbove compute.OpType = -1 - iota // 1 where the first operand is greater than the second, else 0
	opGate                             // the first operand where the second is above 0, else 0
)

func truth(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// each makes a step of a function of one number.
func each(f func(float32) float32) func(dst, a, b, c []float32) {
	return func(dst, a, _, _ []float32) {
		dst = dst[:len(a)]
		for i, x := range a {
			dst[i] = f(x)
		}
	}
}

// wide makes a step of a function of one float64.
func wide(f func(float64) float64) func(dst, a, b, c []float32) {
	return func(dst, a, _, _ []float32) {
		dst = dst[:len(a)]
		for i, x := range a {
			dst[i] = float32(f(float64(x)))
		}
	}
}

// pair makes a step of a function of two numbers.
func pair(f func(x, y float32) float32) func(dst, a, b, c []float32) {
	return func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = f(x, b[i])
		}
	}
}

// steps are the elementwise operations: dst = op(a, b, c), element by element. NaN stays NaN.
var steps = map[compute.OpType]func(dst, a, b, c []float32){
	compute.OpTypeAdd: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = x + b[i]
		}
	},
	compute.OpTypeSub: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = x - b[i]
		}
	},
	compute.OpTypeMul: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = x * b[i]
		}
	},
	compute.OpTypeDiv: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = x / b[i]
		}
	},
	compute.OpTypeMax: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = max(x, b[i])
		}
	},
	compute.OpTypeMin: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			dst[i] = min(x, b[i])
		}
	},
	compute.OpTypePow: pair(func(x, y float32) float32 { return float32(math.Pow(float64(x), float64(y))) }),
	compute.OpTypeRem: pair(func(x, y float32) float32 { return float32(math.Mod(float64(x), float64(y))) }),

	compute.OpTypeAbs:   each(func(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }),
	compute.OpTypeNeg:   each(func(x float32) float32 { return -x }),
	compute.OpTypeSqrt:  wide(math.Sqrt),
	compute.OpTypeRsqrt: wide(func(x float64) float64 { return 1 / math.Sqrt(x) }),
	compute.OpTypeExp:   wide(math.Exp),
	compute.OpTypeExpm1: wide(math.Expm1),
	compute.OpTypeLog:   wide(math.Log),
	compute.OpTypeLog1p: wide(math.Log1p),
	compute.OpTypeTanh:  wide(math.Tanh),
	compute.OpTypeErf:   wide(math.Erf),
	compute.OpTypeSin:   wide(math.Sin),
	compute.OpTypeCos:   wide(math.Cos),
	compute.OpTypeFloor: wide(math.Floor),
	compute.OpTypeCeil:  wide(math.Ceil),
	compute.OpTypeRound: wide(math.RoundToEven),
	compute.OpTypeLogistic: wide(func(x float64) float64 {
		if x >= 0 {
			return 1 / (1 + math.Exp(-x))
		}
		e := math.Exp(x)
		return e / (1 + e)
	}),
	compute.OpTypeSign: each(func(x float32) float32 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return x // zeros keep their sign, NaN stays NaN
	}),

	compute.OpTypeEqual:          pair(func(x, y float32) float32 { return truth(x == y) }),
	compute.OpTypeNotEqual:       pair(func(x, y float32) float32 { return truth(x != y) }),
	compute.OpTypeGreaterThan:    pair(func(x, y float32) float32 { return truth(x > y) }),
	compute.OpTypeGreaterOrEqual: pair(func(x, y float32) float32 { return truth(x >= y) }),
	compute.OpTypeLessThan:       pair(func(x, y float32) float32 { return truth(x < y) }),
	compute.OpTypeLessOrEqual:    pair(func(x, y float32) float32 { return truth(x <= y) }),
	compute.OpTypeIsNaN:          each(func(x float32) float32 { return truth(x != x) }),
	compute.OpTypeIsFinite:       each(func(x float32) float32 { return truth(x-x == 0) }),
	compute.OpTypeLogicalAnd:     pair(func(x, y float32) float32 { return x * y }),
	compute.OpTypeLogicalOr:      pair(func(x, y float32) float32 { return max(x, y) }),
	compute.OpTypeLogicalXor:     pair(func(x, y float32) float32 { return truth(x != y) }),
	compute.OpTypeLogicalNot:     each(func(x float32) float32 { return 1 - x }),

	opAbove: pair(func(x, y float32) float32 { return truth(x > y) }),
	// Above 0 are the bits, as an integer, too; a mask from them needs no branch.
	opGate: func(dst, a, b, _ []float32) {
		dst, b = dst[:len(a)], b[:len(a)]
		for i, x := range a {
			bits := int32(math.Float32bits(b[i]))
			mask := (-bits >> 31) &^ (bits >> 31)
			dst[i] = math.Float32frombits(math.Float32bits(x) & uint32(mask))
		}
	},

	compute.OpTypeWhere: func(dst, a, b, c []float32) {
		for i, x := range a {
			if x != 0 {
				dst[i] = b[i]
			} else {
				dst[i] = c[i]
			}
		}
	},
	compute.OpTypeClamp: func(dst, a, b, c []float32) {
		for i, lo := range a {
			dst[i] = min(max(b[i], lo), c[i])
		}
	},
}

// kernels are the elementwise operations and sums of one instruction set.
type kernels struct {
	step       map[compute.OpType]func(dst, a, b, c []float32)
	sumColumns func(y, x []float32) // adds the rows of x, as long as y, to y
	sumRow     func(x []float32) float32
}

// kernelsOf takes from the set what it has in assembly.
func kernelsOf(set *kern.Set) kernels {
	if set.Name() == "generic" {
		return kernels{steps, sumColumns, sumRow}
	}
	table := maps.Clone(steps)
	for op, f := range map[compute.OpType]func(dst, a, b []float32){
		compute.OpTypeAdd: set.Add, compute.OpTypeSub: set.Sub, compute.OpTypeMul: set.Mul, compute.OpTypeDiv: set.Div,
		compute.OpTypeMax: set.Max, compute.OpTypeMin: set.Min, opGate: set.Gate, opAbove: set.Above,
		compute.OpTypeEqual: set.Equal, compute.OpTypeLessThan: set.Less, compute.OpTypeLessOrEqual: set.LessEqual,
		compute.OpTypeLogicalAnd: set.Mul, compute.OpTypeLogicalOr: set.Max,
	} {
		table[op] = func(dst, a, b, _ []float32) { f(dst, a, b) }
	}
	for op, f := range map[compute.OpType]func(dst, a, b []float32){
		compute.OpTypeGreaterThan: set.Less, compute.OpTypeGreaterOrEqual: set.LessEqual,
	} {
		table[op] = func(dst, a, b, _ []float32) { f(dst, b, a) }
	}
	for op, f := range map[compute.OpType]func(dst, a []float32){
		compute.OpTypeSqrt: set.Sqrt, compute.OpTypeAbs: set.Abs, compute.OpTypeNeg: set.Neg, compute.OpTypeSign: set.Sign,
	} {
		table[op] = func(dst, a, _, _ []float32) { f(dst, a) }
	}
	table[compute.OpTypeWhere] = set.Select
	return kernels{table, set.SumColumns, func(x []float32) float32 {
		var total float64 // of short sums, so that long ones stay exact enough
		for ; len(x) > 4096; x = x[4096:] {
			total += float64(set.SumRow(x[:4096]))
		}
		return float32(total + float64(set.SumRow(x)))
	}}
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
		k.sumColumns(wide, x[:head])
		k.sumColumns(y, wide)
		x = x[head:]
	}
	k.sumColumns(y, x)
}

// of is the kernel of an elementwise node.
func (k kernels) of(n *node) func(dst, a, b, c []float32) {
	if n.op != compute.OpTypeConvertDType {
		return k.step[n.op]
	}
	if n.out[0].shape.DType == dtypes.Bool {
		return each(func(x float32) float32 { return truth(x != 0) })
	}
	return func(dst, a, _, _ []float32) { copy(dst, a) } // loading converted it already
}
