package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// heldTerms is how many rows of a vector of b stay in registers, of the wide set only; heldRows rows of products are made
// together, enough to hide the latency of a multiply-add.
const heldTerms, heldRows = 16, 8

func heldFile(c *build.Context) {
	for _, g := range isas(c) {
		if g.wide() {
			gemmHeld(g)
		}
	}
}

// gemmHeld is gemm for 16 terms and one vector of columns, whose b is loaded once for all rows of a product.
func gemmHeld(g isa) {
	g.fn("gemmHeld", "(rows int, a *float32, aRow int, b *float32, c *float32, cRow, count, aStep, bStep, cStep int, ahead *float32, aheadStep int)",
		"gemmHeld"+g.name+" computes, for t in [0,count), r in [0,rows) and j in [0,16), with count and rows positive,",
		"",
		"	c[t*cStep + r*cRow + j] = Σ_{l<16} a[t*aStep + r*aRow + l] * b[t*bStep + l*16 + j]",
		"",
		"With every eight rows it fetches a line from ahead into the second-level cache, which then moves by aheadStep bytes.")
	b := func(l int) reg.VecPhysical { return g.v(l) }
	sum := func(r int) reg.VecPhysical { return g.v(heldTerms + r) }
	aRow, cRow := g.floats("aRow", reg.R8), g.floats("cRow", reg.R9)
	aRow3, cRow3 := reg.R10, reg.R11
	g.LEAQ(at(aRow, aRow, 2), aRow3)
	g.LEAQ(at(cRow, cRow, 2), cRow3)
	a, c := []reg.GPPhysical{reg.RAX, reg.RBX}, []reg.GPPhysical{reg.RCX, reg.RDX}
	left, tmp, ahead := reg.RSI, reg.RDI, g.arg("ahead", reg.R12)
	// row is where an element of row r is, counted from two bases four rows apart.
	row := func(bases []reg.GPPhysical, one, three reg.GPPhysical, r, element int) operand.Mem {
		m := operand.Mem{Base: bases[r/4], Disp: 4 * element}
		switch r % 4 {
		case 1, 2:
			m.Index, m.Scale = one, uint8(r%4)
		case 3:
			m.Index, m.Scale = three, 1
		}
		return m
	}
	for _, s := range []string{"aStep", "bStep", "cStep"} {
		g.SHLQ(operand.Imm(2), g.slot(s))
	}
	some := func(rows int) {
		for r := range rows {
			g.zero(sum(r))
		}
		for l := range heldTerms {
			for r := range rows {
				g.VFMADD231PS_BCST(row(a, aRow, aRow3, r, l), b(l), sum(r))
			}
		}
		for r := range rows {
			g.VMOVUPS(sum(r), row(c, cRow, cRow3, r, 0))
		}
	}

	g.Label("product")
	g.arg("b", tmp)
	for l := range heldTerms {
		g.VMOVUPS(operand.Mem{Base: tmp, Disp: l * g.bytes()}, b(l))
	}
	g.arg("a", a[0])
	g.arg("c", c[0])
	g.arg("rows", left)
	g.SUBQ(operand.Imm(heldRows), left)
	g.JLT(operand.LabelRef("few"))
	g.Label("eight")
	g.PREFETCHT1(deref(ahead))
	g.ADDQ(g.slot("aheadStep"), ahead)
	g.LEAQ(at(a[0], aRow, 4), a[1])
	g.LEAQ(at(c[0], cRow, 4), c[1])
	some(heldRows)
	g.LEAQ(at(a[0], aRow, 8), a[0])
	g.LEAQ(at(c[0], cRow, 8), c[0])
	g.SUBQ(operand.Imm(heldRows), left)
	g.JGE(operand.LabelRef("eight"))
	g.Label("few")
	g.ADDQ(operand.Imm(heldRows), left)
	g.JE(operand.LabelRef("next"))
	g.Label("one")
	some(1)
	g.ADDQ(aRow, a[0])
	g.ADDQ(cRow, c[0])
	g.DECQ(left)
	g.JNE(operand.LabelRef("one"))
	g.Label("next")
	for _, p := range []string{"a", "b", "c"} {
		g.MOVQ(g.slot(p+"Step"), tmp)
		g.ADDQ(tmp, g.slot(p))
	}
	g.DECQ(g.slot("count"))
	g.JNE(operand.LabelRef("product"))
	g.VZEROUPPER()
	g.RET()
}
