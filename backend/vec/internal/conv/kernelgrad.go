package conv

// kernelGrad is the gradient by kernel as a matrix product with the pixels as contraction,
//
//	dw[tap, i, o] = Σ_p in[p+tap, i] · dy[p, o].
//
// A task takes one slice of (tap, i) and one chunk of the pixels; the chunks of a slice are then added in order.
type kernelGrad struct {
	g      *gather
	slices []gradSlice
	chunks int
	pixels int // in a chunk
	cRow   int
}

// gradSlice is rows [first, first+k) of the gradient: neighbouring taps with all their channels, or one with some.
type gradSlice struct {
	tapBlock
	channel int
}

const (
	gradRows    = 400     // of a slice, at most, where it has more than one tap
	gradPixels  = 128     // gathered at once
	gradPartial = 4 << 20 // elements of all chunks' partial sums
)

func newKernelGrad(g *gather) *kernelGrad {
	k := &kernelGrad{g: g, cRow: panelCols(g.set, g.co)}
	for i, t := range g.taps {
		if last := len(k.slices) - 1; last >= 0 && g.groups == 1 {
			s := &k.slices[last]
			if r := &s.runs[0]; r.dy == t.dy && r.dx+r.count == t.dx && s.k+g.ci <= gradRows && s.k%g.ci == 0 {
				r.count++
				s.k += g.ci
				continue
			}
		}
		for c, parts := 0, divUp(g.ci, gradRows); c < parts; c++ {
			lo, hi := g.ci*c/parts, g.ci*(c+1)/parts
			k.slices = append(k.slices, gradSlice{tapBlock{i*g.ci + lo, hi - lo, []tapRun{{t.dy, t.dx, 1}}}, lo})
		}
	}
	total := g.total()
	k.chunks = max(1, min(divUp(minTasks, max(1, len(k.slices)*g.groups)), divUp(total, gradPixels), gradPartial/max(1, k.size())))
	k.pixels = max(gradPixels, roundUp(divUp(total, k.chunks), gradPixels))
	k.chunks = max(1, divUp(total, k.pixels))
	return k
}

// size is the number of elements of one chunk's partial sums.
func (k *kernelGrad) size() int { return k.g.groups * len(k.g.taps) * k.g.ci * k.cRow }

func (k *kernelGrad) run(par Parallel, dst Kernel, x, dy []float32) {
	g := k.g
	sc := getScratch(par.Workers())
	defer sc.put()
	sums := sc.common(k.size() * k.chunks)
	rows := len(g.taps) * g.ci // of a group
	widest := 0
	for _, s := range k.slices {
		widest = max(widest, s.k)
	}
	aRow := oddLines(widest)
	par.Run(g.groups*len(k.slices)*k.chunks, func(task, worker int) {
		chunk, slice, group := task%k.chunks, task/k.chunks%len(k.slices), task/k.chunks/len(k.slices)
		s := k.slices[slice]
		buf := sc.worker(worker, gradPixels*(aRow+k.cRow)+2*line)
		a, b := cut(&buf, gradPixels*aRow), cut(&buf, gradPixels*k.cRow)
		c := sums[chunk*k.size()+(group*rows+s.first)*k.cRow:][:s.k*k.cRow]
		end := min((chunk+1)*k.pixels, g.total())
		if chunk*k.pixels >= end {
			clear(c)
		}
		for p := chunk * k.pixels; p < end; p += gradPixels {
			count := min(gradPixels, end-p)
			left, leftCol := a, aRow
			if g.direct {
				left, leftCol = x[p*g.inC+group*g.ci+s.channel:], g.inC
			} else {
				g.gatherRows(a, aRow, s.tapBlock, p, count, x, group*g.ci+s.channel)
			}
			fillPanels(g.set, b, count, g.co, func(i int) ([]float32, int) { return dy[(p+i)*g.outC+group*g.co:], 1 })
			multiply(g.set, s.k, g.co, count, left, 1, leftCol, right{b, count, 0}, c, k.cRow, p > chunk*k.pixels)
		}
	})
	addChunks(par, g, dst, sums, k.chunks, k.cRow)
}

// addChunks adds up the partial sums of the chunks in order and writes the gradient.
func addChunks(par Parallel, g *gather, dst Kernel, sums []float32, chunks, cRow int) {
	rows := len(g.taps) * g.ci // of a group
	size := g.groups * rows * cRow
	par.Run(g.groups*rows, func(row, _ int) {
		sum := sums[row*cRow:][:cRow]
		for c := 1; c < chunks; c++ {
			g.set.Add(sum, sum, sums[c*size+row*cRow:][:cRow])
		}
		t, i := g.taps[row%rows/g.ci], row%g.ci
		at := dst.Base + row/rows*g.co*dst.SO + i*dst.SI + t.kh*dst.SH + t.kw*dst.SW
		if dst.SO == 1 {
			copy(dst.Data[at:at+g.co], sum)
			return
		}
		for _, v := range sum[:g.co] {
			dst.Data[at] = v
			at += dst.SO
		}
	})
}
