package conv

import "github.com/adaad-go/adaad/internal/kern"

// phases is a 3x3 convolution of stride 2 whose padding is 1, or its gradient by input, by Winograd's algorithm on the four
// phases of the image: its odd and even rows and columns, O[t] = in[2t-1] and E[t] = in[2t] along an axis. With them
//
//	out[t] = w0·O[t] + w2·O[t+1] + w1·E[t];   dE[t] = w1·dout[t];   dO[t] = w2·dout[t-1] + w0·dout[t]
//
// are correlations of stride 1 and two taps, or one of which the other is zero and which needs no point ∞. A tile takes 81
// products instead of 144, 25 where both rows and columns are odd, 20 where one of them is and 16 where none is. Forward, the
// phases have one output, so what a plane of all of them adds to it is one product whose terms come in runs. The gradient has
// one input, and a product and an output transform for each phase.
type phases struct {
	tiling
	mul               *kern.Set // of the products: the tiling's, or that of bfloat16
	inner, outer      int       // channels that are summed over, and those of the result
	row               int       // elements of a tile of a plane of the transformed input
	backward          bool
	reads, writes     []lattice
	cols              int // channels of the result that a task computes
	inPlane, outPlane int // elements of a plane of the transformed input and of the products
	products          []phaseProduct
}

// phaseProduct is the products of count planes from one on, each summed over the runs phases from one on that have it. The
// weights of a product are one matrix in panels, its rows those of the phases in order.
type phaseProduct struct {
	plane, count int
	phase, runs  int
	weights      int // where they start
}

const (
	phaseProducts = 81
	phaseTiles    = 24      // in a task
	phaseWeights  = 3 << 20 // transformed elements up to which it is done: more would be read from memory for every task
)

// oddRows and oddCols say which the four phases are. Those of odd rows follow each other, and so do those of odd columns.
var oddRows, oddCols = [4]bool{true, true, false, false}, [4]bool{false, true, true, false}

// newPhases returns nil where the convolution is none of these, or its channels do not fill vectors.
func newPhases(s Shape, set *kern.Set, zeros []float32, tasks int, backward bool) *phases {
	oh, ow := s.Out()
	set = vectors(set, s.Cin, s.Cout)
	if s.KH != 3 || s.KW != 3 || s.StrideH != 2 || s.StrideW != 2 || s.DilH != 1 || s.DilW != 1 || s.Groups != 1 ||
		s.PadTop != 1 || s.PadLeft != 1 || s.H != 2*oh || s.W != 2*ow || s.N*oh*ow == 0 || set == nil {
		return nil
	}
	p := &phases{tiling: newTiling(set, zeros, tasks, s.N, oh, ow), inner: s.Cin, outer: s.Cout, backward: backward}
	if backward {
		p.inner, p.outer = s.Cout, s.Cin
	}
	p.mul = multiplier(set, s.BF16)
	p.row = p.inner / p.mul.Terms()
	p.share(phaseTiles)
	p.cols = p.outer
	if total := p.total(); tasks > 1 && 2*total <= set.MaxRows(set.MaxVecs()) && float64(phaseProducts*total*s.Cin)*float64(s.Cout) > 2*minProducts {
		p.cols = roundUp(divUp(p.outer, 2), p.strip()) // a task for each of two threads
	}
	p.inPlane, p.outPlane = oddLines(p.tiles*p.row), oddLines(p.tiles*p.cols)
	whole := lattice{h: oh, w: ow, row: ow * s.Cout, col: s.Cout, image: oh * ow * s.Cout, top: 1, left: 1,
		high: kern.TwoTaps, wide: kern.TwoTaps}
	var each []lattice
	for f := range 4 {
		l := lattice{h: oh, w: ow, row: 2 * s.W * s.Cin, col: 2 * s.Cin, image: s.H * s.W * s.Cin, top: 1, left: 1,
			high: kern.OneTap, wide: kern.OneTap}
		if oddRows[f] {
			l.start, l.top, l.high = s.W*s.Cin, 2, kern.TwoTaps
		}
		if oddCols[f] {
			l.start, l.left, l.wide = l.start+s.Cin, 2, kern.TwoTaps
		}
		each = append(each, l)
	}
	p.reads, p.writes = each, []lattice{whole}
	if backward {
		p.reads, p.writes = p.writes, p.reads
	}
	p.planProducts(each)
	return p
}

// wins reports whether no other algorithm is better: most of the tiles are inside the image, and the weights stay in a cache.
func (p *phases) wins() bool {
	return 13*phaseProducts*p.tilesH*p.tilesW <= 10*9*p.writes[0].h*p.writes[0].w && p.packedSize() <= phaseWeights
}

// planProducts lists the products, row by row: of the four planes of finite points, and of that of ∞. Forward, those of the
// phases that have a plane are one.
func (p *phases) planProducts(each []lattice) {
	together := len(each)
	if p.backward {
		together = 1
	}
	weights := 0
	for f := 0; f < len(each); f += together {
		for i := 1; i < 6; i++ {
			for _, m := range []phaseProduct{{plane: 6*i + 1, count: 4}, {plane: 6*i + 5, count: 1}} {
				has := func(l lattice) bool { return i < l.high.To && m.plane%6 < l.wide.To }
				lo, hi := f, f+together
				for ; lo < hi && !has(each[lo]); lo++ {
				}
				for ; lo < hi && !has(each[hi-1]); hi-- {
				}
				if lo < hi {
					m.phase, m.runs, m.weights = lo, hi-lo, weights
					p.products = append(p.products, m)
					weights += m.count * m.runs * p.row * p.outer
				}
			}
		}
	}
}

func (p *phases) packedSize() int { return phaseProducts * p.row * p.outer }

// pack transforms the weights, given as those of a correlation, into panels, a strip and a phase at a time. The transform is
// that of three taps of which the first is zero.
func (p *phases) pack(par Parallel, packed []float32, k Kernel) {
	sc := getScratch(par.Workers())
	defer sc.put()
	wide := p.strip()
	par.Run(divUp(p.outer, wide), func(strip, worker int) {
		col := strip * wide
		width := min(wide, p.outer-col)
		size := p.inner * width
		plane := oddLines(size)
		buf := sc.worker(worker, (9+planes)*plane+planes*pairedPlane(width)+2*line)
		taps, transformed := cut(&buf, 9*plane), cut(&buf, planes*plane)
		for f := range 4 {
			clear(taps)
			for t := range 9 {
				kh, kw := phaseTap(oddRows[f], t/3), phaseTap(oddCols[f], t%3)
				if kh < 0 || kw < 0 {
					continue
				}
				fillPanels(p.set, taps[t*plane:], p.inner, width, func(i int) ([]float32, int) {
					return k.Data[k.Base+kh*k.SH+kw*k.SW+i*k.SI+col*k.SO:], k.SO
				})
			}
			transformWeights(p.mul, transformed, plane, taps, plane, p.inner, width, buf)
			for _, m := range p.products {
				if f < m.phase || f >= m.phase+m.runs {
					continue
				}
				for c := range m.count {
					at := m.weights + (c*p.outer+col)*m.runs*p.row + (f-m.phase)*p.row*width
					copy(packed[at:][:p.row*width], transformed[(m.plane+c)*plane:])
				}
			}
		}
	})
}

// phaseTap is the element of the kernel that is tap t of an axis of a phase, or -1.
func phaseTap(odd bool, t int) int {
	if odd {
		return [3]int{-1, 0, 2}[t]
	}
	return [3]int{-1, 1, -1}[t]
}

// run computes the convolution, or its gradient.
func (p *phases) run(par Parallel, y, x, weights []float32, e Epilogue, mask []uint16) {
	sc := getScratch(par.Workers())
	defer sc.put()
	o := p.newOutput(y, p.outer, e, mask)
	parts := divUp(p.outer, p.cols)
	par.Run(divUp(p.total(), p.tiles)*parts, func(task, worker int) {
		first, col := task/parts*p.tiles, task%parts*p.cols
		count := min(p.tiles, p.total()-first)
		next := min(p.tiles, p.total()-first-count)
		var room [spans]span
		p.compute(o, p.block(room[:0], first, count), count, col, x, weights, sc, worker,
			p.around(x, p.reads, first+count, next), p.around(y, p.writes, first, count))
	})
}

// compute makes the channels from one on, those of a task, of the outputs of the count tiles of b. next and made are memory
// to fetch on the way.
func (p *phases) compute(o *output, b block, count, col int, x, weights []float32, sc *scratch, worker int, next, made []float32) {
	in, out := planes*p.inPlane, planes*p.outPlane // of a phase
	width := min(p.cols, p.outer-col)
	buf := sc.worker(worker, len(p.reads)*in+len(p.writes)*out+16*p.cols+3*line)
	transformed, products := cut(&buf, len(p.reads)*in), cut(&buf, len(p.writes)*out)
	for f := range p.reads {
		p.transformInput(p.mul, transformed[f*in:], p.row, p.inPlane, b, x, &p.reads[f], 0, p.inner)
	}
	for i, m := range p.products {
		from, to := m.phase*in, 0
		if p.backward {
			from, to = 0, m.phase*out
		}
		terms := m.runs * p.row
		multiplyAll(p.mul, m.count, m.runs, count, width, p.row, transformed[from+m.plane*p.inPlane:], p.inPlane, in, p.row, 1,
			right{weights[m.weights+col*terms:], terms, 0}, terms*p.outer, products[to+m.plane*p.outPlane:], p.outPlane, p.cols, false,
			fetches{ahead(i, len(p.products), next, made)})
	}
	for f := range p.writes {
		o.transform(&p.writes[f], products[f*out:], p.cols, p.outPlane, b, col, width, buf)
	}
}

// around is the rows of an image that count tiles from first on read or write, those of all phases.
func (p *phases) around(x []float32, phases []lattice, first, count int) []float32 {
	l := phases[0]
	if len(phases) == 1 {
		return p.rows(x, first, count, l.h, l.row, 4, 0, 5)
	}
	return p.rows(x, first, count, 2*l.h, l.row/2, 8, -1, 8)
}
