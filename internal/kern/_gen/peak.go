package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// peakAccumulators hide the latency of a multiply-add, four cycles on two ports, with room to spare.
const peakAccumulators = 12

func peakFile(c *build.Context) {
	for _, g := range isas(c) {
		g.fn("peak", "(n int)",
			"peak"+g.name+" does 12 multiply-adds of vectors in registers n times, n > 0: what no kernel can exceed.")
		for i := range peakAccumulators + 2 {
			g.zero(g.v(i))
		}
		g.arg("n", reg.RCX)
		g.Label("loop")
		for i := range peakAccumulators {
			g.VFMADD231PS(g.v(peakAccumulators), g.v(peakAccumulators+1), g.v(i))
		}
		g.DECQ(reg.RCX)
		g.JNE(operand.LabelRef("loop"))
		g.VZEROUPPER()
		g.RET()
	}
}
