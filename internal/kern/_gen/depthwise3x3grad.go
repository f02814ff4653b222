package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func depthwise3x3GradFile(c *build.Context) {
	tails := tailMasks(c)
	for _, g := range isas(c) {
		for stride := 1; stride <= 2; stride++ {
			depthwise3x3Grad(g, tails, stride)
		}
	}
}

const lineBytes = 64 // of a cache

// part3x3 is how many rows are left to add up before the sums are added to others.
var part3x3 = reg.RDX

// depthwise3x3Grad goes through all rows with one vector of channels after the other. The nine sums stay in registers, and
// so does what is in sight of dy.
func depthwise3x3Grad(g isa, tails operand.Mem, stride int) {
	name, points, center, column := "depthwise3x3Grad", "width", "r", "j"
	if stride == 2 {
		name, points, center, column = "depthwise3x3Stride2Grad", "(width+1)/2", "2*r", "2*j"
	}
	g.fn(name, "(dw, x, dy *float32, above, rows, below, part, width, cols int)",
		name+g.name+" computes, for i,k in [0,3) and c in [0,cols), with rows, part, width and cols positive,",
		"",
		fmt.Sprintf("	dw[(3*i+k)*cols + c] += Σ_{r<rows, j<n} x[((%s+i-1)*width + %s+k-1)*cols + c] * dy[(r*n + j)*cols + c]", center, column),
		"",
		"with n = "+points+" over the inputs inside the image, which has above rows before the first center and below rows after the",
		"last: those next to them are read where there are any. The sums of every part rows are taken apart.")
	sum, input := func(tap int) reg.VecPhysical { return g.v(tap) }, g.v(9)
	dy := func(j int) reg.VecPhysical { return g.v(10 + j%window(stride)) }
	// The vectors to the right are read next, and will be in the first cache. With stride 2, where there are four times as many
	// inputs for the same work, it made large images slower.
	fetch := func(m operand.Mem) {
		if stride == 1 {
			g.PREFETCHT0(m.Offset(lineBytes))
		}
	}
	g.steps3x3(tails)
	g.byVector(off3x3, whole3x3, all, func(l lane, prefix string) {
		g.from("dy", point3x3)
		g.from("x", image3x3)
		g.arg("rows", left3x3)
		g.arg("above", hasAbove3x3)
		g.Label(prefix + "Part")
		for tap := range 9 {
			g.zero(sum(tap))
		}
		g.arg("part", part3x3)
		g.Label(prefix + "Row")
		g.exists3x3(prefix, func(name string, exist [3]bool) {
			walk3x3{isa: g, name: name, stride: stride,
				start: func(j int) {
					l.load(deref(point3x3), dy(j))
					fetch(deref(point3x3))
					g.ADDQ(step3x3, point3x3)
				},
				column: func(points []meet) {
					for i, exists := range exist {
						if !exists {
							continue
						}
						l.load(inputRow(i), input)
						if i == 2 { // read for the first time
							fetch(inputRow(i))
						}
						for _, p := range points {
							g.VFMADD231PS(input, dy(p.j), sum(3*i+p.k))
						}
					}
					g.ADDQ(step3x3, image3x3)
				}}.emit()
		})
		if stride == 2 {
			g.ADDQ(row3x3, image3x3)
		}
		g.DECQ(left3x3)
		g.JE(operand.LabelRef(prefix + "Add"))
		g.DECQ(part3x3)
		g.JNE(operand.LabelRef(prefix + "Row"))
		g.Label(prefix + "Add")
		g.from("dw", reg.RAX)
		for tap := range 9 {
			l.load(deref(reg.RAX), input)
			g.VADDPS(input, sum(tap), sum(tap))
			l.store(sum(tap), deref(reg.RAX))
			g.ADDQ(step3x3, reg.RAX)
		}
		g.CMPQ(left3x3, operand.Imm(0))
		g.JNE(operand.LabelRef(prefix + "Part"))
	})
}
