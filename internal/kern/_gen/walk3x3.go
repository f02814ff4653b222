package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
)

// walk3x3 goes along a row of points from left to right, and along the columns of an image that they meet: with 3x3
// elements and padding 1, point j meets column stride·j + k-1 by element k.
type walk3x3 struct {
	isa
	name   string
	stride int
	start  func(j int)         // a point comes in sight
	column func(points []meet) // a column and the points that it meets
	finish func(j int)         // a point has met its columns; or nil
}

// meet is a point, and the element by which it meets a column.
type meet struct{ j, k int }

// point3x3 and image3x3 are the point and the column of the image under way.
var point3x3, image3x3 = y3x3, x3x3

// window is how many points are in sight at once.
func window(stride int) int { return (2 + stride) / stride }

// emit walks a row. Its first points are told apart; those after them, which have others in sight before them, come by turns.
func (w walk3x3) emit() {
	g, seen := w.isa, window(w.stride)
	last := func(j int) string { return fmt.Sprintf("%sLast%d", w.name, j) }
	g.Label(w.name)
	g.MOVQ(g.slot("width"), columns3x3)
	if w.stride == 2 {
		g.INCQ(columns3x3)
		g.SHRQ(operand.Imm(1), columns3x3)
	}
	for j := range 2*seen - 1 {
		if j == seen-1 {
			g.Label(w.name + "Points")
		}
		w.step(j)
		g.DECQ(columns3x3)
		after := j + 1
		if after == 2*seen-1 {
			after -= seen
		}
		g.JE(operand.LabelRef(last(after)))
	}
	g.JMP(operand.LabelRef(w.name + "Points"))
	for j := 1; j < 2*seen-1; j++ {
		g.Label(last(j))
		w.end(j)
		g.JMP(operand.LabelRef(w.name + "Done"))
	}
	g.Label(w.name + "Done")
}

// step takes point j and the columns that no point after it meets.
func (w walk3x3) step(j int) {
	w.start(j)
	for s := range w.stride {
		if j > 0 || s > 0 { // else left of the image
			w.column(w.met(j, s))
		}
	}
	if first := j + 1 - window(w.stride); first >= 0 && w.finish != nil {
		w.finish(first)
	}
}

// end takes the column that is left after the last point, which is the one before j.
func (w walk3x3) end(j int) {
	g, finish := w.isa, fmt.Sprintf("%sFinish%d", w.name, j)
	if w.stride == 2 { // where there is one
		g.MOVQ(g.slot("width"), columns3x3)
		g.BTQ(operand.Imm(0), columns3x3)
		g.JCS(operand.LabelRef(finish))
	}
	w.column(w.met(j, 0)[1:])
	g.Label(finish)
	if w.finish != nil {
		for first := max(0, j+1-window(w.stride)); first < j; first++ {
			w.finish(first)
		}
	}
}

// met is the points that meet column s of those of step j.
func (w walk3x3) met(j, s int) []meet {
	var points []meet
	for ; j >= 0 && s < 3; j, s = j-1, s+w.stride {
		points = append(points, meet{j, s})
	}
	return points
}

// exists3x3 takes the next of the rows that are left: emit is called for each form of it, with or without inputs above it and
// below.
func (g isa) exists3x3(prefix string, emit func(name string, exist [3]bool)) {
	form := func(above, below bool) string {
		name := prefix + "Center"
		if above {
			name += "Above"
		}
		if below {
			name += "Below"
		}
		return name
	}
	g.CMPQ(left3x3, operand.Imm(1))
	g.JG(operand.LabelRef(prefix + "Next"))
	g.CMPQ(g.slot("below"), operand.Imm(0))
	g.JG(operand.LabelRef(prefix + "Next"))
	g.CMPQ(hasAbove3x3, operand.Imm(0))
	g.JNE(operand.LabelRef(form(true, false)))
	g.JMP(operand.LabelRef(form(false, false)))
	g.Label(prefix + "Next")
	g.CMPQ(hasAbove3x3, operand.Imm(0))
	g.JE(operand.LabelRef(form(false, true)))
	for _, above := range []bool{true, false} {
		for _, below := range []bool{true, false} {
			emit(form(above, below), [3]bool{above, true, below})
			g.JMP(operand.LabelRef(prefix + "Done"))
		}
	}
	g.Label(prefix + "Done")
	g.MOVQ(operand.U32(1), hasAbove3x3)
}
