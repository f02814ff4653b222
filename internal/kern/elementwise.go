package kern

import (
	"fmt"
	"math"
)

// The elementwise kernels work on whole slices of one length; dst may be one of the operands. They panic if lengths
// differ. NaN stays NaN in arithmetic, and makes comparisons false.

type binaryOp int

const (
	opAdd binaryOp = iota
	opSub
	opMul
	opDiv
	opMax
	opMin
	opGate
	opAbove
	opEqual
	opLess
	opLessEqual
	binaryOps
)

type unaryOp int

const (
	opSqrt unaryOp = iota
	opAbs
	opNeg
	opSign
	unaryOps
)

func sameLength(dst []float32, in ...[]float32) {
	for _, x := range in {
		if len(x) != len(dst) {
			panic(fmt.Sprintf("kern: operands of %d and %d elements", len(dst), len(x)))
		}
	}
}

func (s *Set) binary(op binaryOp, dst, a, b []float32, f func(x, y float32) float32) {
	sameLength(dst, a, b)
	if len(dst) == 0 {
		return
	}
	if s.asm != nil {
		s.asm.binary[op](&dst[0], &a[0], &b[0], len(dst))
		return
	}
	for i, x := range a {
		dst[i] = f(x, b[i])
	}
}

func (s *Set) unary(op unaryOp, dst, a []float32, f func(x float32) float32) {
	sameLength(dst, a)
	if len(dst) == 0 {
		return
	}
	if s.asm != nil {
		s.asm.unary[op](&dst[0], &a[0], len(dst))
		return
	}
	for i, x := range a {
		dst[i] = f(x)
	}
}

func truth(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// Add is dst[i] = a[i] + b[i].
func (s *Set) Add(dst, a, b []float32) {
	s.binary(opAdd, dst, a, b, func(x, y float32) float32 { return x + y })
}

// Sub is dst[i] = a[i] - b[i].
func (s *Set) Sub(dst, a, b []float32) {
	s.binary(opSub, dst, a, b, func(x, y float32) float32 { return x - y })
}

// Mul is dst[i] = a[i] · b[i].
func (s *Set) Mul(dst, a, b []float32) {
	s.binary(opMul, dst, a, b, func(x, y float32) float32 { return x * y })
}

// Div is dst[i] = a[i] / b[i].
func (s *Set) Div(dst, a, b []float32) {
	s.binary(opDiv, dst, a, b, func(x, y float32) float32 { return x / y })
}

// Max is dst[i] = max(a[i], b[i]), NaN if either is.
func (s *Set) Max(dst, a, b []float32) {
	s.binary(opMax, dst, a, b, func(x, y float32) float32 { return max(x, y) })
}

// Min is dst[i] = min(a[i], b[i]), NaN if either is.
func (s *Set) Min(dst, a, b []float32) {
	s.binary(opMin, dst, a, b, func(x, y float32) float32 { return min(x, y) })
}

// Gate is dst[i] = v[i] where x[i] > 0, else 0.
func (s *Set) Gate(dst, v, x []float32) {
	s.binary(opGate, dst, v, x, func(v, x float32) float32 {
		if x > 0 {
			return v
		}
		return 0
	})
}

// Above is dst[i] = 1 where a[i] > b[i], else 0.
func (s *Set) Above(dst, a, b []float32) {
	s.binary(opAbove, dst, a, b, func(x, y float32) float32 { return truth(x > y) })
}

// Equal is dst[i] = 1 where a[i] == b[i], else 0.
func (s *Set) Equal(dst, a, b []float32) {
	s.binary(opEqual, dst, a, b, func(x, y float32) float32 { return truth(x == y) })
}

// Less is dst[i] = 1 where a[i] < b[i], else 0.
func (s *Set) Less(dst, a, b []float32) {
	s.binary(opLess, dst, a, b, func(x, y float32) float32 { return truth(x < y) })
}

// LessEqual is dst[i] = 1 where a[i] ≤ b[i], else 0.
func (s *Set) LessEqual(dst, a, b []float32) {
	s.binary(opLessEqual, dst, a, b, func(x, y float32) float32 { return truth(x <= y) })
}

// Sqrt is dst[i] = √a[i].
func (s *Set) Sqrt(dst, a []float32) {
	s.unary(opSqrt, dst, a, func(x float32) float32 { return float32(math.Sqrt(float64(x))) })
}

// Abs is dst[i] = |a[i]|.
func (s *Set) Abs(dst, a []float32) {
	s.unary(opAbs, dst, a, func(x float32) float32 { return float32(math.Abs(float64(x))) })
}

// Neg is dst[i] = -a[i].
func (s *Set) Neg(dst, a []float32) { s.unary(opNeg, dst, a, func(x float32) float32 { return -x }) }

// Sign is dst[i] = 1 where a[i] > 0, -1 where a[i] < 0, and a[i] itself, a zero or NaN, elsewhere.
func (s *Set) Sign(dst, a []float32) {
	s.unary(opSign, dst, a, func(x float32) float32 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return x
	})
}

// Select is dst[i] = a[i] where c[i] ≠ 0, else b[i].
func (s *Set) Select(dst, c, a, b []float32) {
	sameLength(dst, c, a, b)
	if len(dst) == 0 {
		return
	}
	if s.asm != nil {
		s.asm.selectBy(&dst[0], &c[0], &a[0], &b[0], len(dst))
		return
	}
	for i, x := range c {
		if x != 0 {
			dst[i] = a[i]
		} else {
			dst[i] = b[i]
		}
	}
}

// narrow is the number of columns below which SumColumns takes several rows as one.
const narrow = 64

// SumColumns is y[j] += Σ_i x[i·len(y) + j]; len(x) is a multiple of len(y). The order of the sum depends on the lengths
// and the set.
func (s *Set) SumColumns(y, x []float32) {
	cols := len(y)
	if cols == 0 || len(x) == 0 {
		return
	}
	if len(x)%cols != 0 {
		panic(fmt.Sprintf("kern: %d elements are no rows of %d", len(x), cols))
	}
	if fold := narrow / cols; fold > 1 && len(x) >= 4*narrow {
		wide := make([]float32, fold*cols)
		head := len(x) / len(wide) * len(wide)
		s.sumColumns(wide, x[:head])
		s.sumColumns(y, wide)
		x = x[head:]
	}
	s.sumColumns(y, x)
}

func (s *Set) sumColumns(y, x []float32) {
	if len(x) == 0 {
		return
	}
	if s.asm != nil {
		s.asm.sumColumns(&y[0], &x[0], len(x)/len(y), len(y))
		return
	}
	for ; len(x) > 0; x = x[len(y):] {
		for j, v := range x[:len(y)] {
			y[j] += v
		}
	}
}

// SumRow is Σ x[i].
func (s *Set) SumRow(x []float32) float32 {
	var y [1]float32
	s.SumColumns(y[:], x)
	return y[0]
}
