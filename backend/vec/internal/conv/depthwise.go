package conv

import "github.com/adaad-go/adaad/internal/kern"

// depthwise is a gather whose groups have one channel on either side, computed directly: every row of the grid is cut
// into runs of points whose taps lie inside the input, mostly one between two borders.
type depthwise struct {
	*gather
	runs   [][]depthwiseRun // by row of the grid
	rows   int              // of all images, in a task
	stride int              // 1 or 2 where there are 3x3 elements and padding 1, else 0
}

// depthwiseRun is count grid points from x on. The input of tap t is X elements after that of the run's first tap, which
// is at element base of an image.
type depthwiseRun struct {
	x, count, base int
	taps           kern.Taps
}

const (
	depthwiseElements = 32 << 10 // of output, in a task
	depthwiseLeast    = 24 << 10 // worth sharing out
	depthwiseTasks    = 2        // that are made of less: each reads all weights
	depthwiseChunks   = 16       // that the weights' gradient is summed in
)

// newDepthwise cuts the rows of a gather whose input has inC channels; place says which channel a tap's inputs start at,
// and where its weights do, i being its position among the taps.
func newDepthwise(g *gather, inC int, place func(i int, t tap) (channel, weights int)) *depthwise {
	d := &depthwise{gather: g, rows: g.taskRows(g.gw * g.outC)}
	for oy := range g.gh {
		var runs []depthwiseRun
		var last uint64 // set of taps of the run before
		for ox := range g.gw {
			var set uint64
			var taps []kern.Tap
			base := 0
			for i, t := range g.taps {
				y, x := oy*g.stepH+t.dy, ox*g.stepW+t.dx
				if y < 0 || y >= g.inH || x < 0 || x >= g.inW {
					continue
				}
				from, weights := place(i, t)
				at := (y*g.inW+x)*inC + from
				if set == 0 {
					base = at
				}
				set |= 1 << i
				taps = append(taps, kern.Tap{X: at - base, W: weights})
			}
			if ox > 0 && set == last {
				runs[len(runs)-1].count++
				continue
			}
			runs = append(runs, depthwiseRun{ox, 1, base, kern.NewTaps(taps)})
			last = set
		}
		d.runs = append(d.runs, runs)
	}
	if s := g.stepH; inC == g.outC && g.plain3x3() && s <= 2 && g.stepW == s && g.outH == divUp(g.inH, s) && g.outW == divUp(g.inW, s) {
		d.stride = s
	}
	return d
}

// taskRows is how many rows of the grid are in a task, of which each makes so many elements.
func (g *gather) taskRows(elements int) int {
	row, total := max(1, elements), g.n*g.gh
	rows := max(1, min(depthwiseElements/row, max(min(depthwiseLeast/row, total/depthwiseTasks), divUp(total, g.least))))
	if total/rows < g.least { // so few tasks had better be equal
		for total%rows != 0 {
			rows--
		}
	}
	return rows
}

// plain3x3 reports whether every point of the output has an input and the eight around it as its taps, in order.
func (g *gather) plain3x3() bool {
	for i, t := range g.taps {
		if t.dy != i/3-1 || t.dx != i%3-1 {
			return false
		}
	}
	return len(g.taps) == 9 && g.dense()
}

// depthwiseTaps is how many taps a set of them has room for.
const depthwiseTaps = 64

func (d *depthwise) tasks() int { return divUp(d.n*d.gh, d.rows) }

func (d *depthwise) weightsSize() int { return len(d.taps) * d.outC }

// packWeights writes the weights of all taps side by side.
func (d *depthwise) packWeights(_ Parallel, w []float32, k Kernel) {
	for i, t := range d.taps {
		at := k.Base + t.kh*k.SH + t.kw*k.SW
		for c := range d.outC {
			w[i*d.outC+c] = k.Data[at]
			at += k.SO
		}
	}
}

// each calls f for every run of a task: where its output and its input start.
func (d *depthwise) each(task, rows int, f func(out, in int, r depthwiseRun)) {
	for row := task * rows; row < min((task+1)*rows, d.n*d.gh); row++ {
		n, oy := row/d.gh, row%d.gh
		for _, r := range d.runs[oy] {
			f(((n*d.outH+oy*d.outStepH+d.outOffH)*d.outW+r.x*d.outStepW+d.outOffW)*d.outC, n*d.inH*d.inW*d.inC+r.base, r)
		}
	}
}

// eachImage calls f for every image that a task has rows of: with where its input and its output start, and which rows they are.
func (d *depthwise) eachImage(task, rows int, f func(in, out, first, rows int)) {
	for row, end := task*rows, min((task+1)*rows, d.n*d.gh); row < end; {
		n, first := row/d.gh, row%d.gh
		rows := min(d.gh-first, end-row)
		f(n*d.inH*d.inW*d.inC, n*d.outH*d.outW*d.outC, first, rows)
		row += rows
	}
}

// run computes a task; extra is added and mask masks in a second pass over each run, which is still in the first cache.
func (d *depthwise) run(task int, out, in, w []float32, e Epilogue, mask []uint16, zeros []float32) {
	floor, bias := noFloor, e.Bias
	if e.ReLU {
		floor = 0
	}
	if bias == nil {
		bias = zeros
	}
	words := kern.MaskWords(d.outC)
	if d.stride > 0 && e.Residual == nil {
		d.eachImage(task, d.rows, func(from, to, first, rows int) {
			y, x := out[to:], in[from:]
			if mask != nil { // of a gradient, whose stride is 1
				d.set.Depthwise3x3Mask(y, x, w, mask[to/d.outC*words:], d.gh, d.gw, d.outC, first, rows)
				return
			}
			d.set.Depthwise3x3(y, x, w, bias, floor, d.stride, d.inH, d.inW, d.outC, first, rows)
		})
		return
	}
	step := d.outStepW * d.outC
	maskRow := d.outStepW * words
	d.each(task, d.rows, func(at, from int, r depthwiseRun) {
		switch y := out[at:]; {
		case e.Residual != nil:
			// The sum is made apart, for the residual may be the output itself.
			sc := getScratch(1)
			defer sc.put()
			sum := sc.worker(0, r.count*d.outC)
			d.set.Depthwise(sum, d.outC, in[from:], d.stepW*d.inC, w, r.taps, bias, noFloor, r.count, d.outC)
			if mask != nil {
				d.set.FinishMask(y, step, sum, d.outC, e.Residual[at:], mask[at/d.outC*words:], maskRow, 0, r.count, d.outC)
				return
			}
			d.set.Finish(y, step, sum, d.outC, zeros, e.Residual[at:], floor, r.count, d.outC)
		case mask != nil:
			d.set.Depthwise(y, step, in[from:], d.stepW*d.inC, w, r.taps, bias, noFloor, r.count, d.outC)
			d.set.FinishMask(y, step, y, step, nil, mask[at/d.outC*words:], maskRow, 0, r.count, d.outC)
		default:
			d.set.Depthwise(y, step, in[from:], d.stepW*d.inC, w, r.taps, bias, floor, r.count, d.outC)
		}
	})
}

func runDepthwise(par Parallel, phases []*depthwise, out, in, w []float32, e Epilogue, mask []uint16, zeros []float32) {
	tasks := 0
	for _, d := range phases {
		tasks += d.tasks()
	}
	par.Run(tasks, func(task, _ int) {
		for _, d := range phases {
			if task < d.tasks() {
				d.run(task, out, in, w, e, mask, zeros)
				return
			}
			task -= d.tasks()
		}
	})
}

// gradInput is the gradient by input of stride 2, two rows of it for each of dy.
func (d *depthwise) gradInput(par Parallel, dx, dy, w []float32, mask []uint16) {
	words := kern.MaskWords(d.inC)
	rows := d.taskRows(2 * d.inW * d.inC)
	par.Run(divUp(d.n*d.gh, rows), func(task, _ int) {
		d.eachImage(task, rows, func(in, out, first, rows int) {
			var m []uint16
			if mask != nil {
				m = mask[in/d.inC*words:]
			}
			d.set.Depthwise3x3Input(dx[in:], dy[out:], w, m, d.inH, d.inW, d.inC, first, rows)
		})
	})
}

// gradKernel sums the weights' gradient over chunks of rows, then over the chunks in order.
func (d *depthwise) gradKernel(par Parallel, dst Kernel, x, dy []float32) {
	rows := max(1, divUp(d.n*d.gh, depthwiseChunks))
	chunks := divUp(d.n*d.gh, rows)
	size := len(d.taps) * d.outC
	sc := getScratch(1)
	defer sc.put()
	sums := sc.common(max(1, chunks) * size)
	clear(sums[:size]) // which is all where there is no row
	par.Run(chunks, func(chunk, _ int) {
		sum := sums[chunk*size : (chunk+1)*size]
		clear(sum)
		if d.stride > 0 {
			d.eachImage(chunk, rows, func(in, out, first, rows int) {
				d.set.Depthwise3x3Grad(sum, x[in:], dy[out:], d.stride, d.inH, d.inW, d.inC, first, rows)
			})
			return
		}
		d.each(chunk, rows, func(at, from int, r depthwiseRun) {
			d.set.DepthwiseGrad(sum, x[from:], d.stepW*d.inC, dy[at:], d.outC, r.taps, r.count, d.outC)
		})
	})
	par.Run(len(d.taps), func(i, _ int) {
		t, sum := d.taps[i], sums[i*d.outC:][:d.outC]
		for chunk := 1; chunk < chunks; chunk++ {
			d.set.Add(sum, sum, sums[chunk*size+i*d.outC:][:d.outC])
		}
		at := dst.Base + t.kh*dst.SH + t.kw*dst.SW
		for _, v := range sum {
			dst.Data[at] = v
			at += dst.SO
		}
	})
}
