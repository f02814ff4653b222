package main

import (
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
	for _, g := range isas(c) {
		e := elementwise{g, tails, one, signBit}
		e.generate()
	}
}

type elementwise struct {
	isa
	tails, one, signBit operand.Mem
}

// The predicates of a comparison, ordered and quiet unless they say else.
const (
	equal     = 0
	less      = 17
	lessEqual = 18
	unordered = 3
	greater   = 30
)

func (e elementwise) generate() {
	// Registers 0 to 2 are the operands, the result goes to 0; 4 to 6 are scratch; 8 and 9 hold constants.
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
		e.choose(unordered, a, a, a, e.v(4))
	})
	e.kernel("min", "min(a[i], b[i]), NaN if either is", 2, nil, func() {
		e.VMINPS(b, a, e.v(4))
		e.choose(unordered, a, a, a, e.v(4))
	})
	e.kernel("gate", "a[i] if b[i] > 0, else 0", 2, zeros, func() { e.choose(greater, b, zero, a, zero) })
	e.kernel("above", "1 if a[i] > b[i], else 0", 2, ones, func() { e.choose(greater, a, b, one, zero) })
	e.kernel("equal", "1 if a[i] == b[i], else 0", 2, ones, func() { e.choose(equal, a, b, one, zero) })
	e.kernel("less", "1 if a[i] < b[i], else 0", 2, ones, func() { e.choose(less, a, b, one, zero) })
	e.kernel("lessEqual", "1 if a[i] <= b[i], else 0", 2, ones, func() { e.choose(lessEqual, a, b, one, zero) })
	e.kernel("selectBy", "b[i] if a[i] != 0, else c[i]", 3, zeros, func() { e.choose(equal, a, zero, c, b) })
	e.kernel("sqrt", "√a[i]", 1, nil, func() { e.VSQRTPS(a, a) })
	signs := func() { e.VBROADCASTSS(e.signBit, one) }
	e.kernel("abs", "|a[i]|", 1, signs, func() { e.bits("andn", a, one, a) })
	e.kernel("neg", "-a[i]", 1, signs, func() { e.bits("xor", a, one, a) })
	e.kernel("sign", "1 if a[i] > 0, -1 if a[i] < 0, else a[i]", 1, func() {
		ones()
		e.VSUBPS(one, zero, e.v(10))
	}, func() {
		e.choose(greater, a, zero, one, a)
		e.choose(less, a, zero, e.v(10), a)
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

// choose puts yes into register 0 where x compares with y, and no elsewhere. It uses register 5 or K2.
func (e elementwise) choose(predicate uint64, x, y, yes, no reg.VecPhysical) {
	if e.wide() {
		e.VCMPPS(operand.Imm(predicate), y, x, reg.K2)
		e.VBLENDMPS(yes, no, reg.K2, e.v(0))
		return
	}
	e.VCMPPS(operand.Imm(predicate), y, x, e.v(5))
	e.VBLENDVPS(e.v(5), yes, no, e.v(0))
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
