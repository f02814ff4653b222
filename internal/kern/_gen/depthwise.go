package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func depthwiseFile(c *build.Context) {
	tails := tailMasks(c)
	for _, g := range isas(c) {
		depthwise(g, tails)
		depthwiseGrad(g, tails, 1)
		depthwiseGrad(g, tails, 3)
	}
}

// lane reads and writes whole vectors, or the tail of a row.
type lane struct {
	isa
	tail bool
}

func (l lane) load(m operand.Mem, x reg.VecPhysical) {
	switch {
	case !l.tail:
		l.VMOVUPS(m, x)
	case l.wide():
		l.VMOVUPS_Z(m, reg.K1, x)
	default:
		l.VMASKMOVPS(m, l.v(15), x)
	}
}

func (l lane) store(x reg.VecPhysical, m operand.Mem) {
	switch {
	case !l.tail:
		l.VMOVUPS(x, m)
	case l.wide():
		l.VMOVUPS(x, reg.K1, m)
	default:
		l.VMASKMOVPS(x, l.v(15), m)
	}
}

// multiplyAdd is acc += m·x, by way of t in a tail.
func (l lane) multiplyAdd(m operand.Mem, x, acc, t reg.VecPhysical) {
	if !l.tail {
		l.VFMADD231PS(m, x, acc)
		return
	}
	l.load(m, t)
	l.VFMADD231PS(t, x, acc)
}

// byVector emits body for whole vectors in a loop over off, the offset in bytes, and once more for the tail.
func (g isa) byVector(off, whole, total reg.GPPhysical, body func(l lane, prefix string)) {
	g.XORQ(off, off)
	g.CMPQ(whole, operand.Imm(0))
	g.JE(operand.LabelRef("tail"))
	g.Label("vector")
	body(lane{g, false}, "whole")
	g.ADDQ(operand.Imm(uint64(g.bytes())), off)
	g.CMPQ(off, whole)
	g.JLT(operand.LabelRef("vector"))
	g.Label("tail")
	g.CMPQ(whole, total)
	g.JE(operand.LabelRef("done"))
	body(lane{g, true}, "tail")
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

func depthwise(g isa, tails operand.Mem) {
	g.fn("depthwise", "(y *float32, yStep int, x *float32, xStep int, w *float32, taps *int, tapCount int, bias *float32, floor float32, count, cols int)",
		"depthwise"+g.name+" computes, for p in [0,count) and c in [0,cols), with count positive,",
		"",
		"	y[p*yStep + c] = max(floor, bias[c] + Σ_t x[p*xStep + taps[2*t] + c] * w[taps[2*t+1] + c])")
	yStep, xStep := g.floats("yStep", reg.R8), g.floats("xStep", reg.R9)
	taps := g.arg("taps", reg.RBX)
	cols := g.arg("cols", reg.R11)
	off, whole, total := reg.R12, reg.R13, reg.R15
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	y, x, w, tap, count := reg.RDI, reg.RSI, reg.RDX, reg.R10, reg.R11
	// The end of the taps takes the place of their number.
	g.MOVQ(g.slot("tapCount"), reg.RAX)
	g.SHLQ(operand.Imm(4), reg.RAX)
	g.ADDQ(taps, reg.RAX)
	g.MOVQ(reg.RAX, g.slot("tapCount"))
	weight, floor, t := g.v(12), g.v(13), g.v(14)
	g.VBROADCASTSS(g.slot("floor"), floor)
	g.byVector(off, whole, total, func(l lane, prefix string) {
		g.MOVQ(g.slot("y"), y)
		g.MOVQ(g.slot("x"), x)
		g.MOVQ(g.slot("w"), w)
		g.MOVQ(g.slot("count"), count)
		g.ADDQ(off, y)
		g.ADDQ(off, x)
		g.ADDQ(off, w)
		for _, pixels := range []int{8, 4, 1} {
			name := fmt.Sprintf("%s%d", prefix, pixels)
			g.CMPQ(count, operand.Imm(uint64(pixels)))
			g.JLT(operand.LabelRef(name + "End"))
			g.Label(name)
			g.MOVQ(g.slot("bias"), reg.RAX)
			l.load(at(reg.RAX, off, 1), g.v(0))
			for i := 1; i < pixels; i++ {
				g.VMOVAPS(g.v(0), g.v(i))
			}
			g.MOVQ(taps, tap)
			g.CMPQ(tap, g.slot("tapCount"))
			g.JE(operand.LabelRef(name + "Store"))
			g.Label(name + "Tap")
			g.MOVQ(deref(tap), reg.RAX)
			g.MOVQ(operand.Mem{Base: tap, Disp: 8}, reg.RCX)
			g.LEAQ(at(x, reg.RAX, 4), reg.RAX)
			l.load(at(w, reg.RCX, 4), weight)
			for i := range pixels {
				m := deref(reg.RAX)
				if i%2 == 1 {
					m = at(reg.RAX, xStep, 1)
				}
				if i > 0 && i%2 == 0 {
					g.LEAQ(at(reg.RAX, xStep, 2), reg.RAX)
				}
				l.multiplyAdd(m, weight, g.v(i), t)
			}
			g.ADDQ(operand.Imm(16), tap)
			g.CMPQ(tap, g.slot("tapCount"))
			g.JNE(operand.LabelRef(name + "Tap"))
			g.Label(name + "Store")
			for i := range pixels {
				g.VMAXPS(g.v(i), floor, g.v(i))
				l.store(g.v(i), deref(y))
				g.ADDQ(yStep, y)
				g.ADDQ(xStep, x)
			}
			g.SUBQ(operand.Imm(uint64(pixels)), count)
			g.CMPQ(count, operand.Imm(uint64(pixels)))
			g.JGE(operand.LabelRef(name))
			g.Label(name + "End")
		}
	})
}

// depthwiseGrad takes one tap, or three that share the loads of dy.
func depthwiseGrad(g isa, tails operand.Mem, taps int) {
	name := fmt.Sprintf("depthwiseGrad%d", taps)
	g.fn(name, "(dw *float32, x *float32, xStep int, dy *float32, dyStep int, taps *int, count, cols int)",
		fmt.Sprintf("%s%s computes, for t in [0,%d) and c in [0,cols), with count positive,", name, g.name, taps),
		"",
		"	dw[taps[2*t+1] + c] += Σ_{p<count} x[p*xStep + taps[2*t] + c] * dy[p*dyStep + c]")
	xStep, dyStep := g.floats("xStep", reg.R8), g.floats("dyStep", reg.R9)
	cols := g.arg("cols", reg.R11)
	off, whole, total := reg.R12, reg.R13, reg.R15
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	dy, tap := reg.RDI, reg.R10
	x := []reg.GPPhysical{reg.RAX, reg.RBX, reg.RSI}[:taps]
	count, tmp := reg.R11, reg.RCX
	acc := func(pixel, tap int) reg.VecPhysical { return g.v(pixel*taps + tap) }
	d, t := g.v(13), g.v(14)
	g.byVector(off, whole, total, func(l lane, prefix string) {
		g.MOVQ(g.slot("taps"), tap)
		for i, p := range x {
			g.MOVQ(operand.Mem{Base: tap, Disp: 16 * i}, p)
			g.SHLQ(operand.Imm(2), p)
			g.ADDQ(g.slot("x"), p)
			g.ADDQ(off, p)
		}
		g.MOVQ(g.slot("dy"), dy)
		g.ADDQ(off, dy)
		g.MOVQ(g.slot("count"), count)
		for p := range 4 {
			for i := range taps {
				g.zero(acc(p, i))
			}
		}
		for _, pixels := range []int{4, 1} {
			name := fmt.Sprintf("%s%d", prefix, pixels)
			g.CMPQ(count, operand.Imm(uint64(pixels)))
			g.JLT(operand.LabelRef(name + "End"))
			g.Label(name)
			for p := range pixels {
				l.load(deref(dy), d)
				g.ADDQ(dyStep, dy)
				for i := range taps {
					l.multiplyAdd(deref(x[i]), d, acc(p, i), t)
					g.ADDQ(xStep, x[i])
				}
			}
			g.SUBQ(operand.Imm(uint64(pixels)), count)
			g.CMPQ(count, operand.Imm(uint64(pixels)))
			g.JGE(operand.LabelRef(name))
			g.Label(name + "End")
		}
		for i := range taps {
			g.VADDPS(acc(1, i), acc(0, i), acc(0, i))
			g.VADDPS(acc(3, i), acc(2, i), acc(2, i))
			g.VADDPS(acc(2, i), acc(0, i), acc(0, i))
			g.MOVQ(operand.Mem{Base: tap, Disp: 16*i + 8}, tmp)
			g.SHLQ(operand.Imm(2), tmp)
			g.ADDQ(g.slot("dw"), tmp)
			l.load(at(tmp, off, 1), t)
			g.VADDPS(t, acc(0, i), acc(0, i))
			l.store(acc(0, i), at(tmp, off, 1))
		}
	})
}
