package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func rowsFile(c *build.Context) {
	tails, bits := tailMasks(c), laneBits(c)
	for _, g := range isas(c) {
		finish(g, tails, "finish", "", "b[j] + a[i*aRow + j]", nil)
		finish(g, tails, "finishAdd", "extra", "b[j] + a[i*aRow + j] + extra[i*yRow + j]", func(extra, x reg.VecPhysical) {
			g.VADDPS(extra, x, x)
		})
		finishMask(g, tails, bits, false)
		finishMask(g, tails, bits, true)
		positive(g, tails)
	}
}

// tailMasks is eight words of ones and eight of zeros: read at 32-4·n, it is the AVX2 mask of the first n lanes.
func tailMasks(c *build.Context) operand.Mem {
	m := c.StaticGlobal("tails")
	c.DataAttributes(8 | 16) // RODATA|NOPTR
	for range 8 {
		c.AppendDatum(operand.U32(0xffffffff))
	}
	for range 8 {
		c.AppendDatum(operand.U32(0))
	}
	return m
}

// lanesAccess reads and writes the vector at pointer + offset, all of it or the lanes of the tail.
type lanesAccess struct {
	load  func(ptr reg.GPPhysical, x reg.VecPhysical)
	store func(x reg.VecPhysical, ptr reg.GPPhysical)
}

// tailMask puts the mask of the last (cols mod lanes) lanes where columns expects it: K1, or register 15. It uses RAX,
// RCX and RDX.
func (g isa) tailMask(cols reg.GPPhysical, tails operand.Mem) {
	g.MOVQ(cols, reg.RCX)
	g.ANDQ(operand.Imm(uint64(g.lanes-1)), reg.RCX)
	if g.wide() {
		g.MOVQ(operand.U32(1), reg.RAX)
		g.SHLQ(reg.CL, reg.RAX)
		g.DECQ(reg.RAX)
		g.KMOVW(reg.EAX, reg.K1)
		return
	}
	g.LEAQ(tails.Offset(32), reg.RAX)
	g.SHLQ(operand.Imm(2), reg.RCX)
	g.SUBQ(reg.RCX, reg.RAX)
	g.VMOVUPS(deref(reg.RAX), g.v(15))
}

// columns walks the columns of one row: off takes the byte offsets of whole vectors up to the byte count whole, then of
// the tail if total is more than whole. Labels start with the given name.
func (g isa) columns(name string, off, whole, total reg.GPPhysical, body func(lanesAccess)) {
	g.XORQ(off, off)
	g.CMPQ(whole, operand.Imm(0))
	g.JE(operand.LabelRef(name + "Tail"))
	g.Label(name)
	body(lanesAccess{
		load:  func(p reg.GPPhysical, x reg.VecPhysical) { g.VMOVUPS(at(p, off, 1), x) },
		store: func(x reg.VecPhysical, p reg.GPPhysical) { g.VMOVUPS(x, at(p, off, 1)) },
	})
	g.ADDQ(operand.Imm(uint64(g.bytes())), off)
	g.CMPQ(off, whole)
	g.JLT(operand.LabelRef(name))
	g.Label(name + "Tail")
	g.CMPQ(whole, total)
	g.JE(operand.LabelRef(name + "Done"))
	body(lanesAccess{
		load: func(p reg.GPPhysical, x reg.VecPhysical) {
			if g.wide() {
				g.VMOVUPS_Z(at(p, off, 1), reg.K1, x)
			} else {
				g.VMASKMOVPS(at(p, off, 1), g.v(15), x)
			}
		},
		store: func(x reg.VecPhysical, p reg.GPPhysical) {
			if g.wide() {
				g.VMOVUPS(x, reg.K1, at(p, off, 1))
			} else {
				g.VMASKMOVPS(x, g.v(15), at(p, off, 1))
			}
		},
	})
	g.Label(name + "Done")
}

// wholeVectors computes the bytes of all columns and of those in whole vectors.
func (g isa) wholeVectors(cols, whole, total reg.GPPhysical) {
	g.MOVQ(cols, total)
	g.SHLQ(operand.Imm(2), total)
	g.MOVQ(total, whole)
	g.ANDQ(operand.I32(-int32(g.bytes())), whole)
}

func finish(g isa, tails operand.Mem, name, extraName, sum string, add func(extra, x reg.VecPhysical)) {
	extraParam := ""
	if extraName != "" {
		extraParam = extraName + " *float32, "
	}
	g.fn(name, "(y *float32, yRow int, a *float32, aRow int, b *float32, "+extraParam+"floor float32, rows, cols int)",
		name+g.name+" computes, for i in [0,rows) and j in [0,cols), with rows positive,",
		"",
		"	y[i*yRow + j] = max(floor, "+sum+")",
		"",
		"where NaN stays NaN.")
	y, yRow := g.arg("y", reg.RDI), g.floats("yRow", reg.R8)
	a, aRow := g.arg("a", reg.RSI), g.floats("aRow", reg.R9)
	b, rows, cols := g.arg("b", reg.RBX), g.arg("rows", reg.R10), g.arg("cols", reg.R11)
	extra := reg.R15
	if add != nil {
		g.arg(extraName, extra)
	}
	off, whole, total := reg.RDX, reg.R12, reg.R13
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	floor, x, t := g.v(0), g.v(1), g.v(2)
	g.VBROADCASTSS(g.slot("floor"), floor)
	g.Label("row")
	g.columns("col", off, whole, total, func(m lanesAccess) {
		m.load(a, x)
		m.load(b, t)
		g.VADDPS(t, x, x)
		if add != nil {
			m.load(extra, t)
			add(t, x)
		}
		g.VMAXPS(x, floor, x)
		m.store(x, y)
	})
	g.ADDQ(yRow, y)
	g.ADDQ(aRow, a)
	if add != nil {
		g.ADDQ(yRow, extra)
	}
	g.DECQ(rows)
	g.JNE(operand.LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}

// laneBits are the bits of a mask's byte, each in a lane of its own.
func laneBits(c *build.Context) operand.Mem {
	m := c.StaticGlobal("laneBits")
	c.DataAttributes(8 | 16) // RODATA|NOPTR
	for lane := range 8 {
		c.AppendDatum(operand.U32(1 << lane))
	}
	return m
}

// keepMasked zeroes the lanes of x whose bits in memory at m are not set; it uses K2, or the register t.
func (g isa) keepMasked(m, bits operand.Mem, x, t reg.VecPhysical) {
	if g.wide() {
		g.KMOVW(m, reg.K2)
		g.VMOVAPS_Z(x, reg.K2, x)
		return
	}
	g.VPBROADCASTB(m, t)
	g.VPAND(bits, t, t)
	g.VPCMPEQD(bits, t, t)
	g.VANDPS(t, x, x)
}

// positive writes the mask of numbers above 0.
func positive(g isa, tails operand.Mem) {
	g.fn("positive", "(mask *uint16, x *float32, rows, cols int)",
		"positive"+g.name+" computes, for i in [0,rows) and j in [0,cols), both positive, with w = (cols+15)/16,",
		"",
		"	bit j%16 of mask[i*w + j/16] = x[i*cols + j] > 0",
		"",
		"and clears the other bits of a row's last word.")
	mask, x := g.arg("mask", reg.RDI), g.arg("x", reg.RSI)
	rows, cols := g.arg("rows", reg.R10), g.arg("cols", reg.R11)
	off, whole, total, bits := reg.RDX, reg.R12, reg.R13, reg.RAX
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	zero, v := g.v(0), g.v(1)
	g.zero(zero)
	g.Label("row")
	g.columns("col", off, whole, total, func(m lanesAccess) {
		m.load(x, v)
		if g.wide() {
			g.VCMPPS(operand.Imm(30), zero, v, reg.K2) // above, false for NaN
			g.KMOVW(reg.K2, deref(mask))
			g.ADDQ(operand.Imm(2), mask)
			return
		}
		g.VCMPPS(operand.Imm(30), zero, v, v)
		g.VMOVMSKPS(v, bits.As32())
		g.MOVB(bits.As8(), deref(mask))
		g.INCQ(mask)
	})
	if !g.wide() {
		// A row has an even number of bytes.
		g.LEAQ(operand.Mem{Base: total, Disp: 31}, bits)
		g.BTQ(operand.Imm(5), bits) // whether the bytes are odd in number
		g.JCC(operand.LabelRef("even"))
		g.MOVB(operand.Imm(0), deref(mask))
		g.INCQ(mask)
		g.Label("even")
	}
	g.ADDQ(total, x)
	g.DECQ(rows)
	g.JNE(operand.LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}

// finishMask has two forms: plain, and with an array that is added where the mask lets it.
func finishMask(g isa, tails, bits operand.Mem, add bool) {
	name, extraParam, sum := "finishMask", "", "a[i*aRow + j]"
	if add {
		name, extraParam, sum = "finishAddMask", "extra *float32, ", "a[i*aRow + j] + extra[i*yRow + j]"
	}
	g.fn(name, "(y *float32, yRow int, a *float32, aRow int, "+extraParam+"mask *uint16, maskRow, rows, cols int)",
		name+g.name+" computes, for i in [0,rows) and j in [0,cols), with rows positive,",
		"",
		"	y[i*yRow + j] = "+sum+" if bit j%16 of mask[i*maskRow + j/16] is set, else 0")
	y, yRow := g.arg("y", reg.RDI), g.floats("yRow", reg.R8)
	a, aRow := g.arg("a", reg.RSI), g.floats("aRow", reg.R9)
	mask, rows, cols := g.arg("mask", reg.RBX), g.arg("rows", reg.R10), g.arg("cols", reg.R11)
	off, whole, total := reg.RDX, reg.R12, reg.R13
	extra := reg.R15
	if add {
		g.arg("extra", extra)
	}
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	x, t, at8 := g.v(1), g.v(2), reg.RAX
	g.SHLQ(operand.Imm(1), g.slot("maskRow"))
	g.Label("row")
	g.columns("col", off, whole, total, func(m lanesAccess) {
		m.load(a, x)
		if add {
			m.load(extra, t)
			g.VADDPS(t, x, x)
		}
		g.MOVQ(off, at8)
		g.SHRQ(operand.Imm(5), at8)
		g.keepMasked(at(mask, at8, 1), bits, x, t)
		m.store(x, y)
	})
	g.ADDQ(yRow, y)
	g.ADDQ(aRow, a)
	g.ADDQ(g.slot("maskRow"), mask)
	if add {
		g.ADDQ(yRow, extra)
	}
	g.DECQ(rows)
	g.JNE(operand.LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}
