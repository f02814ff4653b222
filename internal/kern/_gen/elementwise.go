package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func elementwiseFile(c *build.Context) {
	tails := tailMasks(c)
	one := constant(c, "one", 1)
	signBit := c.StaticGlobal("signBit")
	c.DataAttributes(8 | 16) // RODATA|NOPTR
	c.AppendDatum(operand.U32(1 << 31))
	vectors := map[uint32]operand.Mem{}
	for _, g := range isas(c) {
		e := elementwise{g, tails, one, signBit, vectors}
		e.generate()
	}
}

type elementwise struct {
	isa
	tails, one, signBit operand.Mem
	vectors             map[uint32]operand.Mem // by the bits of their elements
}

// words is a vector of sixteen equal words in read-only memory. Functions with more constants than registers read them there.
func (e elementwise) words(bits uint32) operand.Mem {
	m, ok := e.vectors[bits]
	if !ok {
		m = e.StaticGlobal(fmt.Sprintf("vector%08x", bits))
		e.DataAttributes(8 | 16) // RODATA|NOPTR
		for range 16 {
			e.AppendDatum(operand.U32(bits))
		}
		e.vectors[bits] = m
	}
	return m
}

func (e elementwise) numbers(v float32) operand.Mem { return e.words(math.Float32bits(v)) }

// The predicates of a comparison, ordered and quiet unless they say else.
const (
	equal           = 0
	less            = 17
	lessEqual       = 18
	unordered       = 3
	notEqual        = 4  // or unordered
	notGreaterEqual = 25 // or unordered
	greater         = 30
)

func (e elementwise) generate() {
	// Registers 0 to 2 are the operands, the result goes to 0; 3 to 7 are scratch; 8 to 10 hold constants.
	a, b, c := e.v(0), e.v(1), e.v(2)
	zero, one := e.v(8), e.v(9)
	zeros := func() { e.zero(zero) }
	ones := func() {
		e.zero(zero)
		e.VBROADCASTSS(e.one, one)
	}
	e.kernel("add", "a[i] + b[i]", 2, nil, func() { e.VADDPS(b, a, a) })
	e.kernel("sub", "a[i] - b[i]", 2, nil, func() { e.VSUBPS(b, a, a) })
	e.kernel("mul", "a[i] * b[i]", 2, nil, func() { e.VMULPS(b, a, a) })
	e.kernel("div", "a[i] / b[i]", 2, nil, func() { e.VDIVPS(b, a, a) })
	// The instructions return their second operand where either is NaN; so the first is put back where it is.
	e.kernel("max", "max(a[i], b[i]), NaN if either is", 2, nil, func() {
		e.VMAXPS(b, a, e.v(4))
		e.choose(unordered, a, a, a, e.v(4), a)
	})
	e.kernel("min", "min(a[i], b[i]), NaN if either is", 2, nil, func() {
		e.VMINPS(b, a, e.v(4))
		e.choose(unordered, a, a, a, e.v(4), a)
	})
	e.kernel("gate", "a[i] if b[i] > 0, else 0", 2, zeros, func() { e.choose(greater, b, zero, a, zero, a) })
	e.kernel("above", "1 if a[i] > b[i], else 0", 2, ones, func() { e.choose(greater, a, b, one, zero, a) })
	e.kernel("equal", "1 if a[i] == b[i], else 0", 2, ones, func() { e.choose(equal, a, b, one, zero, a) })
	e.kernel("less", "1 if a[i] < b[i], else 0", 2, ones, func() { e.choose(less, a, b, one, zero, a) })
	e.kernel("lessEqual", "1 if a[i] <= b[i], else 0", 2, ones, func() { e.choose(lessEqual, a, b, one, zero, a) })
	e.kernel("notEqual", "1 if a[i] != b[i], else 0", 2, ones, func() { e.choose(notEqual, a, b, one, zero, a) })
	e.kernel("selectBy", "b[i] if a[i] != 0, else c[i]", 3, zeros, func() { e.choose(equal, a, zero, c, b, a) })
	e.kernel("clamp", "min(max(b[i], a[i]), c[i]), NaN if any is", 3, nil, func() {
		t := e.v(4)
		e.VMAXPS(b, a, t)
		e.choose(unordered, a, a, a, t, t)
		e.VMINPS(c, t, a)
		e.choose(unordered, t, t, t, a, a)
	})
	e.kernel("sqrt", "√a[i]", 1, nil, func() { e.VSQRTPS(a, a) })
	e.kernel("rsqrt", "1/√a[i]", 1, ones, func() {
		e.VSQRTPS(a, a)
		e.VDIVPS(a, one, a)
	})
	e.kernel("floor", "the largest whole number that is not above a[i]", 1, nil, func() { e.round(1, a) })
	e.kernel("ceil", "the smallest whole number that is not below a[i]", 1, nil, func() { e.round(2, a) })
	e.kernel("round", "the whole number nearest to a[i], the even one of two", 1, nil, func() { e.round(0, a) })
	e.kernel("exp", "exp(a[i]), as the function exp does", 1, func() {
		e.VBROADCASTSS(e.numbers(89), e.v(8))
		e.VBROADCASTSS(e.numbers(-104), e.v(9))
	}, e.exp)
	e.kernel("log", "log(a[i]), as the function log does", 1, zeros, e.log)
	signs := func() { e.VBROADCASTSS(e.signBit, one) }
	e.kernel("abs", "|a[i]|", 1, signs, func() { e.bits("andn", a, one, a) })
	e.kernel("neg", "-a[i]", 1, signs, func() { e.bits("xor", a, one, a) })
	e.kernel("sign", "1 if a[i] > 0, -1 if a[i] < 0, else a[i]", 1, func() {
		ones()
		e.VSUBPS(one, zero, e.v(10))
	}, func() {
		e.choose(greater, a, zero, one, a, a)
		e.choose(less, a, zero, e.v(10), a, a)
	})
	e.sumColumns()
}

// bits is x op mask; andn clears the mask's bits.
func (e elementwise) bits(op string, x, mask, out reg.VecPhysical) {
	switch {
	case op == "andn" && e.wide():
		e.VPANDND(x, mask, out)
	case op == "andn":
		e.VANDNPS(x, mask, out)
	case e.wide():
		e.VPXORD(x, mask, out)
	default:
		e.VXORPS(x, mask, out)
	}
}

// choose is yes where x compares with y, and no elsewhere; y and yes may be in memory. It uses register 5 or K2.
func (e elementwise) choose(predicate uint64, x reg.VecPhysical, y, yes operand.Op, no, out reg.VecPhysical) {
	if e.wide() {
		e.VCMPPS(operand.Imm(predicate), y, x, reg.K2)
		e.VBLENDMPS(yes, no, reg.K2, out)
		return
	}
	e.VCMPPS(operand.Imm(predicate), y, x, e.v(5))
	e.VBLENDVPS(e.v(5), yes, no, out)
}

// round rounds to whole numbers: 0 to the nearest, the even one of two, 1 down, 2 up.
func (e elementwise) round(mode uint64, x reg.VecPhysical) {
	if e.wide() {
		e.VRNDSCALEPS(operand.Imm(mode), x, x)
	} else {
		e.VROUNDPS(operand.Imm(mode), x, x)
	}
}

// horner is ((c[n-1]·x + c[n-2])·x + ...)·x + c[0], every product and sum rounded.
func (e elementwise) horner(coefficients []float32, x, out reg.VecPhysical) {
	last := len(coefficients) - 1
	e.VMOVUPS(e.numbers(coefficients[last]), out)
	for i := last - 1; i >= 0; i-- {
		e.VMULPS(x, out, out)
		e.VADDPS(e.numbers(coefficients[i]), out, out)
	}
}

// The coefficients are those in ../exp.go, where the method is explained.
var (
	expCoefficients = []float32{0x1p-1, 0x1.555554p-3, 0x1.55548cp-5, 0x1.111274p-7, 0x1.6d8eeep-10, 0x1.9f0716p-13}
	logCoefficients = []float32{0x1.555546p-2, -0x1.ffffeep-3, 0x1.99a546p-3, -0x1.5562e4p-3, 0x1.2332cp-3, -0x1.fb432ap-4,
		0x1.e650a2p-4, -0x1.e2e9b4p-4, 0x1.1b42c2p-4}
)

const (
	ln2Hi = 0x1.63p-1
	ln2Lo = -0x1.bd0106p-13
	whole = 0x1.8p23
)

// exp makes x its exponential; register 8 has 89 and register 9 has -104.
func (e elementwise) exp() {
	x, z, n, t, p := e.v(0), e.v(1), e.v(2), e.v(3), e.v(4)
	e.VMINPS(x, e.v(8), x) // NaN stays
	e.VMAXPS(x, e.v(9), x)
	e.VMULPS(e.numbers(math.Log2E), x, z)
	e.VADDPS(e.numbers(whole), z, z)
	e.VSUBPS(e.numbers(whole), z, n)
	e.VMULPS(e.numbers(ln2Hi), n, t)
	e.VSUBPS(t, x, x)
	e.VMULPS(e.numbers(ln2Lo), n, t)
	e.VSUBPS(t, x, x) // r
	e.horner(expCoefficients, x, p)
	e.VMULPS(x, x, t)
	e.VMULPS(p, t, t)
	e.VADDPS(t, x, x)
	e.VADDPS(e.numbers(1), x, x)
	if e.wide() {
		e.VSCALEFPS(n, x, x)
		return
	}
	e.VPSUBD(e.numbers(whole), z, z) // n as an integer
	e.VPSRAD(operand.Imm(1), z, n)
	e.VPSUBD(n, z, z)
	for _, half := range []reg.VecPhysical{n, z} {
		e.VPADDD(e.words(127), half, half)
		e.VPSLLD(operand.Imm(23), half, half)
		e.VMULPS(half, x, x)
	}
}

// log makes x its natural logarithm; register 8 has zeros.
func (e elementwise) log() {
	x, u, k, f, t, s, p := e.v(0), e.v(1), e.v(2), e.v(3), e.v(4), e.v(6), e.v(7)
	smallest := e.numbers(0x1p-126)
	e.VMULPS(e.numbers(0x1p23), x, u)
	e.choose(notGreaterEqual, x, smallest, e.numbers(-23), e.v(8), k)
	e.VMOVAPS(x, t)
	e.choose(notGreaterEqual, x, smallest, u, t, u)
	root := e.numbers(math.Sqrt2 / 2)
	e.VPSUBD(root, u, t)
	e.VPSRAD(operand.Imm(23), t, t)
	e.VPSLLD(operand.Imm(23), t, f)
	e.VPSUBD(f, u, f) // m
	e.VCVTDQ2PS(t, t)
	e.VADDPS(t, k, k)
	e.VSUBPS(e.numbers(1), f, f)
	e.horner(logCoefficients, f, p)
	e.VMULPS(f, f, s)
	e.VMULPS(f, s, t)
	e.VMULPS(p, t, p)
	e.VMULPS(e.numbers(ln2Lo), k, t)
	e.VADDPS(t, p, p)
	e.VMULPS(e.numbers(0.5), s, s)
	e.VSUBPS(s, p, p)
	e.VADDPS(f, p, p)
	e.VMULPS(e.numbers(ln2Hi), k, t)
	e.VADDPS(t, p, p)
	e.choose(greater, x, e.numbers(math.MaxFloat32), x, p, p)
	e.choose(notGreaterEqual, x, e.v(8), e.numbers(float32(math.NaN())), p, p)
	e.choose(equal, x, e.v(8), e.numbers(float32(math.Inf(-1))), p, x)
}

func (e elementwise) kernel(name, result string, operands int, constants, body func()) {
	params := []string{"a", "a, b", "a, b, c"}[operands-1]
	e.fn("elementwise"+string(name[0]-'a'+'A')+name[1:], "(dst, "+params+" *float32, n int)",
		"elementwise"+string(name[0]-'a'+'A')+name[1:]+e.name+" computes, for i in [0,n),",
		"",
		"	dst[i] = "+result)
	dst, n := e.arg("dst", reg.RDI), e.arg("n", reg.R11)
	in := []reg.GPPhysical{reg.RSI, reg.RBX, reg.R8}[:operands]
	for i, p := range in {
		e.arg(string(rune('a'+i)), p)
	}
	off, whole, total := reg.R12, reg.R13, reg.R15
	e.wholeVectors(n, whole, total)
	e.tailMask(n, e.tails)
	if constants != nil {
		constants()
	}
	e.byVector(off, whole, total, func(l lane, _ string) {
		for i, p := range in {
			l.load(at(p, off, 1), e.v(i))
		}
		body()
		l.store(e.v(0), at(dst, off, 1))
	})
}

// sumColumns adds rows four at a time, so that additions need not wait for one another.
func (e elementwise) sumColumns() {
	e.fn("sumColumns", "(y, x *float32, rows, cols int)",
		"sumColumns"+e.name+" computes, for j in [0,cols), with rows positive,",
		"",
		"	y[j] += Σ_{i<rows} x[i*cols + j]",
		"",
		"as the sum of rows 0, 4, 8, ... plus that of rows 1, 5, ..., and so on.")
	y, cols := e.arg("y", reg.RDI), e.arg("cols", reg.R11)
	off, whole, total := reg.R12, reg.R13, reg.R15
	e.wholeVectors(cols, whole, total)
	e.tailMask(cols, e.tails)
	x, rows, three := reg.RSI, reg.R10, reg.R9
	e.LEAQ(at(total, total, 2), three)
	e.byVector(off, whole, total, func(l lane, prefix string) {
		e.MOVQ(e.slot("x"), x)
		e.ADDQ(off, x)
		e.MOVQ(e.slot("rows"), rows)
		for i := range 4 {
			e.zero(e.v(i))
		}
		e.CMPQ(rows, operand.Imm(4))
		e.JLT(operand.LabelRef(prefix + "Rest"))
		e.Label(prefix + "Four")
		for i, m := range []operand.Mem{deref(x), at(x, total, 1), at(x, total, 2), at(x, three, 1)} {
			if l.tail {
				l.load(m, e.v(4))
				e.VADDPS(e.v(4), e.v(i), e.v(i))
			} else {
				e.VADDPS(m, e.v(i), e.v(i))
			}
		}
		e.LEAQ(at(x, total, 4), x)
		e.SUBQ(operand.Imm(4), rows)
		e.CMPQ(rows, operand.Imm(4))
		e.JGE(operand.LabelRef(prefix + "Four"))
		e.Label(prefix + "Rest")
		for i := range 3 {
			e.CMPQ(rows, operand.Imm(uint64(i+1)))
			e.JLT(operand.LabelRef(prefix + "Sum"))
			l.load(deref(x), e.v(4))
			e.VADDPS(e.v(4), e.v(i), e.v(i))
			e.ADDQ(total, x)
		}
		e.Label(prefix + "Sum")
		e.VADDPS(e.v(1), e.v(0), e.v(0))
		e.VADDPS(e.v(3), e.v(2), e.v(2))
		e.VADDPS(e.v(2), e.v(0), e.v(0))
		l.load(at(y, off, 1), e.v(4))
		e.VADDPS(e.v(4), e.v(0), e.v(0))
		l.store(e.v(0), at(y, off, 1))
	})
}
