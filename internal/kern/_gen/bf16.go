package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bf16File is the kernels whose products take pairs of bfloat16 where others take a float32: those products, the transforms that
// make their left operands, and what makes pairs of rows and of neighbours.
func bf16File(c *build.Context) {
	tails, bits := tailMasks(c), laneBits(c)
	g := isa{c, "AVX512BF16", 16, 32, true}
	for vecs := 1; vecs <= 2; vecs++ {
		for rows := 1; rows <= maxRows(g, vecs); rows++ {
			gemm(g, rows, vecs, nil, false)
			gemm(g, rows, vecs, &bits, false)
		}
	}
	w := winograd{isa: g, value: winogradConstants(c), bits: bits}
	w.input(0)
	w.input(1)
	pairs(g, tails)
	pairRows(g)
}

// pairs makes pairs of neighbours.
func pairs(g isa, tails operand.Mem) {
	g.fn("pairs", "(dst *float32, dstRow int, src *float32, srcRow, rows, cols int)",
		"pairs"+g.name+" computes, for i in [0,rows) and j in [0,cols), both positive,",
		"",
		"	dst[i*dstRow + j] = src[i*srcRow + 2*j] and src[i*srcRow + 2*j + 1], rounded to bfloat16, in its lower and upper half")
	dst, src := g.arg("dst", reg.RDI), g.arg("src", reg.RSI)
	dstRow, srcRow := g.floats("dstRow", reg.R8), g.floats("srcRow", reg.R9)
	rows, cols := g.arg("rows", reg.R10), g.arg("cols", reg.R11)
	off, whole, total := reg.RDX, reg.R12, reg.R13
	g.wholeVectors(cols, whole, total)
	g.tailMask(cols, tails)
	// The masks of both vectors of numbers that the last vector of pairs is made of.
	tmp, count := reg.RAX, reg.RCX
	g.MOVQ(cols, count)
	g.ANDQ(operand.Imm(15), count)
	g.SHLQ(operand.Imm(1), count)
	g.MOVQ(operand.U32(1), tmp)
	g.SHLQ(reg.CL, tmp)
	g.DECQ(tmp)
	g.KMOVW(tmp.As32(), reg.K2)
	g.SHRQ(operand.Imm(16), tmp)
	g.KMOVW(tmp.As32(), reg.K3)
	low, high := g.v(0), g.v(1)
	second := operand.Mem{Base: src, Index: off, Scale: 2, Disp: g.bytes()}
	g.Label("row")
	g.XORQ(off, off)
	g.CMPQ(whole, operand.Imm(0))
	g.JE(operand.LabelRef("tail"))
	g.Label("vector")
	g.VMOVUPS(at(src, off, 2), low)
	g.VMOVUPS(second, high)
	g.roundTwo(low, high, low)
	g.VMOVUPS(low, at(dst, off, 1))
	g.ADDQ(operand.Imm(uint64(g.bytes())), off)
	g.CMPQ(off, whole)
	g.JLT(operand.LabelRef("vector"))
	g.Label("tail")
	g.CMPQ(whole, total)
	g.JE(operand.LabelRef("next"))
	g.VMOVUPS_Z(at(src, off, 2), reg.K2, low)
	g.VMOVUPS_Z(second, reg.K3, high)
	g.roundTwo(low, high, low)
	g.VMOVUPS(low, reg.K1, at(dst, off, 1))
	g.Label("next")
	g.ADDQ(dstRow, dst)
	g.ADDQ(srcRow, src)
	g.DECQ(rows)
	g.JNE(operand.LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}

// pairRows makes pairs of elements below one another.
func pairRows(g isa) {
	g.fn("pairRows", "(dst *float32, dstPlane int, src *float32, srcPlane int, planes, rows, vecs int)",
		"pairRows"+g.name+" computes, for p in [0,planes), i in [0,rows) and j in [0,cols), all positive, with cols = 16*vecs,",
		"",
		"	dst[p*dstPlane + i*cols + j] = src[p*srcPlane + 2*i*cols + j] and src[p*srcPlane + (2*i+1)*cols + j],",
		"",
		"rounded to bfloat16, in its lower and upper half.")
	dst, src, rows := reg.RDI, reg.RSI, reg.RCX
	dstPlane, srcPlane, planes := g.floats("dstPlane", reg.R9), g.floats("srcPlane", reg.R10), g.arg("planes", reg.R11)
	dstStart, srcStart := g.arg("dst", reg.R12), g.arg("src", reg.R13)
	cols := g.arg("vecs", reg.R8)
	g.SHLQ(operand.Imm(6), cols) // in bytes
	off, low, high := reg.RDX, g.v(0), g.v(1)
	g.Label("plane")
	g.MOVQ(dstStart, dst)
	g.MOVQ(srcStart, src)
	g.arg("rows", rows)
	g.Label("row")
	g.XORQ(off, off)
	g.Label("vector")
	for _, x := range []reg.VecPhysical{low, high} {
		g.VMOVUPS(at(src, off, 1), x)
		if x == low {
			g.ADDQ(cols, src)
		}
		g.round(x, x)
		g.VPMOVZXWD(x.AsY(), x)
	}
	g.SUBQ(cols, src)
	g.VPSLLD(operand.Imm(16), high, high)
	g.VPORD(high, low, low)
	g.VMOVUPS(low, at(dst, off, 1))
	g.ADDQ(operand.Imm(uint64(g.bytes())), off)
	g.CMPQ(off, cols)
	g.JLT(operand.LabelRef("vector"))
	g.ADDQ(cols, dst)
	g.LEAQ(at(src, cols, 2), src)
	g.DECQ(rows)
	g.JNE(operand.LabelRef("row"))
	g.ADDQ(dstPlane, dstStart)
	g.ADDQ(srcPlane, srcStart)
	g.DECQ(planes)
	g.JNE(operand.LabelRef("plane"))
	g.VZEROUPPER()
	g.RET()
}

// multiplyAdd is sum += x·y in every lane, or the sum of both products of their pairs.
func (g isa) multiplyAdd(x, y, sum reg.VecPhysical) {
	if g.pairs {
		g.bf16("VDPBF16PS", f3, 0x52, sum, y, x)
		return
	}
	g.VFMADD231PS(x, y, sum)
}

// multiplyAddOne is multiplyAdd of an element in memory, for all lanes, in the wide set.
func (g isa) multiplyAddOne(x operand.Mem, y, sum reg.VecPhysical) {
	if g.pairs {
		g.bf16("VDPBF16PS", f3, 0x52, sum, y, x)
		return
	}
	g.VFMADD231PS_BCST(x, y, sum)
}

// round rounds a vector to bfloat16, in the lower half of to.
func (g isa) round(x, to reg.VecPhysical) { g.bf16("VCVTNEPS2BF16", f3, 0x72, to, reg.Z0, x) }

// roundTwo rounds two vectors to bfloat16, into one.
func (g isa) roundTwo(low, high, to reg.VecPhysical) {
	g.bf16("VCVTNE2PS2BF16", f2, 0x72, to, high, low)
}

// Prefixes of instructions.
const (
	f3 = 2
	f2 = 3
)

// bf16 is an instruction of AVX512_BF16, which Go's assembler does not know, byte by byte: name src, v, dst on whole vectors in
// registers, src being one or a float32 in memory for all lanes. Where an instruction has no v, that is Z0.
func (g isa) bf16(name string, prefix, opcode byte, dst, v reg.VecPhysical, src operand.Op) {
	number := func(r reg.Physical) byte { return byte(r.PhysicalIndex()) }
	// A prefix has the upper bits of the registers' numbers, inverted.
	not := func(bit, number, to byte) byte { return (^number >> bit & 1) << to }
	d, vv := number(dst), number(v)
	head := [4]byte{0x62,
		not(3, d, 7) | not(4, d, 4) | 2,
		not(3, vv, 6) | not(2, vv, 5) | not(1, vv, 4) | not(0, vv, 3) | 4 | prefix,
		2<<5 | not(4, vv, 3)}
	var tail []byte
	text := ""
	switch src := src.(type) {
	case reg.VecPhysical:
		s := number(src)
		head[1] |= not(4, s, 6) | not(3, s, 5)
		tail = []byte{3<<6 | d&7<<3 | s&7}
		text = src.Asm()
	case operand.Mem:
		base := number(src.Base.(reg.Physical))
		index := byte(4) // none
		if src.Index != nil {
			index = number(src.Index.(reg.Physical))
		}
		head[1] |= not(3, index, 6) | not(3, base, 5)
		head[3] |= 1 << 4 // for all lanes
		scale := map[uint8]byte{0: 0, 1: 0, 2: 1, 4: 2, 8: 3}[src.Scale]
		if src.Disp != 0 || base&7 == 5 {
			panic(fmt.Sprintf("%s: an operand at %s needs a displacement", name, src.Asm()))
		}
		tail = []byte{d&7<<3 | 4, scale<<6 | index&7<<3 | base&7}
		text = src.Asm()
	default:
		panic(fmt.Sprintf("%s of %T", name, src))
	}
	g.Comment(name + " " + strings.Join([]string{text, v.Asm(), dst.Asm()}, ", "))
	code := append(append(head[:], opcode), tail...)
	for _, piece := range []struct {
		opcode string
		size   int
	}{{"QUAD", 8}, {"LONG", 4}, {"WORD", 2}, {"BYTE", 1}} {
		if len(code) < piece.size {
			continue
		}
		var x uint64
		for i, b := range code[:piece.size] {
			x |= uint64(b) << (8 * i)
		}
		code = code[piece.size:]
		g.Instruction(&ir.Instruction{Opcode: piece.opcode, Operands: []operand.Op{operand.Imm(x)}})
	}
}
