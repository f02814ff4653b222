package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func transposeFile(c *build.Context) {
	for _, g := range isas(c) {
		transpose(g)
	}
}

// transpose loads quarters of rows four apart into one register, so that all shuffles stay inside 128-bit lanes: lane m
// of register k is row 4·m+k of four columns, and after a transposition of each lane's four by four numbers register j is
// column j.
func transpose(g isa) {
	g.fn("transpose", "(dst *float32, dstRow int, src *float32, srcRow int, blocks, ahead int)",
		"transpose"+g.name+" computes, for i in [0,lanes) and j in [0,blocks*lanes), with blocks positive,",
		"",
		"	dst[j*dstRow + i] = src[i*srcRow + j]",
		"",
		"and fetches what lies ahead elements further into the cache.")
	quarters := g.lanes / 4
	x := func(n int) reg.VecPhysical {
		return []reg.VecPhysical{reg.X0, reg.X1, reg.X2, reg.X3}[n]
	}
	bases := []reg.GPPhysical{reg.RSI, reg.RAX, reg.RBX, reg.RDX}[:quarters]
	g.arg("src", bases[0])
	row, row3 := g.floats("srcRow", reg.R8), reg.R9
	dst, out, out3 := g.arg("dst", reg.RDI), g.floats("dstRow", reg.R10), reg.R11
	blocks := g.arg("blocks", reg.RCX)
	g.LEAQ(at(row, row, 2), row3)
	g.LEAQ(at(out, out, 2), out3)
	for m := 1; m < quarters; m++ {
		g.LEAQ(at(bases[m-1], row, 4), bases[m])
	}
	ahead, line := g.floats("ahead", reg.R12), reg.R13
	rowOf := func(base, row, row3 reg.GPPhysical, k int) operand.Mem {
		return []operand.Mem{deref(base), at(base, row, 1), at(base, row, 2), at(base, row3, 1)}[k]
	}
	g.Label("block")
	for _, base := range bases {
		g.LEAQ(at(base, ahead, 1), line)
		for k := range 4 {
			g.PREFETCHT1(rowOf(line, row, row3, k))
		}
	}
	for c := range quarters {
		for k := range 4 {
			for m := range quarters {
				from := rowOf(bases[m], row, row3, k).Offset(16 * c)
				switch {
				case m == 0:
					g.VMOVUPS(from, x(k))
				case g.wide():
					g.VINSERTF32X4(operand.Imm(uint64(m)), from, g.v(k), g.v(k))
				default:
					g.VINSERTF128(operand.Imm(uint64(m)), from, g.v(k), g.v(k))
				}
			}
		}
		for h := range 2 {
			g.VUNPCKLPS(g.v(2*h+1), g.v(2*h), g.v(4+2*h))
			g.VUNPCKHPS(g.v(2*h+1), g.v(2*h), g.v(5+2*h))
		}
		for j := range 4 {
			a, b := g.v(4+j/2), g.v(6+j/2)
			if j%2 == 0 {
				g.VUNPCKLPD(b, a, g.v(0))
			} else {
				g.VUNPCKHPD(b, a, g.v(0))
			}
			g.VMOVUPS(g.v(0), rowOf(dst, out, out3, j))
		}
		g.LEAQ(at(dst, out, 4), dst)
	}
	for _, base := range bases {
		g.ADDQ(operand.Imm(uint64(g.bytes())), base)
	}
	g.DECQ(blocks)
	g.JNE(operand.LabelRef("block"))
	g.VZEROUPPER()
	g.RET()
}
