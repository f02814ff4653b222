package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// maxRows is the height of the largest tile. That of two vectors fills the registers with its accumulators, two vectors of b and
// a few broadcasts. Every product of a single vector loads an element of a: the more rows, the fewer loads beside these.
func maxRows(g isa, vecs int) int {
	switch {
	case !g.wide():
		return 6
	case vecs == 1:
		return 16
	}
	return 12
}

func gemmFile(c *build.Context) {
	bits := laneBits(c)
	for _, g := range isas(c) {
		for vecs := 1; vecs <= 2; vecs++ {
			for rows := 1; rows <= maxRows(g, vecs); rows++ {
				gemm(g, rows, vecs, nil, false)
				gemm(g, rows, vecs, &bits, false)
			}
		}
		if g.wide() {
			gemm(g, maxRows(g, 1), 1, nil, true)
		}
	}
}

// gemm keeps a tile of c in registers while it walks k. A row of a is reached from one of two base pointers (rows 0 and 8) and
// the first odd multiples of the stride, so a may be stored by rows or by columns. The terms come in runs: after each, the
// base pointers jump. With bits, those of masks, what becomes of the products is done while they are in registers. With columns, a is
// stored by columns, and then four rows load their elements of it together: a single vector's products would wait for loads.
func gemm(g isa, rows, vecs int, bits *operand.Mem, columns bool) {
	name, finishing := "gemm", ""
	doc := []string{fmt.Sprintf("computes, for t in [0,count), r in [0,%d) and j in [0,%d), with k, runs and count positive,", rows, vecs*g.lanes),
		"",
		"	c[t*cStep + r*cRow + j] = Σ_u Σ_l a[t*aStep + r*aRow + u*aRun + l*aCol] * b[t*bStep + (u*k+l)*bRow + j]",
		"",
		"with u in [0,runs) and aJump = 4*(aRun - k*aCol), and adds it to what is there if accumulate is not zero. With every term it",
		"fetches from ahead into the second-level cache, which then moves by aheadStep bytes. It repeats all that for strips: with b",
		"bStrip elements further and c and all the like as many columns, and fetches the next strip's b meanwhile, nothing in the last."}
	if bits != nil {
		name, finishing = "gemmFinish", ", y *float32, yRow int, bias, extra *float32, mask *uint16, maskRow int, floor float32"
		doc = []string{fmt.Sprintf("computes, for t in [0,count), r in [0,%d) and j in [0,%d), with k, runs and count positive and i = t*%d + r,", rows, vecs*g.lanes, rows),
			"",
			"	y[i*yRow + j] = max(floor, bias[j] + extra[i*yRow + j] + Σ_u Σ_l a[t*aStep + r*aRow + u*aRun + l*aCol] * b[t*bStep + (u*k+l)*bRow + j])",
			"",
			"with u in [0,runs) and aJump = 4*(aRun - k*aCol), and 0 where bit j%16 of mask[i*maskRow + j/16] is not set. The sum starts",
			"at c[t*cStep + r*cRow + j] if accumulate is not zero; extra and mask may be nil. It fetches from ahead and repeats as gemm does."}
	}
	if columns {
		name = "gemmColumns"
		doc[len(doc)-1] += " aRow is 1."
	}
	if g.pairs {
		doc = append(doc, "Elements of a and b are pairs of bfloat16, and a product of two is the sum of those of their halves.")
	}
	full := fmt.Sprintf("%s%dx%d", name, rows, vecs)
	doc[0] = full + g.name + " " + doc[0]
	g.fn(full, "(k, runs int, a *float32, aRow, aCol, aJump int, b *float32, bRow int, c *float32, cRow int, accumulate, count, aStep, bStep, cStep, strips, bStrip int, "+
		"ahead *float32, aheadStep int"+finishing+")", doc...)
	acc := func(r, v int) reg.VecPhysical { return g.v(r*vecs + v) }
	bv := func(v int) reg.VecPhysical { return g.v(rows*vecs + v) }
	scratch := rows*vecs + vecs
	spare := min(g.regs-scratch, 4)

	bases := []reg.GPPhysical{reg.RAX, reg.RBX}[:(rows+7)/8]
	aRow, aRow3, aRow5, aRow7 := g.floats("aRow", reg.R8), reg.RSI, reg.RDI, reg.R14
	aCol := g.floats("aCol", reg.R9)
	bRow, cRow := g.floats("bRow", reg.R11), g.floats("cRow", reg.R12)
	k, b, c, tmp := reg.RCX, reg.R10, reg.RDX, reg.R13
	a := func(r int) operand.Mem {
		base := bases[r/8]
		switch r % 8 {
		case 0:
			return deref(base)
		case 3:
			return at(base, aRow3, 1)
		case 5:
			return at(base, aRow5, 1)
		case 6:
			return at(base, aRow3, 2)
		case 7:
			return at(base, aRow7, 1)
		}
		return at(base, aRow, uint8(r%8))
	}
	g.arg("c", c)
	ahead := g.arg("ahead", reg.R15)

	// What changes in a strip starts anew in the next, so many bytes further.
	type change struct {
		param string
		bytes int
	}
	changes := []change{{"a", 0}, {"count", 0}, {"c", vecs * g.bytes()}}
	if bits != nil {
		changes = append(changes, change{"y", vecs * g.bytes()}, change{"extra", vecs * g.bytes()}, change{"mask", vecs * g.lanes / 8})
	}
	start := map[string]operand.Mem{}
	for _, s := range append(changes, change{param: "b"}) {
		start[s.param] = g.AllocLocal(8)
		g.arg(s.param, tmp)
		g.MOVQ(tmp, start[s.param])
	}

	g.Label("tile")
	g.arg("a", bases[0])
	if len(bases) > 1 {
		g.LEAQ(at(bases[0], aRow, 8), bases[1])
	}
	g.LEAQ(at(aRow, aRow, 2), aRow3)
	g.LEAQ(at(aRow, aRow, 4), aRow5)
	g.LEAQ(at(aRow3, aRow, 4), aRow7)
	g.arg("b", b)
	g.CMPQ(g.slot("accumulate"), operand.Imm(0))
	g.JNE(operand.LabelRef("load"))
	for r := range rows {
		for v := range vecs {
			g.zero(acc(r, v))
		}
	}
	g.JMP(operand.LabelRef("start"))
	g.Label("load")
	g.MOVQ(c, tmp)
	for r := range rows {
		for v := range vecs {
			g.VMOVUPS(operand.Mem{Base: tmp, Disp: v * g.bytes()}, acc(r, v))
		}
		if r < rows-1 {
			g.ADDQ(cRow, tmp)
		}
	}

	g.Label("start")
	runs := tmp
	g.arg("runs", runs)
	g.Label("run")
	g.arg("k", k)
	g.Label("loop")
	g.PREFETCHT1(deref(ahead))
	g.ADDQ(g.slot("aheadStep"), ahead)
	for v := range vecs {
		g.VMOVUPS(operand.Mem{Base: b, Disp: v * g.bytes()}, bv(v))
	}
	for r := range rows {
		if columns && r < 4 {
			four, x := g.v(scratch), g.v(scratch+1+r%2)
			if r == 0 {
				g.VBROADCASTF32X4(a(r), four)
			}
			g.VPERMILPS(operand.Imm(uint64(r*0x55)), four, x)
			g.VFMADD231PS(x, bv(0), acc(r, 0))
			continue
		}
		if vecs == 1 && g.wide() {
			g.multiplyAddOne(a(r), bv(0), acc(r, 0))
			continue
		}
		x := g.v(scratch + r%spare)
		g.VBROADCASTSS(a(r), x)
		for v := range vecs {
			g.multiplyAdd(x, bv(v), acc(r, v))
		}
	}
	for _, p := range bases {
		g.ADDQ(aCol, p)
	}
	g.ADDQ(bRow, b)
	g.DECQ(k)
	g.JNE(operand.LabelRef("loop"))
	for _, p := range bases {
		g.ADDQ(g.slot("aJump"), p)
	}
	g.DECQ(runs)
	g.JNE(operand.LabelRef("run"))

	if bits != nil {
		finishTile(g, rows, vecs, *bits, acc, bv)
	} else {
		g.MOVQ(c, tmp)
		for r := range rows {
			for v := range vecs {
				g.VMOVUPS(acc(r, v), operand.Mem{Base: tmp, Disp: v * g.bytes()})
			}
			if r < rows-1 {
				g.ADDQ(cRow, tmp)
			}
		}
	}
	for _, p := range []string{"a", "b"} {
		g.floats(p+"Step", tmp)
		g.ADDQ(tmp, g.slot(p))
	}
	g.floats("cStep", tmp)
	g.ADDQ(tmp, c)
	g.DECQ(g.slot("count"))
	g.JNE(operand.LabelRef("tile"))
	g.DECQ(g.slot("strips"))
	g.JE(operand.LabelRef("done"))
	for _, s := range changes {
		g.MOVQ(start[s.param], tmp)
		if s.param == "extra" || s.param == "mask" {
			g.TESTQ(tmp, tmp)
			g.JE(operand.LabelRef(s.param + "Nil"))
		}
		if s.bytes > 0 {
			g.ADDQ(operand.Imm(uint64(s.bytes)), tmp)
			g.MOVQ(tmp, start[s.param])
		}
		g.MOVQ(tmp, g.slot(s.param))
		if s.param == "extra" || s.param == "mask" {
			g.Label(s.param + "Nil")
		}
	}
	g.arg("c", c)
	if bits != nil {
		g.ADDQ(operand.Imm(uint64(vecs*g.bytes())), g.slot("bias"))
	}
	strip := g.floats("bStrip", reg.RAX)
	g.MOVQ(start["b"], ahead)
	g.ADDQ(strip, ahead)
	g.MOVQ(ahead, start["b"])
	g.MOVQ(ahead, g.slot("b"))
	g.CMPQ(g.slot("strips"), operand.Imm(1))
	g.JE(operand.LabelRef("last"))
	g.ADDQ(strip, ahead)
	g.JMP(operand.LabelRef("tile"))
	g.Label("last")
	g.XORQ(tmp, tmp)
	g.MOVQ(tmp, g.slot("aheadStep"))
	g.JMP(operand.LabelRef("tile"))
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

// finishTile adds to the products of a tile what is to be added, applies mask and floor, stores them in y and moves on to
// the rows below.
func finishTile(g isa, rows, vecs int, bits operand.Mem, acc func(r, v int) reg.VecPhysical, free func(v int) reg.VecPhysical) {
	y, extra, mask, yRow, bias, maskRow := reg.RAX, reg.RBX, reg.RSI, reg.RDI, reg.R13, reg.RCX
	g.arg("bias", bias)
	for v := range vecs {
		g.VMOVUPS(operand.Mem{Base: bias, Disp: v * g.bytes()}, free(v))
	}
	for r := range rows {
		for v := range vecs {
			g.VADDPS(free(v), acc(r, v), acc(r, v))
		}
	}
	g.floats("yRow", yRow)
	// each visits the vectors of an array that may be nil, and leaves it at the next tile.
	each := func(name string, p, row reg.GPPhysical, bytes int, f func(m operand.Mem, acc reg.VecPhysical)) {
		g.arg(name, p)
		g.TESTQ(p, p)
		g.JE(operand.LabelRef(name + "Done"))
		for r := range rows {
			for v := range vecs {
				f(operand.Mem{Base: p, Disp: v * bytes}, acc(r, v))
			}
			g.ADDQ(row, p)
		}
		g.MOVQ(p, g.slot(name))
		g.Label(name + "Done")
	}
	each("extra", extra, yRow, g.bytes(), func(m operand.Mem, acc reg.VecPhysical) { g.VADDPS(m, acc, acc) })
	g.arg("maskRow", maskRow)
	g.ADDQ(maskRow, maskRow)
	each("mask", mask, maskRow, g.lanes/8, func(m operand.Mem, acc reg.VecPhysical) { g.keepMasked(m, bits, acc, free(0)) })
	floor := free(0)
	g.VBROADCASTSS(g.slot("floor"), floor)
	each("y", y, yRow, g.bytes(), func(m operand.Mem, acc reg.VecPhysical) {
		g.VMAXPS(acc, floor, acc)
		g.VMOVUPS(acc, m)
	})
}
