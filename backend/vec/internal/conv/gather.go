package conv

import (
	"math"
	"slices"

	"github.com/adaad-go/adaad/internal/kern"
)

// gather is a convolution as a matrix product whose left operand is gathered block by block (implicit GEMM):
//
//	out[n, oy·outStep+outOff, ox·..., o] = Σ_{tap, i} in[n, oy·inStep+tap.dy, ox·inStep+tap.dx, i] · w[tap, i, o]
//
// over a grid of gh×gw points (oy,ox) in each image, in being zero outside. A forward convolution is one gather; a
// gradient by input is one for each residue of the input coordinates modulo the stride.
type gather struct {
	set              *kern.Set // of the products, which may be of bfloat16
	least            int       // tasks, where there is enough to do
	n, gh, gw        int
	inH, inW, inC    int
	stepH, stepW     int
	outH, outW, outC int
	outStepH, outOffH,
	outStepW, outOffW int
	groups, ci, co int // per group
	taps           []tap
	blocks         []tapBlock
	edge           edge
	direct         bool // rows of the input are rows of the left operand
	whole          bool // rows of the output are rows of the products, in whole vectors
	points, cols   int  // in a task
	aRow, cRow     int
	packedSize     int // of all groups
}

// tap is one kernel element and the input point it reads relative to the grid's.
type tap struct{ dy, dx, kh, kw int }

// tapBlock is the part of the sum that is gathered at once: runs of neighbouring taps.
type tapBlock struct {
	first, k int // rows of w
	runs     []tapRun
	beside   beside
}

func (b tapBlock) taps() int {
	n := 0
	for _, r := range b.runs {
		n += r.count
	}
	return n
}

// tapRun is count taps whose input points are contiguous in memory.
type tapRun struct{ dy, dx, count int }

// maxTerms and blockElements keep a task's gathered rows, a strip of weights and the products in a second-level cache.
const (
	maxTerms      = 784
	blockElements = 96 << 10
	minProducts   = 500e3 // of a task that does some of the columns only
)

// plan completes a gather whose geometry and taps are set.
func (g *gather) plan(bf16 bool) {
	g.set = multiplier(g.set, bf16 && g.groups == 1 && g.ci%2 == 0)
	if g.set.Halves() && g.set.Terms() == 1 {
		if set := vectors(g.set, g.co); set != nil {
			g.set = set
		}
	}
	slices.SortFunc(g.taps, func(a, b tap) int {
		if a.dy != b.dy {
			return a.dy - b.dy
		}
		return a.dx - b.dx
	})
	g.findEdge()
	for i, t := range g.taps {
		last, beside := len(g.blocks)-1, g.besideOf(t)
		if last < 0 || g.blocks[last].k+g.ci > maxTerms || g.blocks[last].beside != beside {
			g.blocks = append(g.blocks, tapBlock{first: i * g.ci, beside: beside})
			last++
		}
		b := &g.blocks[last]
		b.k += g.ci
		if r := len(b.runs) - 1; g.groups == 1 && r >= 0 && b.runs[r].dy == t.dy && b.runs[r].dx+b.runs[r].count == t.dx {
			b.runs[r].count++
		} else {
			b.runs = append(b.runs, tapRun{t.dy, t.dx, 1})
		}
	}
	g.direct = len(g.taps) == 1 && g.taps[0].dy == 0 && g.taps[0].dx == 0 && g.stepH == 1 && g.stepW == 1 && g.gh == g.inH && g.gw == g.inW
	g.whole = g.dense() && g.edge == noEdge && g.groups == 1 && g.co%g.set.Lanes() == 0 && len(g.taps) > 0
	k := 0
	for _, b := range g.blocks {
		k = max(k, b.k)
	}
	g.aRow = oddLines(k)
	if g.direct {
		g.aRow = oddLines(k / g.set.Terms())
	}
	g.cRow = oddLines(panelCols(g.set, g.co))
	g.packedSize = g.groups * len(g.taps) * g.ci / g.set.Terms() * panelCols(g.set, g.co)
	rows := maxRows(g.set, g.co)
	g.points = max(2, min(8, blockElements/(rows*(g.aRow+g.cRow)))) * rows
	for g.points > 2*rows && divUp(g.total(), g.points) < g.least {
		g.points -= rows
	}
	// So few tasks had better be equal.
	if divUp(g.total(), g.points) < g.least {
		for h := rows; h >= divUp(2*rows, 3); h-- {
			if g.total()%(2*h) == 0 {
				g.points = 2 * h
				break
			}
		}
	}
	// A few points of a single image are shared out by columns.
	g.cols = panelCols(g.set, g.co)
	if blocks := divUp(g.total(), g.points); blocks < g.least && g.groups == 1 && g.total() > 0 {
		products := float64(g.total()) * float64(len(g.taps)*g.ci) * float64(g.co)
		parts := max(1, min(g.least, int(products/minProducts))/blocks)
		g.cols = roundUp(divUp(g.co, parts), g.set.MaxVecs()*g.set.Lanes())
	}
}

func (g *gather) total() int { return g.n * g.gh * g.gw }

func (g *gather) tasks() int { return divUp(g.total(), g.points) * divUp(g.co, g.cols) }

func (g *gather) scratchSize() int { return g.points*(g.aRow+g.cRow) + 2*line }

// pack fills dst with the weights; at returns those of one tap and one input channel of a group, and their distance.
func (g *gather) pack(dst []float32, at func(group, i int, t tap) ([]float32, int)) {
	k := len(g.taps) * g.ci
	for group := range g.groups {
		size := k * panelCols(g.set, g.co)
		row := func(row int) ([]float32, int) { return at(group, row%g.ci, g.taps[row/g.ci]) }
		if g.set.Terms() == 1 {
			fillPanels(g.set, dst[group*size:(group+1)*size], k, g.co, row)
			continue
		}
		numbers := make([]float32, size)
		fillPanels(g.set, numbers, k, g.co, row)
		strip := g.set.MaxVecs() * g.set.Lanes()
		for col := 0; col < g.co; col += strip {
			g.set.PairRows(dst[col*k/2:], 0, numbers[col*k:], 0, 1, k/2, min(strip, panelCols(g.set, g.co)-col)/g.set.Lanes())
		}
	}
}

// run computes one task of the gather.
func (g *gather) run(task int, buf []float32, in, w []float32, finish *finisher) {
	parts := divUp(g.co, g.cols)
	first := task / parts * g.points
	g.compute(first, min(g.points, g.total()-first), task%parts*g.cols, buf, in, w, finish)
}

// compute makes the channels from one on, those of a task, of count points from first on, at most those of a task.
func (g *gather) compute(first, count, col int, buf []float32, in, w []float32, finish *finisher) {
	width, terms := min(g.cols, g.co-col), g.set.Terms()
	if g.direct && g.whole && terms == 1 {
		multiplyFinish(g.set, count, width, g.ci, in[first*g.inC:], g.inC, 1, right{w[col*g.ci:], g.ci, 0}, buf, g.cRow, false, finish,
			first*g.outC, col, g.outC)
		return
	}
	a, c := cut(&buf, g.points*g.aRow), cut(&buf, g.points*g.cRow)
	k := len(g.taps) * g.ci / terms
	size := k * panelCols(g.set, g.co)
	var room [stretches]stretch
	var order [2 * stretches]stretch
	points := g.sort(g.stretches(room[:0], first, count), order[:0])
	for group := range g.groups {
		w := w[group*size : (group+1)*size][col*k:]
		some := k == 0 || g.edge != noEdge // blocks are of some of the points only
		if some {
			clear(c[:count*g.cRow])
		}
		for i, b := range g.blocks {
			list, from, rows := points.of(b.beside)
			left, leftRow := a, g.aRow
			if g.direct {
				left, leftRow = in[first*g.inC+group*g.ci:], g.inC
			} else {
				g.gatherRows(a, g.aRow, b, list, in, group*g.ci)
			}
			if terms == 2 {
				g.set.Pairs(a, g.aRow, left, leftRow, rows, b.k/2)
				left, leftRow = a, g.aRow
			}
			weights := right{w, k, b.first / terms}
			if g.whole && i == len(g.blocks)-1 {
				multiplyFinish(g.set, rows, width, b.k/terms, left, leftRow, 1, weights, c, g.cRow, i > 0, finish, first*g.outC, col, g.outC)
				continue
			}
			multiply(g.set, rows, width, b.k/terms, left, leftRow, 1, weights, c[from*g.cRow:], g.cRow, i > 0 || some)
		}
		if !g.whole {
			g.scatterRows(c, points.list, group*g.co+col, width, finish)
		}
	}
}

// stretch is count points of the grid side by side, the leftmost at oy, ox of image n.
type stretch struct{ n, oy, ox, count int }

// stretches is how many of a task are expected.
const stretches = 64

// stretches appends those of count points from first on to list.
func (g *gather) stretches(list []stretch, first, count int) []stretch {
	at := stretch{n: first / g.gw / g.gh, oy: first / g.gw % g.gh, ox: first % g.gw}
	for count > 0 {
		at.count = min(g.gw-at.ox, count)
		list = append(list, at)
		count -= at.count
		at.ox = 0
		if at.oy++; at.oy == g.gh {
			at.oy = 0
			at.n++
		}
	}
	return list
}

// gatherRows writes the terms of one block for points of the grid, one row each. A run of one tap may be part of its
// channels: those from channel on, as many as there are terms.
func (g *gather) gatherRows(a []float32, aRow int, b tapBlock, points []stretch, in []float32, channel int) {
	perTap := b.k / max(1, b.taps())
	for _, s := range points {
		for ox := s.ox; ox < s.ox+s.count; ox++ {
			row := a[:b.k]
			a = a[aRow:]
			for _, r := range b.runs {
				width := r.count * perTap
				dst := row[:width:width]
				row = row[width:]
				iy, ix := s.oy*g.stepH+r.dy, ox*g.stepW+r.dx
				if iy < 0 || iy >= g.inH || ix >= g.inW || ix+r.count <= 0 {
					clear(dst)
					continue
				}
				at := ((s.n*g.inH+iy)*g.inW+ix)*g.inC + channel
				lo, hi := max(0, -ix)*perTap, min(r.count, g.inW-ix)*perTap
				if lo > 0 {
					clear(dst[:lo])
				}
				copy(dst[lo:hi], in[at+lo:])
				if hi < width {
					clear(dst[hi:])
				}
			}
		}
	}
}

// dense reports whether the grid is the output.
func (g *gather) dense() bool {
	return g.outStepH == 1 && g.outStepW == 1 && g.gh == g.outH && g.gw == g.outW
}

// scatterRows hands finished products over, those of neighbouring points together.
func (g *gather) scatterRows(c []float32, points []stretch, channel, cols int, finish *finisher) {
	for len(points) > 0 {
		p, rows := points[0], points[0].count
		points = points[1:]
		for g.dense() && g.edge == noEdge && len(points) > 0 {
			rows += points[0].count
			points = points[1:]
		}
		at := ((p.n*g.outH+p.oy*g.outStepH+g.outOffH)*g.outW+p.ox*g.outStepW+g.outOffW)*g.outC + channel
		finish.rows(at, g.outStepW*g.outC, c, g.cRow, channel, rows, cols)
		c = c[rows*g.cRow:]
	}
}

// forwardGather is the plan of the convolution itself.
func forwardGather(s Shape, set *kern.Set, tasks int) *gather {
	oh, ow := s.Out()
	g := &gather{set: set, least: tasks, n: s.N, gh: oh, gw: ow, inH: s.H, inW: s.W, inC: s.Cin, stepH: s.StrideH, stepW: s.StrideW,
		outH: oh, outW: ow, outC: s.Cout, outStepH: 1, outStepW: 1, groups: s.Groups, ci: s.Cin / s.Groups, co: s.Cout / s.Groups}
	for kh := range s.KH {
		for kw := range s.KW {
			g.taps = append(g.taps, tap{kh*s.DilH - s.PadTop, kw*s.DilW - s.PadLeft, kh, kw})
		}
	}
	g.plan(s.BF16)
	return g
}

// inputGathers are the plans of the gradient by input: dx[ih] takes dy[oh]·w[kh] where oh·s + kh·d - p = ih, so inputs of
// one residue modulo s share their taps and read neighbouring outputs.
func inputGathers(s Shape, set *kern.Set, tasks int) []*gather {
	oh, ow := s.Out()
	var phases []*gather
	for rh := range min(s.StrideH, s.H) {
		for rw := range min(s.StrideW, s.W) {
			g := &gather{set: set, least: tasks, n: s.N, gh: divUp(s.H-rh, s.StrideH), gw: divUp(s.W-rw, s.StrideW),
				inH: oh, inW: ow, inC: s.Cout, stepH: 1, stepW: 1,
				outH: s.H, outW: s.W, outC: s.Cin, outStepH: s.StrideH, outOffH: rh, outStepW: s.StrideW, outOffW: rw,
				groups: s.Groups, ci: s.Cout / s.Groups, co: s.Cin / s.Groups}
			for kh := range s.KH {
				for kw := range s.KW {
					y, x := rh+s.PadTop-kh*s.DilH, rw+s.PadLeft-kw*s.DilW
					if y%s.StrideH == 0 && x%s.StrideW == 0 {
						g.taps = append(g.taps, tap{y / s.StrideH, x / s.StrideW, kh, kw})
					}
				}
			}
			g.plan(s.BF16)
			phases = append(phases, g)
		}
	}
	return phases
}

var noFloor = float32(math.Inf(-1))

// finisher makes outputs of products: y = max(floor, product + bias + extra), and 0 where the mask has no bit. extra, like
// y, and mask may be nil.
type finisher struct {
	set         *kern.Set
	y           []float32
	bias, extra []float32
	mask        []uint16
	channels    int // of y
	floor       float32
}

// finishForward is the finisher of an output y of some channels with an epilogue.
func finishForward(set *kern.Set, y []float32, channels int, e Epilogue, zeros []float32) *finisher {
	f := &finisher{set: set, y: y, channels: channels, bias: e.Bias, extra: e.Residual, floor: noFloor}
	if e.ReLU {
		f.floor = 0
	}
	if f.bias == nil {
		f.bias = zeros
	}
	return f
}

// finishInput is the finisher of an input gradient, to which a residual may be added before a mask is applied.
func finishInput(set *kern.Set, dx []float32, channels int, residual []float32, mask []uint16, zeros []float32) *finisher {
	f := finishForward(set, dx, channels, Epilogue{Residual: residual}, zeros)
	f.mask = mask
	return f
}

// from is an optional array from an element on.
func from(x []float32, at int) []float32 {
	if x == nil {
		return nil
	}
	return x[at:]
}

// masking is where the mask of rows of the output starts that are step apart, the first at element at, how far apart its
// rows are, and which of their bits is the first.
func (f *finisher) masking(at, step int) (mask []uint16, row, first int) {
	if f.mask == nil {
		return nil, 0, 0
	}
	words := kern.MaskWords(f.channels)
	return f.mask[at/f.channels*words:], step / f.channels * words, at % f.channels
}

// rows makes rows of the output that start at element at and are step apart, of products of channels from one on.
func (f *finisher) rows(at, step int, products []float32, productRow, channel, rows, cols int) {
	if f.mask != nil {
		mask, maskRow, first := f.masking(at, step)
		f.set.FinishMask(f.y[at:], step, products, productRow, from(f.extra, at), mask, maskRow, first, rows, cols)
		return
	}
	f.set.Finish(f.y[at:], step, products, productRow, f.bias[channel:], from(f.extra, at), f.floor, rows, cols)
}

// at sets k to the finishing of products whose first is at an element of the output, of a channel, with rows step apart.
func (f *finisher) at(k *kern.Finishing, at, channel, step int) {
	k.Y, k.YRow, k.Bias, k.Extra, k.Floor = f.y[at:], step, f.bias[channel:], from(f.extra, at), f.floor
	k.Mask, k.MaskRow, k.MaskFirst = f.masking(at, step)
}
