package conv

import "github.com/adaad-go/adaad/internal/kern"

// depthwise is a gather whose groups have one channel on either side, computed directly: every row of the grid is cut
// into runs of points whose taps lie inside the input, mostly one between two borders.
type depthwise struct {
	*gather
	runs  [][]depthwiseRun // by row of the grid
	rows  int              // of all images, in a task
	plain bool             // 3x3 elements, stride 1, padding 1
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
	row, total := max(1, g.gw*g.outC), g.n*g.gh
	d := &depthwise{gather: g, rows: max(1, min(depthwiseElements/row, max(min(depthwiseLeast/row, total/depthwiseTasks), divUp(total, g.least))))}
	if total/d.rows < g.least { // so few tasks had better be equal
		for total%d.rows != 0 {
			d.rows--
		}
	}
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
	d.plain = inC == g.outC && g.plain3x3()
	return d
}

// plain3x3 reports whether every point of the output has its own input and the eight around it as its taps, in order.
func (g *gather) plain3x3() bool {
	for i, t := range g.taps {
		if t.dy != i/3-1 || t.dx != i%3-1 {
			return false
		}
	}
	return len(g.taps) == 9 && g.dense() && g.stepH == 1 && g.stepW == 1 && g.inH == g.outH && g.inW == g.outW
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

// eachImage calls f for every image that a task has rows of: where it starts, its size, and which rows they are.
func (d *depthwise) eachImage(task int, f func(at, size, first, rows int)) {
	size := d.gh * d.gw * d.outC
	for row, end := task*d.rows, min((task+1)*d.rows, d.n*d.gh); row < end; {
		n, first := row/d.gh, row%d.gh
		rows := min(d.gh-first, end-row)
		f(n*size, size, first, rows)
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
	if d.plain && e.Residual == nil {
		d.eachImage(task, func(at, size, first, rows int) {
			y, x := out[at:][:size], in[at:][:size]
			if mask != nil {
				d.set.Depthwise3x3Mask(y, x, w, mask[at/d.outC*words:], d.gh, d.gw, d.outC, first, rows)
				return
			}
			d.set.Depthwise3x3(y, x, w, bias, floor, d.gh, d.gw, d.outC, first, rows)
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

func runDepthwise(par Parallel, phases []*depthwise, out, in []float32, w [][]float32, e Epilogue, mask []uint16, zeros []float32) {
	tasks := 0
	for _, d := range phases {
		tasks += d.tasks()
	}
	par.Run(tasks, func(task, _ int) {
		for i, d := range phases {
			if task < d.tasks() {
				d.run(task, out, in, w[i], e, mask, zeros)
				return
			}
			task -= d.tasks()
		}
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
	clear(sums)
	par.Run(chunks, func(chunk, _ int) {
		sum := sums[chunk*size : (chunk+1)*size]
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
