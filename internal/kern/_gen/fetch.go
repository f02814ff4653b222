package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func fetchFile(c *build.Context) {
	for _, g := range isas(c) {
		g.fn("fetch", "(x *float32, lines int)", "fetch"+g.name+" asks for lines cache lines from x on, lines > 0, and does not wait for them.")
		x, lines := g.arg("x", reg.RAX), g.arg("lines", reg.RCX)
		g.Label("line")
		g.PREFETCHT1(deref(x))
		g.ADDQ(operand.Imm(64), x)
		g.DECQ(lines)
		g.JNE(operand.LabelRef("line"))
		g.RET()
	}
}
