package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// F(4x4,3x3) with the interpolation points 0, ±p, ±q and ∞, p = 1/√2 and q = √2. The one-dimensional maps are written in
// winograd.go of package kern. Every two-dimensional map goes over the columns first and keeps some rows of the result in
// registers, then over those rows; the rows that share sums are taken together, so nothing is computed twice.
//
// Without the point 0 these are the maps of F(4x4,2x2), whose patches are rows and columns 1 to 5 of the others. The kernels
// called Two begin with the second point, and there may be no ∞: rowTo and colTo are where the points end, 5 or 6.

const (
	p = math.Sqrt2 / 2
	q = math.Sqrt2
)

func winogradConstants(c *build.Context) map[string]operand.Mem {
	value := map[string]operand.Mem{}
	for _, k := range []struct {
		name string
		v    float32
	}{
		{"half", .5}, {"two", 2}, {"fiveHalves", 2.5}, {"p", p}, {"q", q}, {"halfP", p / 2}, {"twoQ", 2 * q},
		{"third", 1. / 3}, {"sixth", 1. / 6}, {"minusTwoThirds", -2. / 3}, {"minusTwoThirdsP", -2. / 3 * p}, {"sixthQ", q / 6},
	} {
		value[k.name] = constant(c, k.name, k.v)
	}
	return value
}

func winogradFile(c *build.Context) {
	value, bits := winogradConstants(c), laneBits(c)
	for _, g := range isas(c) {
		w := winograd{isa: g, value: value, bits: bits}
		w.input(0)
		w.input(1)
		w.gradient()
		for _, first := range []int{0, 1} {
			for _, extra := range []string{"", "extra", "mask", "extra, mask"} {
				w.output(first, extra)
			}
		}
		w.weights()
		w.weightsGrad()
		for tiles := 1; tiles <= fewTiles(g); tiles++ {
			w.products(tiles)
		}
	}
}

type winograd struct {
	isa
	value map[string]operand.Mem
	held  map[string]reg.VecPhysical
	bits  operand.Mem // of masks
	left  operand.Mem // vectors of the tile
	form  string      // of the code of a vector, after its labels
}

// work is one of the four registers beside the temporaries: 0 is for constants that are not held.
func (w *winograd) work(n int) reg.VecPhysical {
	if w.wide() {
		return w.v(28 + n)
	}
	return w.v(12 + n)
}

// hold loads constants to stay in registers, where there are enough of them.
func (w *winograd) hold(names ...string) {
	w.held = map[string]reg.VecPhysical{}
	if !w.wide() {
		return
	}
	for i, n := range names {
		w.held[n] = w.v(27 - i)
		w.VBROADCASTSS(w.value[n], w.held[n])
	}
}

// k is a register with a constant: the held one, or work register 0 loaded with it.
func (w *winograd) k(name string) reg.VecPhysical {
	if r, ok := w.held[name]; ok {
		return r
	}
	if w.wide() {
		panic("constant not held: " + name)
	}
	w.VBROADCASTSS(w.value[name], w.work(0))
	return w.work(0)
}

// move copies a register or loads memory.
func (w *winograd) move(src operand.Op, dst reg.VecPhysical) {
	if src == operand.Op(dst) {
		return
	}
	w.VMOVUPS(src, dst)
}

// source gives an operand: a register, memory, or whatever it loaded into a register just now.
type source func() operand.Op

func (w *winograd) register(n int) source { return func() operand.Op { return w.v(n) } }

// endRow: out = a + b - 5/2·c, the maps of the points 0 and ∞ of an input.
func (w *winograd) endRow(out reg.VecPhysical, a, b, c source) {
	w.move(a(), out)
	w.VADDPS(b(), out, out)
	k := w.k("fiveHalves")
	w.VFNMADD231PS(c(), k, out)
}

// pairRow: the maps of the points ±x of an input, (s4 - (5/2-x²)·s2) ± x·(s3 - (5/2-x²)·s1).
func (w *winograd) pairRow(plus, minus reg.VecPhysical, s1, s2, s3, s4 source, other, x string) {
	u := w.work(1)
	w.move(s4(), minus)
	w.move(s3(), u)
	k := w.k(other)
	w.VFNMADD231PS(s2(), k, minus)
	w.VFNMADD231PS(s1(), k, u)
	w.plusMinus(plus, minus, u, x)
}

// plusMinus: plus, minus = minus ± x·u.
func (w *winograd) plusMinus(plus, minus, u reg.VecPhysical, x string) {
	k := w.k(x)
	w.move(minus, plus)
	w.VFMADD231PS(u, k, plus)
	w.VFNMADD231PS(u, k, minus)
}

// inputMapSources is which sources inputMap reads.
var inputMapSources = map[int][]int{0: {0, 2, 4}, 1: {1, 2, 3, 4}, 3: {1, 2, 3, 4}, 5: {1, 3, 5}}

// inputMap writes row n of the input's map of six sources: n is 0, 1 (with 2), 3 (with 4) or 5.
func (w *winograd) inputMap(n int, s [6]source, out func(n int) reg.VecPhysical) {
	switch n {
	case 0:
		w.endRow(out(0), s[0], s[4], s[2])
	case 1:
		w.pairRow(out(1), out(2), s[1], s[2], s[3], s[4], "two", "p")
	case 3:
		w.pairRow(out(3), out(4), s[1], s[2], s[3], s[4], "half", "q")
	case 5:
		w.endRow(out(5), s[1], s[5], s[3])
	}
}

// gradientMap writes row n of the output gradient's map of four sources.
func (w *winograd) gradientMap(n int, s [4]source, out func(n int) reg.VecPhysical) {
	pair := func(plus, minus reg.VecPhysical, square, x string) {
		u := w.work(1)
		w.move(s[0](), minus)
		w.move(s[1](), u)
		k := w.k(square)
		w.VFMADD231PS(s[2](), k, minus)
		w.VFMADD231PS(s[3](), k, u)
		w.plusMinus(plus, minus, u, x)
	}
	switch n {
	case 0:
		w.move(s[0](), out(0))
	case 1:
		pair(out(1), out(2), "half", "p")
	case 3:
		pair(out(3), out(4), "two", "q")
	case 5:
		w.move(s[3](), out(5))
	}
}

// weightsMap writes row n of the weights' map of three sources.
func (w *winograd) weightsMap(n int, s [3]source, out func(n int) reg.VecPhysical) {
	pair := func(plus, minus reg.VecPhysical, square, scale, scaledX string) {
		u := w.work(1)
		w.move(s[0](), minus)
		w.move(s[1](), u)
		k := w.k(square)
		w.VFMADD231PS(s[2](), k, minus)
		k = w.k(scale)
		w.VMULPS(k, minus, minus)
		w.plusMinus(plus, minus, u, scaledX)
	}
	switch n {
	case 0:
		w.move(s[0](), out(0))
	case 1:
		pair(out(1), out(2), "half", "minusTwoThirds", "minusTwoThirdsP")
	case 3:
		pair(out(3), out(4), "two", "sixth", "sixthQ")
	case 5:
		w.move(s[2](), out(5))
	}
}

// rowGroup is rows of a first pass that stay in registers together, and the maps that make them.
type rowGroup struct {
	rows, maps []int
}

// planeStores stores the results of one row into planes from D on, then moves D by six planes.
type planeStores struct{ d, plane, plane3, tmp reg.GPPhysical }

// startPlanes is for rows of planes from the first point on.
func (w *winograd) startPlanes(d reg.GPPhysical, first int) planeStores {
	s := planeStores{d, reg.R11, reg.R12, reg.R13}
	w.floats("plane", s.plane)
	w.LEAQ(at(s.plane, s.plane, 2), s.plane3)
	w.MOVQ(s.plane3, s.tmp) // the planes of all rows less one vector, to step from the end of one vector to the next
	if first == 0 {
		w.SHLQ(operand.Imm(2), s.tmp)
		w.LEAQ(at(s.tmp, s.tmp, 2), s.tmp)
	} else {
		w.SHLQ(operand.Imm(1), s.tmp)
		w.LEAQ(at(s.tmp, s.tmp, 4), s.tmp)
	}
	vector := w.bytes()
	if w.pairs {
		vector /= 2
	}
	w.SUBQ(operand.Imm(uint64(vector)), s.tmp)
	w.MOVQ(s.tmp, w.slot("plane"))
	return s
}

func (w *winograd) store(s planeStores, x reg.VecPhysical, column int) {
	if w.pairs {
		w.round(x, x)
		x = x.AsY().(reg.VecPhysical)
	}
	m := deref(s.d)
	switch column {
	case 1, 2, 4:
		m = at(s.d, s.plane, uint8(column))
	case 3:
		m = at(s.d, s.plane3, 1)
	case 5:
		w.LEAQ(at(s.d, s.plane, 4), s.tmp)
		m = at(s.tmp, s.plane, 1)
	}
	w.VMOVUPS(x, m)
}

func (w *winograd) nextRow(s planeStores) { w.LEAQ(at(s.d, s.plane3, 2), s.d) }

// nextVector goes back to the first plane, one vector on.
func (w *winograd) nextVector(s planeStores) { w.SUBQ(w.slot("plane"), s.d) }

// walk is the destination's and the sources' way through tiles that are four columns apart, for which off and col are turned
// into bytes: off where the first tile starts, col four columns.
func (s planeStores) walk(w *winograd, off reg.GPPhysical) []operandOf {
	w.SHLQ(operand.Imm(2), w.slot("tile"))
	w.SHLQ(operand.Imm(2), w.slot("off"))
	w.SHLQ(operand.Imm(4), w.slot("col"))
	return []operandOf{{"dst", s.d, w.slot("tile")}, {"off", off, w.slot("col")}}
}

// operandOf is a register that walks through a tile. It starts where its parameter says, which moves by step, in bytes, from
// one tile to the next, or stays if that is nil.
type operandOf struct {
	param string
	r     reg.GPPhysical
	step  operand.Op
}

// tiles repeats the code of one vector for all vectors of all tiles, and returns.
func (w *winograd) tiles(operands []operandOf, vector func()) {
	w.startTile(operands)
	w.Label("vector")
	vector()
	w.DECQ(w.left)
	w.JNE(operand.LabelRef("vector"))
	w.nextTile(operands)
	w.DECQ(w.slot("count"))
	w.JNE(operand.LabelRef("tile"))
	w.VZEROUPPER()
	w.RET()
}

// patches is tiles where those at both ends may have masks of their columns, which other code then applies; it repeats them for
// spans that are four rows apart. rows are pointers to those of a span, for which row, height and tmp serve.
func (w *winograd) patches(rows []reg.GPPhysical, tmp reg.GPPhysical, operands []operandOf, columns int, vector func(masks *reg.GPPhysical)) {
	masks, x := reg.R15, reg.R15
	w.SHLQ(operand.Imm(2), w.slot("row"))
	w.arg("y", x)
	w.IMULQ(w.slot("row"), x)
	w.ADDQ(w.slot("x"), x)
	w.MOVQ(x, w.slot("x"))
	// What the tiles of a span change.
	changed := []string{"off", "first", "count"}
	start := map[string]operand.Mem{}
	for _, p := range changed {
		w.MOVQ(w.slot(p), tmp)
		start[p] = w.local(tmp)
	}
	w.Label("span")
	w.arg("x", x)
	w.arg("y", tmp)
	for i, r := range rows {
		w.MOVQ(x, r)
		w.CMPQ(tmp, w.slot("height"))
		w.CMOVQCC(w.slot("zeros"), r)
		w.ADDQ(w.slot("row"), x)
		w.INCQ(tmp)
		if i == 3 {
			w.MOVQ(x, w.slot("x"))
			w.MOVQ(tmp, w.slot("y"))
		}
	}
	w.startTile(operands)
	w.arg("first", masks)
	w.TESTQ(masks, masks)
	w.JNE(operand.LabelRef("masked"))
	w.Label("vector")
	w.form = ""
	vector(nil)
	w.DECQ(w.left)
	w.JNE(operand.LabelRef("vector"))
	w.JMP(operand.LabelRef("next"))

	w.Label("masked")
	if w.wide() {
		for j := range columns {
			w.KMOVW(operand.Mem{Base: masks, Disp: 32 * j}, columnMask(j))
		}
	}
	w.Label("maskedVector")
	w.form = "Masked"
	vector(&masks)
	w.DECQ(w.left)
	w.JNE(operand.LabelRef("maskedVector"))

	w.Label("next")
	w.nextTile(operands)
	w.XORQ(masks, masks)
	w.DECQ(w.slot("count"))
	w.JE(operand.LabelRef("spanDone"))
	w.CMPQ(w.slot("count"), operand.Imm(1))
	w.CMOVQEQ(w.slot("last"), masks)
	w.MOVQ(masks, w.slot("first"))
	w.JMP(operand.LabelRef("tile"))
	w.Label("spanDone")
	for _, p := range changed {
		w.MOVQ(start[p], tmp)
		w.MOVQ(tmp, w.slot(p))
	}
	w.DECQ(w.slot("spans"))
	w.JNE(operand.LabelRef("span"))
	w.VZEROUPPER()
	w.RET()
}

func (w *winograd) startTile(operands []operandOf) {
	w.left = w.AllocLocal(8)
	w.Label("tile")
	w.arg("vecs", operands[0].r)
	w.MOVQ(operands[0].r, w.left)
	for _, o := range operands {
		w.arg(o.param, o.r)
	}
}

func (w *winograd) nextTile(operands []operandOf) {
	for _, o := range operands {
		if o.step != nil {
			w.MOVQ(o.step, o.r)
			w.ADDQ(o.r, w.slot(o.param))
		}
	}
}

// local keeps a number in the function's frame.
func (w *winograd) local(r reg.GPPhysical) operand.Mem {
	m := w.AllocLocal(8)
	w.MOVQ(r, m)
	return m
}

// point emits code for point n. Without the point 0 there may be no ∞: then its code is jumped over.
func (w *winograd) point(first, n int, to, label string, code func()) {
	if first == 0 || n < 5 {
		code()
		return
	}
	w.CMPQ(w.slot(to), operand.Imm(6))
	label += w.form
	w.JNE(operand.LabelRef(label))
	code()
	w.Label(label)
}

// spread runs a map over one row of temporaries and stores its results from the first point on.
func (w *winograd) spread(s planeStores, first, row int, mapping func(n int, out func(n int) reg.VecPhysical)) {
	for _, n := range []int{0, 5, 1, 3} {
		switch {
		case n < first:
		case n == 0 || n == 5:
			w.point(first, n, "colTo", fmt.Sprintf("noEnd%d", row), func() {
				mapping(n, func(int) reg.VecPhysical { return w.work(2) })
				w.store(s, w.work(2), n)
			})
		default:
			mapping(n, func(m int) reg.VecPhysical { return w.work(2 + m - n) })
			w.store(s, w.work(2), n)
			w.store(s, w.work(3), n+1)
		}
	}
}

// maskedColumns makes sources of one column of a patch: the vectors at offset off of some row pointers, zero where the
// column's mask is, if there are masks. In the wide set they are loaded once, into registers 18 to 22.
func (w *winograd) maskedColumns(rows []reg.GPPhysical, off reg.GPPhysical, masks *reg.GPPhysical, column int, used []int) []source {
	s := make([]source, len(rows))
	for _, i := range used {
		m := at(rows[i], off, 1)
		switch {
		case w.wide():
			x := w.v(18 + i - used[0])
			s[i] = func() operand.Op { return x }
			if masks == nil {
				w.VMOVUPS(m, x)
				continue
			}
			w.VMOVUPS_Z(m, columnMask(column), x)
		case masks != nil:
			s[i] = func() operand.Op {
				x := w.work(3)
				w.VMOVUPS(operand.Mem{Base: *masks, Disp: 32 * column}, x)
				w.VMASKMOVPS(m, x, x)
				return x
			}
		default:
			s[i] = func() operand.Op { return m }
		}
	}
	return s
}

// columnMask is the register with the mask of a column, in the wide set.
func columnMask(column int) reg.OpmaskPhysical {
	return []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4, reg.K5, reg.K6}[column]
}

// imageParams is what patches are taken of, and outside what they have beside it.
const (
	imageParams = "x *float32, row int, zeros *float32, y, height, off, col int"
	outside     = "where rows that are not in [0,height) are zeros and the masks of a span's first and last patch, which may be nil, make zeros:"
)

// input is from the first point on.
func (w *winograd) input(first int) {
	name, pointParams := "winogradInput", ""
	doc := []string{" transforms vecs vectors of 6x6 patches d[s][t][i][j] = x[(y+4*s+i)*row + off + (4*t+j)*col + lane],",
		"for s in [0,spans) and t in [0,count), " + outside,
		"",
		"	dst[(6*i+j)*plane + (s*count+t)*tile + lane] = (Bᵀ·d[s][t]·B)[i][j]"}
	if first == 1 {
		name, pointParams = "winogradTwoInput", "rowTo, colTo int, "
		doc = []string{" transforms vecs vectors of 5x5 patches d[s][t][i][j] = x[(y+4*s+i-1)*row + off + (4*t+j-1)*col + lane],",
			"for s in [0,spans), t in [0,count), i in [1,rowTo) and j in [1,colTo),",
			outside,
			"",
			"	dst[(6*(i-1)+j)*plane + (s*count+t)*tile + lane] = (Bᵀ·d[s][t]·B)[i][j]"}
	}
	doc[0] = name + w.name + doc[0]
	if w.pairs {
		doc[len(doc)-1] += ","
		doc = append(doc, "", "rounded to bfloat16, for whose pairs the elements of dst are counted.")
	}
	w.fn(name, "(dst *float32, plane, tile int, "+imageParams+", "+pointParams+"first, last *[6][8]uint32, vecs, count, spans int)", doc...)
	rows := []reg.GPPhysical{reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI}
	off, col := reg.R8, w.floats("col", reg.R9)
	s := w.startPlanes(reg.R10, first)
	if first == 0 {
		w.LEAQ(at(col, col, 2), s.tmp)
		w.SHLQ(operand.Imm(1), s.tmp)
	} else {
		w.LEAQ(at(col, col, 4), s.tmp)
	}
	patch := w.local(s.tmp)
	w.hold("fiveHalves", "two", "half", "p", "q")
	groups := []rowGroup{{[]int{0}, []int{0}}, {[]int{1, 2}, []int{1}}, {[]int{3, 4}, []int{3}}, {[]int{5}, []int{5}}}[first:]
	if w.wide() && first == 0 {
		groups = []rowGroup{{[]int{0, 1, 2}, []int{0, 1}}, {[]int{3, 4, 5}, []int{3, 5}}}
	}
	w.patches(rows[first:], s.tmp, s.walk(w, off), 6, func(masks *reg.GPPhysical) {
		for _, g := range groups {
			temp := func(row, column int) reg.VecPhysical { return w.v((row-g.rows[0])*6 + column) }
			var used []int
			for i := range 6 {
				if slices.ContainsFunc(g.maps, func(m int) bool { return slices.Contains(inputMapSources[m], i) }) {
					used = append(used, i)
				}
			}
			w.point(first, g.rows[0], "rowTo", "noLastRow", func() {
				for j := first; j < 6; j++ {
					w.point(first, j, "colTo", fmt.Sprintf("noLastColumn%d", g.rows[0]), func() {
						src := w.maskedColumns(rows, off, masks, j, used)
						for _, m := range g.maps {
							w.inputMap(m, [6]source(src), func(n int) reg.VecPhysical { return temp(n, j) })
						}
					})
					w.ADDQ(col, off)
				}
				w.SUBQ(patch, off)
				for i, r := range g.rows {
					var src [6]source
					for j := first; j < 6; j++ {
						src[j] = w.register((r-g.rows[0])*6 + j)
					}
					if i > 0 {
						w.nextRow(s)
					}
					w.spread(s, first, r, func(n int, out func(n int) reg.VecPhysical) { w.inputMap(n, src, out) })
				}
			})
			w.nextRow(s)
		}
		w.ADDQ(operand.Imm(uint64(w.bytes())), off)
		w.nextVector(s)
	})
}

func (w *winograd) gradient() {
	const name = "winogradGradient"
	w.fn(name, "(dst *float32, plane, tile int, "+imageParams+", first, last *[6][8]uint32, vecs, count, spans int)",
		name+w.name+" transforms vecs vectors of 4x4 patches d[s][t][i][j] = x[(y+4*s+i)*row + off + (4*t+j)*col + lane],",
		"for s in [0,spans) and t in [0,count), "+outside,
		"",
		"	dst[(6*i+j)*plane + (s*count+t)*tile + lane] = (A·d[s][t]·Aᵀ)[i][j]")
	rows := []reg.GPPhysical{reg.RAX, reg.RBX, reg.RCX, reg.RDX}
	off, col := reg.R8, w.floats("col", reg.R9)
	s := w.startPlanes(reg.R10, 0)
	w.hold("two", "half", "p", "q")
	w.patches(rows, s.tmp, s.walk(w, off), 4, func(masks *reg.GPPhysical) {
		for _, g := range []rowGroup{{[]int{0, 1, 2}, []int{0, 1}}, {[]int{3, 4, 5}, []int{3, 5}}} {
			for j := range 4 {
				src := w.maskedColumns(rows, off, masks, j, []int{0, 1, 2, 3})
				for _, m := range g.maps {
					w.gradientMap(m, [4]source(src), func(n int) reg.VecPhysical { return w.v((n-g.rows[0])*4 + j) })
				}
				w.ADDQ(col, off)
			}
			w.SUBQ(w.slot("col"), off)
			for _, r := range g.rows {
				var src [4]source
				for j := range 4 {
					src[j] = w.register((r-g.rows[0])*4 + j)
				}
				w.spread(s, 0, r, func(n int, out func(n int) reg.VecPhysical) { w.gradientMap(n, src, out) })
				w.nextRow(s)
			}
		}
		w.ADDQ(operand.Imm(uint64(w.bytes())), off)
		w.nextVector(s)
	})
}

// planeLoads addresses six planes that are six planes apart, from S on.
type planeLoads struct{ s, plane, plane6, plane18, plane30 reg.GPPhysical }

func (w *winograd) startLoads() planeLoads {
	l := planeLoads{reg.RSI, reg.R8, reg.R9, reg.R10, reg.R11}
	w.floats("srcPlane", l.plane)
	w.LEAQ(at(l.plane, l.plane, 2), l.plane6)
	w.SHLQ(operand.Imm(1), l.plane6)
	w.LEAQ(at(l.plane6, l.plane6, 2), l.plane18)
	w.LEAQ(at(l.plane6, l.plane6, 4), l.plane30)
	return l
}

func (l planeLoads) row(i int) operand.Mem {
	switch i {
	case 1, 2, 4:
		return at(l.s, l.plane6, uint8(i))
	case 3:
		return at(l.s, l.plane18, 1)
	case 5:
		return at(l.s, l.plane30, 1)
	}
	return deref(l.s)
}

// sums puts m1 ± m2 and m3 ± m4 into work registers 1 and 2.
func (w *winograd) sums(l planeLoads, minus bool) (a, b reg.VecPhysical) {
	a, b = w.work(1), w.work(2)
	w.VMOVUPS(l.row(1), a)
	w.VMOVUPS(l.row(3), b)
	if minus {
		w.VSUBPS(l.row(2), a, a)
		w.VSUBPS(l.row(4), b, b)
	} else {
		w.VADDPS(l.row(2), a, a)
		w.VADDPS(l.row(4), b, b)
	}
	return a, b
}

// output has four forms, from the first point on: plain, with an array that is added, with one that masks, and with both.
func (w *winograd) output(first int, extra string) {
	const maskBit = "bit lane%16 of mask[i*maskRow + (4*t+j)*maskCol + lane/16] is set"
	name, params, sum := "Output", "bias *float32, ", "max(floor, (Aᵀ·s[t]·A)[i][j] + bias[lane])"
	switch extra {
	case "extra":
		name, params = "OutputAdd", "bias, extra *float32, "
		sum = "max(floor, (Aᵀ·s[t]·A)[i][j] + bias[lane] + extra[i*row + (4*t+j)*col + lane])"
	case "mask":
		name, params = "OutputMask", "mask *uint16, maskRow, maskCol int, "
		sum = "(Aᵀ·s[t]·A)[i][j] if " + maskBit + ", else 0"
	}
	both := extra == "extra, mask"
	if both {
		name, params = "OutputAddMask", "extra *float32, mask *uint16, maskRow, maskCol int, "
		sum = "(Aᵀ·s[t]·A)[i][j] + extra[i*row + (4*t+j)*col + lane] if " + maskBit + ", else 0"
		extra = "mask"
	}
	if extra != "mask" {
		params += "floor float32, "
	}
	doc := []string{" transforms vecs vectors of the products of count tiles, s[t][i][j] = src[(6*i+j)*srcPlane + t*tile + lane], for",
		"i, j in [0,4):",
		"",
		"	y[i*row + (4*t+j)*col + lane] = " + sum}
	if first == 0 {
		name = "winograd" + name
	} else {
		name, params = "winogradTwo"+name, "rowTo, colTo int, "+params
		doc[0] = " transforms vecs vectors of the products of count tiles, s[t][i][j] = src[(6*i+j-1)*srcPlane + t*tile + lane]"
		doc[1] = "where i is in [1,rowTo) and j in [1,colTo) and 0 elsewhere, for i, j in [0,4):"
	}
	doc[0] = name + w.name + doc[0]
	w.fn(name, "(y *float32, row, col int, src *float32, srcPlane, tile int, "+params+"vecs, count int)", doc...)
	l := w.startLoads()
	y, bias, other := reg.RDI, reg.RBX, reg.RDX
	row, col := w.floats("row", reg.R12), w.floats("col", reg.R13)
	w.LEAQ(at(col, col, 2), reg.R15)
	yRow, otherRow := reg.RCX, reg.RAX
	w.SHLQ(operand.Imm(2), w.slot("tile"))
	w.SHLQ(operand.Imm(4), w.slot("col")) // four columns
	walk := []operandOf{{"src", l.s, w.slot("tile")}, {"y", y, w.slot("col")}}
	w.hold("half", "two", "p", "q", "halfP", "twoQ")
	floor := w.work(3)
	if extra != "mask" {
		walk = append(walk, operandOf{"bias", bias, nil})
	}
	switch extra {
	case "extra":
		walk = append(walk, operandOf{extra, other, w.slot("col")})
	case "mask":
		w.SHLQ(operand.Imm(1), w.slot("maskRow"))
		w.arg("maskCol", otherRow)
		w.SHLQ(operand.Imm(3), otherRow)
		walk = append(walk, operandOf{extra, other, w.local(otherRow)}) // four columns
		w.SHLQ(operand.Imm(1), w.slot("maskCol"))
	}
	if both { // as its distance from y
		w.arg("extra", bias)
		w.SUBQ(w.slot("y"), bias)
	}
	column := func(base reg.GPPhysical, j int) operand.Mem {
		switch j {
		case 1, 2:
			return at(base, col, uint8(j))
		case 3:
			return at(base, reg.R15, 1)
		}
		return deref(base)
	}
	finish := func(x reg.VecPhysical, j int) {
		switch extra {
		case "mask":
			w.keepMasked(deref(otherRow), w.bits, x, w.work(0))
			if j < 3 {
				w.ADDQ(w.slot("maskCol"), otherRow)
			}
		case "extra":
			w.VADDPS(column(otherRow, j), x, x)
			fallthrough
		default:
			w.VADDPS(deref(bias), x, x)
			w.VMAXPS(x, floor, x)
		}
		w.VMOVUPS(x, column(yRow, j))
	}
	// otherStart goes to row i of the other array.
	otherStart := func(i int) {
		if extra == "" {
			return
		}
		w.MOVQ(other, otherRow)
		for range i {
			if extra == "mask" {
				w.ADDQ(w.slot("maskRow"), otherRow)
			} else {
				w.ADDQ(row, otherRow)
			}
		}
	}
	w.tiles(walk, func() {
		if extra != "mask" {
			w.VBROADCASTSS(w.slot("floor"), floor)
		}
		for _, odd := range []int{0, 1} {
			for j := first; j < 6; j++ {
				t0, t1 := w.v(j), w.v(6+j)
				if first > 0 && j == 5 {
					w.zero(t0)
					w.zero(t1)
				}
				w.point(first, j, "colTo", fmt.Sprintf("noLastColumn%d", odd), func() {
					a, b := w.sums(l, odd == 1)
					switch {
					case odd == 0 && first == 0:
						w.VMOVUPS(l.row(0), t0)
						w.VADDPS(a, t0, t0)
						w.VADDPS(b, t0, t0)
					case odd == 0:
						w.VADDPS(b, a, t0)
					default:
						w.VMULPS(w.k("p"), a, t0)
						w.VFMADD231PS(b, w.k("q"), t0)
					}
					if odd == 0 {
						w.VMULPS(w.k("half"), a, t1)
						w.VFMADD231PS(b, w.k("two"), t1)
						return
					}
					if first > 0 {
						w.zero(t1)
					}
					w.point(first, 5, "rowTo", fmt.Sprintf("noLastRow%d", j), func() { w.VMOVUPS(l.row(5), t1) })
					w.VFMADD231PS(a, w.k("halfP"), t1)
					w.VFMADD231PS(b, w.k("twoQ"), t1)
				})
				if j < 5 {
					w.ADDQ(l.plane, l.s)
				}
			}
			w.SUBQ(l.plane6, l.s)
			for range 1 + first {
				w.ADDQ(l.plane, l.s)
			}
			w.MOVQ(y, yRow)
			if odd == 1 {
				w.ADDQ(row, yRow)
			}
			otherStart(odd)
			for r := range 2 {
				t := func(n int) reg.VecPhysical { return w.v(6*r + n) }
				a, b := w.work(1), w.work(2)
				w.VADDPS(t(2), t(1), a)
				w.VSUBPS(t(2), t(1), t(1))
				w.VADDPS(t(4), t(3), b)
				w.VSUBPS(t(4), t(3), t(3))
				if first == 0 {
					w.VADDPS(a, t(0), t(0))
					w.VADDPS(b, t(0), t(0))
				} else {
					w.VADDPS(b, a, t(0))
				}
				w.VMULPS(w.k("half"), a, a)
				w.VFMADD231PS(b, w.k("two"), a)
				w.VMULPS(w.k("p"), t(1), b)
				w.VFMADD231PS(t(3), w.k("q"), b)
				w.VFMADD231PS(t(1), w.k("halfP"), t(5))
				w.VFMADD231PS(t(3), w.k("twoQ"), t(5))
				if both {
					w.ADDQ(bias, yRow)
					for j, x := range []reg.VecPhysical{t(0), b, a, t(5)} {
						w.VADDPS(column(yRow, j), x, x)
					}
					w.SUBQ(bias, yRow)
				}
				finish(t(0), 0)
				finish(b, 1)
				finish(a, 2)
				finish(t(5), 3)
				if r == 0 {
					w.LEAQ(at(yRow, row, 2), yRow)
					otherStart(odd + 2)
				}
			}
		}
		step := operand.Imm(uint64(w.bytes()))
		w.ADDQ(step, l.s)
		w.ADDQ(step, y)
		if extra != "mask" {
			w.ADDQ(step, bias)
		}
		switch extra {
		case "extra":
			w.ADDQ(step, other)
		case "mask":
			w.ADDQ(operand.Imm(uint64(w.lanes/8)), other)
		}
	})
}

func (w *winograd) weights() {
	w.fn("winogradWeights", "(dst *float32, plane int, src *float32, srcPlane int, vecs int)",
		"winogradWeights"+w.name+" transforms vecs vectors of 3x3 weights g[i][j] = src[(3*i+j)*srcPlane + lane]:",
		"",
		"	dst[(6*i+j)*plane + lane] = (G·g·Gᵀ)[i][j]")
	src := w.arg("src", reg.RSI)
	one := w.floats("srcPlane", reg.R8)
	three := reg.R9
	w.LEAQ(at(one, one, 2), three)
	s := w.startPlanes(reg.R10, 0)
	w.arg("dst", s.d)
	w.hold("half", "two", "minusTwoThirds", "minusTwoThirdsP", "sixth", "sixthQ")
	w.Label("vector")
	for _, g := range []rowGroup{{[]int{0, 1, 2}, []int{0, 1}}, {[]int{3, 4, 5}, []int{3, 5}}} {
		for j := range 3 {
			var from [3]source
			for i := range from {
				m := deref(src)
				if i > 0 {
					m = at(src, three, uint8(i))
				}
				from[i] = func() operand.Op { return m }
			}
			for _, m := range g.maps {
				w.weightsMap(m, from, func(n int) reg.VecPhysical { return w.v((n-g.rows[0])*3 + j) })
			}
			w.ADDQ(one, src)
		}
		w.SUBQ(three, src)
		for _, r := range g.rows {
			var from [3]source
			for j := range from {
				from[j] = w.register((r-g.rows[0])*3 + j)
			}
			w.spread(s, 0, r, func(n int, out func(n int) reg.VecPhysical) { w.weightsMap(n, from, out) })
			w.nextRow(s)
		}
	}
	w.ADDQ(operand.Imm(uint64(w.bytes())), src)
	w.nextVector(s)
	w.DECQ(w.slot("vecs"))
	w.JNE(operand.LabelRef("vector"))
	w.VZEROUPPER()
	w.RET()
}

func (w *winograd) weightsGrad() {
	w.fn("winogradWeightsGrad", "(dst *float32, plane int, src *float32, srcPlane int, vecs int)",
		"winogradWeightsGrad"+w.name+" transforms vecs vectors u[i][j] = src[(6*i+j)*srcPlane + lane], for i, j in [0,3):",
		"",
		"	dst[(3*i+j)*plane + lane] = (Gᵀ·u·G)[i][j]")
	l := w.startLoads()
	w.arg("src", l.s)
	d, plane := w.arg("dst", reg.RDI), w.floats("plane", reg.R12)
	row := reg.RCX
	plane3 := reg.R13
	w.LEAQ(at(plane, plane, 2), plane3)
	w.hold("third", "sixth", "minusTwoThirds", "minusTwoThirdsP", "sixthQ")
	w.Label("vector")
	w.MOVQ(d, row)
	// Two rows share their sums; all three are stored in the order 0, 2, 1.
	for _, rows := range [][]int{{0, 2}, {1}} {
		for j := range 6 {
			a, b := w.sums(l, rows[0] == 1)
			t0 := w.v(j)
			if rows[0] == 1 {
				w.VMULPS(w.k("minusTwoThirdsP"), a, t0)
				w.VFMADD231PS(b, w.k("sixthQ"), t0)
			} else {
				t2 := w.v(6 + j)
				w.VMOVUPS(l.row(0), t0)
				w.VFMADD231PS(a, w.k("minusTwoThirds"), t0)
				w.VFMADD231PS(b, w.k("sixth"), t0)
				w.VMOVUPS(l.row(5), t2)
				w.VSUBPS(a, b, b)
				w.VFMADD231PS(b, w.k("third"), t2)
			}
			if j < 5 {
				w.ADDQ(l.plane, l.s)
			}
		}
		w.SUBQ(l.plane6, l.s)
		w.ADDQ(l.plane, l.s)
		for i, r := range rows {
			t := func(n int) reg.VecPhysical { return w.v(6*i + n) }
			a, b := w.work(1), w.work(2)
			w.VADDPS(t(2), t(1), a)
			w.VSUBPS(t(2), t(1), t(1))
			w.VADDPS(t(4), t(3), b)
			w.VSUBPS(t(4), t(3), t(3))
			w.VFMADD231PS(a, w.k("minusTwoThirds"), t(0))
			w.VFMADD231PS(b, w.k("sixth"), t(0))
			w.VSUBPS(a, b, b)
			w.VFMADD231PS(b, w.k("third"), t(5))
			w.VMULPS(w.k("minusTwoThirdsP"), t(1), a)
			w.VFMADD231PS(t(3), w.k("sixthQ"), a)
			switch r {
			case 0:
				w.MOVQ(d, row)
			case 1:
				w.LEAQ(at(d, plane3, 1), row)
			case 2:
				w.LEAQ(at(d, plane3, 2), row)
			}
			w.VMOVUPS(t(0), deref(row))
			w.VMOVUPS(a, at(row, plane, 1))
			w.VMOVUPS(t(5), at(row, plane, 2))
		}
	}
	step := operand.Imm(uint64(w.bytes()))
	w.ADDQ(step, l.s)
	w.ADDQ(step, d)
	w.DECQ(w.slot("vecs"))
	w.JNE(operand.LabelRef("vector"))
	w.VZEROUPPER()
	w.RET()
}
