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
	opNotEqual
	binaryOps
)

type unaryOp int

const (
	opSqrt unaryOp = iota
	opAbs
	opNeg
	opSign
	opRsqrt
	opFloor
	opCeil
	opRound
	opExp
	opLog
	unaryOps
)

func sameLength(dst []float32, in ...[]float32) {
	for _, x := range in {
		if len(x) != len(dst) {
			panic(fmt.Sprintf("kern: operands of %d and %d elements", len(dst), len(x)))
		}
	}
}

// binary runs the assembly of an operation, and reports whether there is any.
func (s *Set) binary(op binaryOp, dst, a, b []float32) bool {
	sameLength(dst, a, b)
	if s.asm != nil && len(dst) > 0 {
		s.asm.binary[op](&dst[0], &a[0], &b[0], len(dst))
	}
	return s.asm != nil
}

func (s *Set) unary(op unaryOp, dst, a []float32) bool {
	sameLength(dst, a)
	if s.asm != nil && len(dst) > 0 {
		s.asm.unary[op](&dst[0], &a[0], len(dst))
	}
	return s.asm != nil
}

const infinityBits = 0x7f800000

func truth(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// Add is dst[i] = a[i] + b[i].
func (s *Set) Add(dst, a, b []float32) {
	if s.binary(opAdd, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = x + b[i]
	}
}

// Sub is dst[i] = a[i] - b[i].
func (s *Set) Sub(dst, a, b []float32) {
	if s.binary(opSub, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = x - b[i]
	}
}

// Mul is dst[i] = a[i] · b[i].
func (s *Set) Mul(dst, a, b []float32) {
	if s.binary(opMul, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = x * b[i]
	}
}

// Div is dst[i] = a[i] / b[i].
func (s *Set) Div(dst, a, b []float32) {
	if s.binary(opDiv, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = x / b[i]
	}
}

// Max is dst[i] = max(a[i], b[i]), NaN if either is.
func (s *Set) Max(dst, a, b []float32) {
	if s.binary(opMax, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = max(x, b[i])
	}
}

// Min is dst[i] = min(a[i], b[i]), NaN if either is.
func (s *Set) Min(dst, a, b []float32) {
	if s.binary(opMin, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = min(x, b[i])
	}
}

// Gate is dst[i] = v[i] where x[i] > 0, else 0.
func (s *Set) Gate(dst, v, x []float32) {
	if s.binary(opGate, dst, v, x) {
		return
	}
	x = x[:len(v)]
	dst = dst[:len(v)]
	for i, v := range v {
		// Above 0 are the bits, as an integer, too, unless they are NaN's; a mask from them needs no branch.
		bits := int32(math.Float32bits(x[i]))
		mask := (-bits >> 31) &^ (bits >> 31) &^ ((infinityBits - bits) >> 31)
		dst[i] = math.Float32frombits(math.Float32bits(v) & uint32(mask))
	}
}

// Above is dst[i] = 1 where a[i] > b[i], else 0.
func (s *Set) Above(dst, a, b []float32) {
	if s.binary(opAbove, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = truth(x > b[i])
	}
}

// Equal is dst[i] = 1 where a[i] == b[i], else 0.
func (s *Set) Equal(dst, a, b []float32) {
	if s.binary(opEqual, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = truth(x == b[i])
	}
}

// Less is dst[i] = 1 where a[i] < b[i], else 0.
func (s *Set) Less(dst, a, b []float32) {
	if s.binary(opLess, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = truth(x < b[i])
	}
}

// LessEqual is dst[i] = 1 where a[i] ≤ b[i], else 0.
func (s *Set) LessEqual(dst, a, b []float32) {
	if s.binary(opLessEqual, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = truth(x <= b[i])
	}
}

// NotEqual is dst[i] = 1 where a[i] ≠ b[i] or either is NaN, else 0.
func (s *Set) NotEqual(dst, a, b []float32) {
	if s.binary(opNotEqual, dst, a, b) {
		return
	}
	b = b[:len(a)]
	dst = dst[:len(a)]
	for i, x := range a {
		dst[i] = truth(x != b[i])
	}
}

// Sqrt is dst[i] = √a[i].
func (s *Set) Sqrt(dst, a []float32) {
	if s.unary(opSqrt, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = float32(math.Sqrt(float64(x)))
	}
}

// Rsqrt is dst[i] = 1/√a[i], the root and the quotient each rounded: within 1.5 units in the last place.
func (s *Set) Rsqrt(dst, a []float32) {
	if s.unary(opRsqrt, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = 1 / float32(math.Sqrt(float64(x)))
	}
}

// Floor is dst[i] = ⌊a[i]⌋.
func (s *Set) Floor(dst, a []float32) {
	if s.unary(opFloor, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = float32(math.Floor(float64(x)))
	}
}

// Ceil is dst[i] = ⌈a[i]⌉.
func (s *Set) Ceil(dst, a []float32) {
	if s.unary(opCeil, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = float32(math.Ceil(float64(x)))
	}
}

// Round is dst[i] = a[i] rounded to the nearest whole number, to the even one of two.
func (s *Set) Round(dst, a []float32) {
	if s.unary(opRound, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = float32(math.RoundToEven(float64(x)))
	}
}

// Abs is dst[i] = |a[i]|.
func (s *Set) Abs(dst, a []float32) {
	if s.unary(opAbs, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = math.Float32frombits(math.Float32bits(x) &^ (1 << 31))
	}
}

// Neg is dst[i] = -a[i].
func (s *Set) Neg(dst, a []float32) {
	if s.unary(opNeg, dst, a) {
		return
	}
	for i, x := range a {
		dst[i] = -x
	}
}

// Sign is dst[i] = 1 where a[i] > 0, -1 where a[i] < 0, and a[i] itself, a zero or NaN, elsewhere.
func (s *Set) Sign(dst, a []float32) {
	if s.unary(opSign, dst, a) {
		return
	}
	for i, x := range a {
		switch {
		case x > 0:
			x = 1
		case x < 0:
			x = -1
		}
		dst[i] = x
	}
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

// Clamp is dst[i] = min(max(x[i], lo[i]), hi[i]), NaN if any of the three is.
func (s *Set) Clamp(dst, lo, x, hi []float32) {
	sameLength(dst, lo, x, hi)
	if len(dst) == 0 {
		return
	}
	if s.asm != nil {
		s.asm.clamp(&dst[0], &lo[0], &x[0], &hi[0], len(dst))
		return
	}
	for i, v := range x {
		dst[i] = min(max(v, lo[i]), hi[i])
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
	if len(x) < 16 { // the classes of a small data set
		var sum float32
		for _, v := range x {
			sum += v
		}
		return sum
	}
	var y [1]float32
	s.SumColumns(y[:], x)
	return y[0]
}
