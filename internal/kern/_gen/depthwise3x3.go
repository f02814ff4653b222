package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func depthwise3x3File(c *build.Context) {
	tails, bits := tailMasks(c), laneBits(c)
	for _, g := range isas(c) {
		depthwise3x3(g, tails, nil)
		depthwise3x3(g, tails, &bits)
	}
}

// rows3x3 walks two rows of outputs, or one, from left to right, one vector of channels wide. The weights stay in
// registers, each input is loaded once, and goes to the outputs of its column and of those beside it, of which three are
// under way: before, here and after.
type rows3x3 struct {
	isa
	lane
	name  string
	pair  bool         // two rows of outputs
	exist [4]bool      // the rows of inputs, from the one above the first output's on; the last is for a pair
	bits  *operand.Mem // of masks, if the result is masked
}

// Registers of rows3x3: six sums, an input, weights, bias and floor. In AVX2, where the last one is the mask of the tail,
// there is room for eight weights; what is left lies in the frame.
const (
	input3x3 = 6
	w3x3     = 7
	w3x3AVX2 = 8
)

// Vectors in the frame.
const (
	biasLocal = iota
	floorLocal
	weightLocal
	locals3x3
)

func (r rows3x3) sum(row, phase int) reg.VecPhysical { return r.isa.v(row*3 + phase%3) }

func (r rows3x3) input() reg.VecPhysical { return r.isa.v(input3x3) }

// local is a vector in the frame.
func (g isa) local(frame operand.Mem, i int) operand.Mem { return frame.Offset(i * g.bytes()) }

var (
	y3x3, x3x3, m3x3      = reg.RDI, reg.RSI, reg.RDX // of the column under way; x's is of the first output's row
	row3x3, above3x3      = reg.R8, reg.R9            // from one row to the next, and to the one before
	step3x3, columns3x3   = reg.R10, reg.R11
	left3x3, hasAbove3x3  = reg.RBX, reg.RCX // rows to do, and whether there is one above them
	maskRow3x3            = reg.RAX          // and scratch between rows
	off3x3, whole3x3, all = reg.R12, reg.R13, reg.R15
)

// inputRow is where row i of inputs is.
func inputRow(i int) operand.Mem {
	switch i {
	case 0:
		return at(x3x3, above3x3, 1)
	case 1:
		return deref(x3x3)
	}
	return at(x3x3, row3x3, uint8(i-1))
}

// steps3x3 loads the distances between columns and rows.
func (g isa) steps3x3(tails operand.Mem) {
	g.floats("cols", step3x3)
	g.MOVQ(step3x3, all)
	g.MOVQ(step3x3, whole3x3)
	g.ANDQ(operand.I32(-int32(g.bytes())), whole3x3)
	g.arg("cols", reg.R11)
	g.tailMask(reg.R11, tails)
	g.MOVQ(step3x3, row3x3)
	g.IMULQ(g.slot("width"), row3x3)
	g.MOVQ(row3x3, above3x3)
	g.NEGQ(above3x3)
}

// from loads a parameter, counted from the channels under way.
func (g isa) from(param string, r reg.GPPhysical) {
	g.arg(param, r)
	g.ADDQ(off3x3, r)
}

// column takes the inputs of one column; before and after say which sums there are beside its own.
func (r rows3x3) column(frame operand.Mem, phase int, before, after bool) {
	rows := 1
	if r.pair {
		rows = 2
	}
	for o := range rows {
		if after {
			r.start(frame, r.sum(o, phase+1))
		}
		if !before {
			r.start(frame, r.sum(o, phase))
		}
	}
	for i, exists := range r.exist {
		if !exists {
			continue
		}
		r.load(inputRow(i), r.input())
		for k := 2; k >= 0; k-- {
			if k == 2 && !before || k == 0 && !after {
				continue
			}
			for o := range rows {
				if tap := i - o; tap >= 0 && tap < 3 {
					r.weighted(frame, 3*tap+k, r.sum(o, phase+1-k+3))
				}
			}
		}
	}
	r.isa.ADDQ(step3x3, x3x3)
	if before {
		r.finish(frame, phase+2)
	}
	if !after {
		r.finish(frame, phase)
	}
}

func (r rows3x3) start(frame operand.Mem, sum reg.VecPhysical) {
	if r.wide() {
		r.isa.VMOVAPS(r.isa.v(w3x3+9), sum)
	} else {
		r.isa.VMOVUPS(r.local(frame, biasLocal), sum)
	}
}

// weighted adds the input, weighted, to a sum.
func (r rows3x3) weighted(frame operand.Mem, weight int, sum reg.VecPhysical) {
	if !r.wide() && weight == w3x3AVX2 {
		r.isa.VFMADD231PS(r.local(frame, weightLocal), r.input(), sum)
		return
	}
	r.isa.VFMADD231PS(r.isa.v(w3x3+weight), r.input(), sum)
}

// finish stores the sums of a column.
func (r rows3x3) finish(frame operand.Mem, phase int) {
	one := func(o int, y, m operand.Mem) {
		sum, t := r.sum(o, phase), r.input()
		switch {
		case r.bits != nil:
			r.keepMasked(m, *r.bits, sum, t)
		case r.wide():
			r.isa.VMAXPS(sum, r.isa.v(w3x3+10), sum)
		default:
			r.isa.VMOVUPS(r.local(frame, floorLocal), t)
			r.isa.VMAXPS(sum, t, sum)
		}
		r.store(sum, y)
	}
	one(0, deref(y3x3), deref(m3x3))
	if r.pair {
		one(1, at(y3x3, row3x3, 1), at(m3x3, maskRow3x3, 1))
	}
	r.isa.ADDQ(step3x3, y3x3)
	if r.bits != nil {
		r.isa.ADDQ(r.slot("maskStep"), m3x3)
	}
}

// emit walks the columns and goes on to the next rows.
func (r rows3x3) emit(frame operand.Mem, next string) {
	g := r.isa
	g.Label(r.name)
	g.MOVQ(g.slot("width"), columns3x3)
	if r.bits != nil {
		g.MOVQ(columns3x3, maskRow3x3)
		g.IMULQ(g.slot("maskStep"), maskRow3x3)
	}
	g.DECQ(columns3x3)
	g.JE(operand.LabelRef(r.name + "Only"))
	r.column(frame, 0, false, true)
	g.Label(r.name + "Columns")
	for phase := 1; phase <= 3; phase++ {
		g.DECQ(columns3x3)
		g.JE(operand.LabelRef(fmt.Sprintf("%sLast%d", r.name, phase)))
		r.column(frame, phase, true, true)
	}
	g.JMP(operand.LabelRef(r.name + "Columns"))
	for phase := 1; phase <= 3; phase++ {
		g.Label(fmt.Sprintf("%sLast%d", r.name, phase))
		r.column(frame, phase, true, false)
		g.JMP(operand.LabelRef(r.name + "Done"))
	}
	g.Label(r.name + "Only")
	r.column(frame, 0, false, false)
	g.Label(r.name + "Done")
	if r.pair {
		g.ADDQ(row3x3, x3x3)
		g.ADDQ(row3x3, y3x3)
		if r.bits != nil {
			g.ADDQ(maskRow3x3, m3x3)
		}
		g.SUBQ(operand.Imm(2), left3x3)
	} else {
		g.DECQ(left3x3)
	}
	g.MOVQ(operand.U32(1), hasAbove3x3)
	g.JMP(operand.LabelRef(next))
}

// depthwise3x3 goes through all rows with one vector of channels after the other.
func depthwise3x3(g isa, tails operand.Mem, bits *operand.Mem) {
	name, result, params := "depthwise3x3", "max(floor, bias[c] + s)", "bias *float32, floor float32"
	if bits != nil {
		name, result, params = "depthwise3x3Mask", "s where bit c of the mask at byte (r*width + j)*maskStep is set, else 0,", "mask *uint16, maskStep int"
	}
	g.fn(name, "(y, x, w *float32, "+params+", above, rows, below, width, cols int)",
		name+g.name+" computes, for r in [0,rows), j in [0,width) and c in [0,cols), all positive,",
		"",
		"	y[(r*width + j)*cols + c] = "+result,
		"",
		"with s = Σ_{i,k<3} x[((r+i-1)*width + j+k-1)*cols + c] * w[(3*i+k)*cols + c] over the inputs inside the image, which has",
		"above rows before the first and below rows after the last: those next to them are read where there are any.")
	frame := operand.Mem{}
	if !g.wide() {
		frame = g.AllocLocal(locals3x3 * g.bytes())
	}
	g.steps3x3(tails)
	limit := g.v(w3x3)
	if g.wide() {
		limit = g.v(w3x3 + 10)
	}
	if bits == nil {
		g.VBROADCASTSS(g.slot("floor"), limit)
		if !g.wide() {
			g.VMOVUPS(limit, g.local(frame, floorLocal))
		}
	}
	g.byVector(off3x3, whole3x3, all, func(l lane, prefix string) {
		r := rows3x3{isa: g, lane: l, bits: bits}
		// Weights, and the bias.
		g.from("w", reg.RAX)
		for i := range 9 {
			to := g.v(input3x3)
			if g.wide() || i < w3x3AVX2 {
				to = g.v(w3x3 + i)
			}
			l.load(deref(reg.RAX), to)
			if to == g.v(input3x3) {
				g.VMOVUPS(to, g.local(frame, weightLocal))
			}
			g.ADDQ(step3x3, reg.RAX)
		}
		bias := g.v(input3x3)
		if g.wide() {
			bias = g.v(w3x3 + 9)
		}
		if bits != nil {
			g.zero(bias)
		} else {
			g.arg("bias", reg.RAX)
			l.load(at(reg.RAX, off3x3, 1), bias)
		}
		if !g.wide() {
			g.VMOVUPS(bias, g.local(frame, biasLocal))
		}
		g.from("y", y3x3)
		g.from("x", x3x3)
		if bits != nil {
			g.MOVQ(off3x3, m3x3)
			g.SHRQ(operand.Imm(5), m3x3) // a bit for four bytes
			g.ADDQ(g.slot("mask"), m3x3)
		}
		g.arg("rows", left3x3)
		g.arg("above", hasAbove3x3)
		// Which rows of inputs there are.
		next := prefix + "Next"
		g.Label(next)
		g.CMPQ(left3x3, operand.Imm(0))
		g.JE(operand.LabelRef(prefix + "End"))
		g.MOVQ(g.slot("below"), reg.RAX)
		g.ADDQ(left3x3, reg.RAX) // rows from here on
		g.CMPQ(left3x3, operand.Imm(1))
		g.JE(operand.LabelRef(prefix + "Single"))
		form := func(above, below, pair bool) string {
			name := prefix
			for _, part := range []struct {
				is   bool
				name string
			}{{pair, "Pair"}, {!pair, "One"}, {above, "Above"}, {below, "Below"}} {
				if part.is {
					name += part.name
				}
			}
			return name
		}
		choose := func(pair bool, rows uint64) {
			g.CMPQ(hasAbove3x3, operand.Imm(0))
			g.JE(operand.LabelRef(form(false, false, pair) + "Top"))
			g.CMPQ(reg.RAX, operand.Imm(rows))
			g.JG(operand.LabelRef(form(true, true, pair)))
			g.JMP(operand.LabelRef(form(true, false, pair)))
			g.Label(form(false, false, pair) + "Top")
			g.CMPQ(reg.RAX, operand.Imm(rows))
			g.JG(operand.LabelRef(form(false, true, pair)))
			g.JMP(operand.LabelRef(form(false, false, pair)))
		}
		choose(true, 2)
		g.Label(prefix + "Single")
		choose(false, 1)
		for _, pair := range []bool{true, false} {
			for _, above := range []bool{true, false} {
				for _, below := range []bool{true, false} {
					r.name, r.pair, r.exist = form(above, below, pair), pair, [4]bool{above, true, below || pair, below && pair}
					r.emit(frame, next)
				}
			}
		}
		g.Label(prefix + "End")
	})
}
