package conv

import "github.com/adaad-go/adaad/internal/kern"

// thin is a convolution of few input channels, such as a network's first and those of stride 2 in small ones: vectors hold
// output channels, and there is so little work for each input that gathering it tap by tap would dominate.
//
// Forward, every input row is copied once between zeros. The terms of one kernel row are then a contiguous run, and those of
// the next output a step further on. The gradient by kernel reads the same rows. The gradient by input multiplies first,
// p[oy,ox,tap,i] = Σ_o dy[oy,ox,o]·w[o,i,tap], for a product whose columns are taps and channels wastes few lanes where one
// with only the channels would waste most; it then adds up the taps of every input.
type thin struct {
	g        *gather // forward
	s        Shape
	phases   []*depthwise // adders of taps
	row      int          // of copied input
	rows     int          // of output, in a task
	gradRows int          // likewise, where the kernel's gradient is summed
	inRows   int          // of input gradient, in a task
	product  int          // row of p
}

const (
	thinChannels = 4  // most input channels, with a stride of 1
	thinStrided  = 32 // and with others
	thinTerms    = 288
	thinElements = 48 << 10 // of a task's results
	thinChunks   = 16       // that the gradient by kernel is summed in
)

// newThin returns nil where the convolution is not thin.
func newThin(s Shape, forward *gather, input []*gather) *thin {
	oh, ow := s.Out()
	terms := s.KH * s.KW * s.Cin
	most := thinChannels
	if s.StrideH > 1 && s.StrideW > 1 {
		most = thinStrided
	}
	if s.Groups != 1 || s.Cin > most || terms > thinTerms || s.KH*s.KW == 1 || s.KH*s.KW > depthwiseTaps || s.DilW != 1 || oh*ow == 0 || s.H*s.W == 0 {
		return nil
	}
	t := &thin{g: forward, s: s, row: ((ow-1)*s.StrideW + s.KW) * s.Cin, product: oddLines(panelCols(forward.set, terms))}
	t.rows = min(oh, max(1, thinElements/(ow*forward.cRow)))
	t.gradRows = t.rows
	t.rows = min(t.rows, divUp(s.N*oh, forward.least))
	t.inRows = min(s.H, max(1, thinElements/(ow*t.product)*s.StrideH-s.KH*s.DilH))
	for _, g := range input {
		t.phases = append(t.phases, newDepthwise(g, t.product, func(_ int, t tap) (int, int) { return (t.kh*s.KW + t.kw) * s.Cin, 0 }))
	}
	return t
}

// span is the number of input rows that rows output rows read.
func (t *thin) span(rows int) int { return (rows-1)*t.s.StrideH + (t.s.KH-1)*t.s.DilH + 1 }

// copyRows copies the input rows of output rows [first, first+rows) of image n, zeros included.
func (t *thin) copyRows(buf, x []float32, n, first, rows int) {
	s := t.s
	lo := min(max(0, s.PadLeft)*s.Cin, t.row)
	skip := max(0, -s.PadLeft) * s.Cin
	have := max(0, min(s.W*s.Cin-skip, t.row-lo))
	for i := range t.span(rows) {
		dst := buf[i*t.row:][:t.row]
		y := first*s.StrideH - s.PadTop + i
		if y < 0 || y >= s.H || have == 0 {
			clear(dst)
			continue
		}
		clear(dst[:lo])
		copy(dst[lo:], x[(n*s.H+y)*s.W*s.Cin+skip:][:have])
		clear(dst[lo+have:])
	}
}

// blocks is how many tasks the rows of all images make.
func (t *thin) blocks(height, rows int) int { return t.s.N * divUp(height, rows) }

func (t *thin) block(task, height, rows int) (n, first, count int) {
	per := divUp(height, rows)
	n, first = task/per, task%per*rows
	return n, first, min(rows, height-first)
}

func (t *thin) forward(par Parallel, x, w []float32, finish *finisher) {
	sc := getScratch(par.Workers())
	defer sc.put()
	par.Run(t.blocks(t.g.gh, t.rows), func(task, worker int) {
		n, first, rows := t.block(task, t.g.gh, t.rows)
		t.compute(n, first, rows, x, w, finish, sc, worker)
	})
}

// compute makes rows of the output of image n from one on, at most those of a task.
func (t *thin) compute(n, first, rows int, x, w []float32, finish *finisher, sc *scratch, worker int) {
	g, s := t.g, t.s
	terms := s.KW * s.Cin
	buf := sc.worker(worker, t.span(t.rows)*t.row+g.gw*g.cRow+2*line)
	in, c := cut(&buf, t.span(t.rows)*t.row), cut(&buf, g.gw*g.cRow)
	t.copyRows(in, x, n, first, rows)
	for r := range rows {
		at := (n*g.gh + first + r) * g.gw * g.outC
		var p tiles
		for p.begin(g.set, g.gw, g.co, terms, in[r*s.StrideH*t.row:], s.StrideW*s.Cin, 1, right{w, s.KH * terms, 0}, c, g.cRow, false); p.next(); {
			p.Runs, p.ARun = s.KH, s.DilH*t.row
			if g.whole {
				var to kern.Finishing
				finish.at(&to, at+p.row*g.outC+p.col, p.col, g.outC)
				g.set.GemmFinish(&p.Tiles, p.a, p.b, p.c, &to)
			} else {
				g.set.Gemm(&p.Tiles, p.a, p.b, p.c)
			}
		}
		if !g.whole {
			finish.rows(at, g.outC, c, g.cRow, 0, g.gw, g.co)
		}
	}
}

func (t *thin) gradKernel(par Parallel, dst Kernel, x, dy []float32) {
	g, s := t.g, t.s
	sc := getScratch(par.Workers())
	defer sc.put()
	blocks := t.blocks(g.gh, t.gradRows)
	each := max(1, divUp(blocks, thinChunks))
	chunks := divUp(blocks, each)
	terms, cRow := s.KW*s.Cin, panelCols(g.set, g.co)
	size := s.KH * terms * cRow
	sums := sc.common(max(1, chunks) * size)
	clear(sums[:size])
	par.Run(chunks, func(chunk, worker int) {
		buf := sc.worker(worker, t.span(t.gradRows)*t.row+t.gradRows*g.gw*cRow+2*line)
		in, packed := cut(&buf, t.span(t.gradRows)*t.row), cut(&buf, t.gradRows*g.gw*cRow)
		sum := sums[chunk*size:][:size]
		clear(sum)
		for task := chunk * each; task < min(blocks, (chunk+1)*each); task++ {
			n, first, rows := t.block(task, g.gh, t.gradRows)
			t.copyRows(in, x, n, first, rows)
			d := dy[(n*g.gh+first)*g.gw*g.outC:]
			b := right{d, 0, g.outC}
			if g.co != cRow {
				fillPanels(g.set, packed, rows*g.gw, g.co, func(i int) ([]float32, int) { return d[i*g.outC:], 1 })
				b = right{packed, rows * g.gw, 0}
			}
			for kh := range s.KH {
				multiplyRows(g.set, rows, terms, g.co, g.gw, in[kh*s.DilH*t.row:], s.StrideH*t.row, 1, s.StrideW*s.Cin, b, sum[kh*terms*cRow:], cRow)
			}
		}
	})
	addChunks(par, sc, g, dst, sums, max(1, chunks), cRow)
}

func (t *thin) inputSize() int {
	return t.s.Cout * panelCols(t.g.set, t.s.KH*t.s.KW*t.s.Cin)
}

// packInput packs w[o, (tap,i)].
func (t *thin) packInput(_ Parallel, w []float32, k Kernel) {
	s := t.s
	terms := s.KH * s.KW * s.Cin
	row := make([]float32, terms)
	fillPanels(t.g.set, w, s.Cout, terms, func(o int) ([]float32, int) {
		for j := range row {
			tap, i := j/s.Cin, j%s.Cin
			row[j] = k.Data[k.Base+o*k.SO+i*k.SI+tap/s.KW*k.SH+tap%s.KW*k.SW]
		}
		return row, 1
	})
}

func (t *thin) gradInput(par Parallel, dy, w, zeros []float32, finish *finisher) {
	s, set := t.s, t.g.set
	oh, ow := t.g.gh, t.g.gw
	sc := getScratch(par.Workers())
	defer sc.put()
	ones := make([]float32, s.Cin)
	for i := range ones {
		ones[i] = 1
	}
	terms := s.KH * s.KW * s.Cin
	most := min(oh, ((t.inRows-1)+(s.KH-1)*s.DilH)/s.StrideH+1)
	par.Run(t.blocks(s.H, t.inRows), func(task, worker int) {
		n, first, rows := t.block(task, s.H, t.inRows)
		// The rows of dy that reach these inputs: oh·stride + kh·dilation - padding = ih.
		lo := max(0, divUp(max(0, first+s.PadTop-(s.KH-1)*s.DilH), s.StrideH))
		hi := min(oh, max(0, first+rows-1+s.PadTop+s.StrideH)/s.StrideH)
		buf := sc.worker(worker, most*ow*t.product+s.W*s.Cin+2*line)
		p, sum := cut(&buf, most*ow*t.product), cut(&buf, s.W*s.Cin)
		if hi > lo {
			multiply(set, (hi-lo)*ow, terms, s.Cout, dy[(n*oh+lo)*ow*s.Cout:], s.Cout, 1, right{w, s.Cout, 0}, p, t.product, false)
		}
		for _, d := range t.phases {
			for oy := range d.gh {
				y := oy*s.StrideH + d.outOffH
				if y < first || y >= first+rows {
					continue
				}
				for _, r := range d.runs[oy] {
					set.Depthwise(sum, s.Cin, p[max(0, r.base-lo*ow*t.product):], t.product, ones, r.taps, zeros, noFloor, r.count, s.Cin)
					at := ((n*s.H+y)*s.W + r.x*s.StrideW + d.outOffW) * s.Cin
					if s.StrideW == 1 && finish.mask == nil { // a mask has rows of pixels
						finish.rows(at, s.W*s.Cin, sum, s.W*s.Cin, 0, 1, r.count*s.Cin)
					} else {
						finish.rows(at, s.StrideW*s.Cin, sum, s.Cin, 0, r.count, s.Cin)
					}
				}
			}
		}
	})
}
