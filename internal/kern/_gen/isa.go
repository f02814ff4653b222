package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is one instruction set to generate for. Registers are named by hand: which value lives where is the heart of these
// kernels, and it keeps the output the same whatever the allocator of the day.
type isa struct {
	*build.Context
	name  string
	lanes int
	regs  int
	pairs bool // products take pairs of bfloat16 where others take a float32
}

func isas(c *build.Context) []isa {
	return []isa{{c, "AVX512", 16, 32, false}, {c, "AVX2", 8, 16, false}}
}

func (g isa) wide() bool { return g.lanes == 16 }

// bytes is the size of one vector.
func (g isa) bytes() int { return 4 * g.lanes }

// v is vector register n.
func (g isa) v(n int) reg.VecPhysical {
	if n >= g.regs {
		panic(fmt.Sprintf("no vector register %d in %s", n, g.name))
	}
	if g.wide() {
		return []reg.VecPhysical{
			reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
			reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
		}[n]
	}
	return []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}[n]
}

// zero clears a vector register.
func (g isa) zero(v reg.VecPhysical) {
	if g.wide() {
		g.VPXORD(v, v, v)
	} else {
		g.VXORPS(v, v, v)
	}
}

// fn starts a function for this instruction set.
func (g isa) fn(name, signature string, doc ...string) {
	g.Function(name + g.name)
	g.Pragma("noescape")
	g.SignatureExpr("func" + signature)
	g.Doc(doc...)
}

// arg loads a parameter.
func (g isa) arg(name string, r reg.GPPhysical) reg.GPPhysical {
	g.Load(g.Param(name), r)
	return r
}

// slot is where a parameter is.
func (g isa) slot(param string) operand.Mem {
	b, err := g.Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// floats loads a count of float32 and turns it into bytes.
func (g isa) floats(name string, r reg.GPPhysical) reg.GPPhysical {
	g.arg(name, r)
	g.SHLQ(operand.Imm(2), r)
	return r
}

// at is the operand base + index·scale.
func at(base, index reg.GPPhysical, scale uint8) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: scale}
}

func deref(base reg.GPPhysical) operand.Mem { return operand.Mem{Base: base} }

// constant is a file-local float32 in read-only memory.
func constant(c *build.Context, name string, v float32) operand.Mem {
	m := c.StaticGlobal(name)
	c.DataAttributes(8 | 16)                        // RODATA|NOPTR
	c.AppendDatum(operand.U32(math.Float32bits(v))) // as bits: the assembler reads $(2) as an integer
	return m
}
