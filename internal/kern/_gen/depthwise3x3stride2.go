package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func depthwise3x3Stride2File(c *build.Context) {
	tails, bits := tailMasks(c), laneBits(c)
	for _, g := range isas(c) {
		depthwise3x3Stride2(g, tails)
		depthwise3x3Input(g, tails, nil)
		depthwise3x3Input(g, tails, &bits)
	}
}

// weights3x3 loads the nine weights into the first registers.
func (l lane) weights3x3() {
	l.from("w", reg.RAX)
	for tap := range 9 {
		l.load(deref(reg.RAX), l.v(tap))
		l.ADDQ(step3x3, reg.RAX)
	}
}

// depthwise3x3Stride2 goes through all rows with one vector of channels after the other. The weights stay in registers.
func depthwise3x3Stride2(g isa, tails operand.Mem) {
	g.fn("depthwise3x3Stride2", "(y, x, w, bias *float32, floor float32, above, rows, below, width, cols int)",
		"depthwise3x3Stride2"+g.name+" computes, for r in [0,rows), j in [0,n) and c in [0,cols), with rows, width and cols positive,",
		"",
		"	y[(r*n + j)*cols + c] = max(floor, bias[c] + Σ_{i,k<3} x[((2*r+i-1)*width + 2*j+k-1)*cols + c] * w[(3*i+k)*cols + c])",
		"",
		"with n = (width+1)/2 over the inputs inside the image, which has above rows before the first center and below rows after the",
		"last: those next to them are read where there are any.")
	weight, input, bias, floor := func(tap int) reg.VecPhysical { return g.v(tap) }, g.v(9), g.v(12), g.v(13)
	sum := func(j int) reg.VecPhysical { return g.v(10 + j%window(2)) }
	g.steps3x3(tails)
	g.VBROADCASTSS(g.slot("floor"), floor)
	g.byVector(off3x3, whole3x3, all, func(l lane, prefix string) {
		l.weights3x3()
		g.from("bias", reg.RAX)
		l.load(deref(reg.RAX), bias)
		g.from("y", point3x3)
		g.from("x", image3x3)
		g.arg("rows", left3x3)
		g.arg("above", hasAbove3x3)
		g.Label(prefix + "Row")
		g.exists3x3(prefix, func(name string, exist [3]bool) {
			walk3x3{isa: g, name: name, stride: 2,
				start: func(j int) { g.VMOVAPS(bias, sum(j)) },
				column: func(points []meet) {
					for i, exists := range exist {
						if !exists {
							continue
						}
						l.load(inputRow(i), input)
						for _, p := range points {
							g.VFMADD231PS(input, weight(3*i+p.k), sum(p.j))
						}
					}
					g.ADDQ(step3x3, image3x3)
				},
				finish: func(j int) {
					g.VMAXPS(sum(j), floor, sum(j))
					l.store(sum(j), deref(point3x3))
					g.ADDQ(step3x3, point3x3)
				}}.emit()
		})
		g.ADDQ(row3x3, image3x3)
		g.DECQ(left3x3)
		g.JNE(operand.LabelRef(prefix + "Row"))
	})
}

// depthwise3x3Input makes two rows of dx in a walk along dy, or the last one where their number is odd.
func depthwise3x3Input(g isa, tails operand.Mem, bits *operand.Mem) {
	name, params := "depthwise3x3Input", ""
	if bits != nil {
		name, params = "depthwise3x3InputMask", "mask *uint16, maskStep int, "
	}
	doc := []string{name + g.name + " computes, for y in [0,height), x in [0,width) and c in [0,cols), all positive,",
		"",
		"	dx[(y*width + x)*cols + c] = Σ_{i,k} w[(3*i+k)*cols + c] * dy[(r*n + j)*cols + c]",
		"",
		"over i,k < 3, r and j with 2*r+i-1 = y and 2*j+k-1 = x inside dy, which has n = (width+1)/2 columns and (height+1)/2 rows, and",
		"one more that is read where below, the number of rows below those of dx, is positive."}
	if bits != nil {
		doc = append(doc, "The result is 0 where bit c of the mask at byte (y*width + x)*maskStep is not set.")
	}
	g.fn(name, "(dx, w, dy *float32, "+params+"height, below, width, cols int)", doc...)
	weight, sum, t := func(tap int) reg.VecPhysical { return g.v(tap) }, g.v(13), g.v(14)
	dy := func(row, j int) reg.VecPhysical { return g.v(9 + 2*row + j%window(2)) }
	dyRow, mask, maskRow := reg.R9, reg.RDX, reg.RCX
	g.steps3x3(tails)
	g.MOVQ(g.slot("width"), dyRow)
	g.INCQ(dyRow)
	g.SHRQ(operand.Imm(1), dyRow)
	g.IMULQ(step3x3, dyRow)
	g.byVector(off3x3, whole3x3, all, func(l lane, prefix string) {
		l.weights3x3()
		g.from("dx", image3x3)
		g.from("dy", point3x3)
		if bits != nil {
			g.MOVQ(off3x3, mask)
			g.SHRQ(operand.Imm(5), mask) // a bit for four bytes
			g.ADDQ(g.slot("mask"), mask)
			g.MOVQ(g.slot("maskStep"), maskRow)
			g.IMULQ(g.slot("width"), maskRow)
		}
		g.arg("height", left3x3)
		walk := func(name string, rows, dyRows int) {
			walk3x3{isa: g, name: name, stride: 2,
				start: func(j int) {
					l.load(deref(point3x3), dy(0, j))
					if dyRows == 2 {
						l.load(at(point3x3, dyRow, 1), dy(1, j))
					}
					g.ADDQ(step3x3, point3x3)
				},
				column: func(points []meet) {
					one := func(row int, to, m operand.Mem) {
						first := true
						add := func(d, w reg.VecPhysical) {
							if first {
								g.VMULPS(d, w, sum)
							} else {
								g.VFMADD231PS(d, w, sum)
							}
							first = false
						}
						for _, p := range points {
							add(dy(0, p.j), weight(3*(1+row)+p.k))
							if row == 1 && dyRows == 2 {
								add(dy(1, p.j), weight(p.k))
							}
						}
						if bits != nil {
							g.keepMasked(m, *bits, sum, t)
						}
						l.store(sum, to)
					}
					one(0, deref(image3x3), deref(mask))
					if rows == 2 {
						one(1, at(image3x3, row3x3, 1), at(mask, maskRow, 1))
					}
					g.ADDQ(step3x3, image3x3)
					if bits != nil {
						g.ADDQ(g.slot("maskStep"), mask)
					}
				}}.emit()
		}
		g.Label(prefix + "Row")
		g.CMPQ(left3x3, operand.Imm(2))
		g.JL(operand.LabelRef(prefix + "One"))
		g.JG(operand.LabelRef(prefix + "Two"))
		g.CMPQ(g.slot("below"), operand.Imm(0))
		g.JG(operand.LabelRef(prefix + "Two"))
		walk(prefix+"Last", 2, 1)
		g.JMP(operand.LabelRef(prefix + "End"))
		walk(prefix+"One", 1, 1)
		g.JMP(operand.LabelRef(prefix + "End"))
		walk(prefix+"Two", 2, 2)
		g.ADDQ(row3x3, image3x3)
		if bits != nil {
			g.ADDQ(maskRow, mask)
		}
		g.SUBQ(operand.Imm(2), left3x3)
		g.JG(operand.LabelRef(prefix + "Row"))
		g.Label(prefix + "End")
	})
}
