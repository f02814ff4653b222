package conv

import "github.com/adaad-go/adaad/internal/kern"

// kernelGrad is the gradient by kernel as a matrix product with the pixels as contraction,
//
//	dw[tap, i, o] = Σ_p in[p+tap, i] · dy[p, o].
//
// A task takes one slice of (tap, i), some columns o and one chunk of the pixels; the chunks are then added in order.
type kernelGrad struct {
	g      *gather
	slices []gradSlice
	cols   int // of a task
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
	gradPixels  = 128     // multiplied at once
	gradLong    = 256     // pixels in a chunk, at least, so that adding them up is little work beside it
	gradCols    = 64      // of a task, at least
	gradNarrow  = 48      // rows that are too few to pay for packing dy
	gradPartial = 4 << 20 // elements of all chunks' partial sums
)

func newKernelGrad(g *gather) *kernelGrad {
	k := &kernelGrad{g: g, cRow: panelCols(g.set, g.co)}
	most := gradRows
	if g.direct {
		most /= 2 // nothing is gathered, so nothing is gathered twice
	}
	for i, t := range g.taps {
		if last := len(k.slices) - 1; last >= 0 && g.groups == 1 {
			s := &k.slices[last]
			if r := &s.runs[0]; r.dy == t.dy && r.dx+r.count == t.dx && s.k+g.ci <= most && s.k%g.ci == 0 {
				r.count++
				s.k += g.ci
				continue
			}
		}
		for c, parts := 0, divUp(g.ci, most); c < parts; c++ {
			lo, hi := g.ci*c/parts, g.ci*(c+1)/parts
			k.slices = append(k.slices, gradSlice{tapBlock{first: i*g.ci + lo, k: hi - lo, runs: []tapRun{{t.dy, t.dx, 1}}}, lo})
		}
	}
	total, pieces := g.total(), max(1, len(k.slices)*g.groups)
	k.chunks = max(1, min(divUp(gradTasks, pieces), total/gradLong, gradPartial/max(1, k.size())))
	k.pixels = max(gradPixels, roundUp(divUp(total, k.chunks), gradPixels))
	k.chunks = max(1, divUp(total, k.pixels))
	k.cols = g.co
	if g.direct && g.co%gradCols == 0 {
		k.cols = roundUp(divUp(g.co, min(divUp(gradTasks, pieces*k.chunks), g.co/gradCols)), gradCols)
	}
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
	aRow, bRow := oddLines(widest), panelCols(g.set, k.cols)
	parts := divUp(g.co, k.cols)
	par.Run(g.groups*len(k.slices)*k.chunks*parts, func(task, worker int) {
		part, chunk := task%parts, task/parts%k.chunks
		slice, group := task/parts/k.chunks%len(k.slices), task/parts/k.chunks/len(k.slices)
		s, col := k.slices[slice], part*k.cols
		width := min(k.cols, g.co-col)
		buf := sc.worker(worker, gradPixels*(aRow+bRow)+2*line)
		a, b := cut(&buf, gradPixels*aRow), cut(&buf, gradPixels*bRow)
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
				var room [stretches]stretch
				g.gatherRows(a, aRow, s.tapBlock, g.stretches(room[:0], p, count), x, group*g.ci+s.channel)
			}
			from := dy[p*g.outC+group*g.co+col:]
			right := right{from, 0, g.outC}
			if s.k > gradNarrow || width%g.set.Lanes() != 0 {
				fillPanels(g.set, b, count, width, func(i int) ([]float32, int) { return from[i*g.outC:], 1 })
				right.data, right.rows, right.row = b, count, 0
			}
			multiply(g.set, s.k, width, count, left, 1, leftCol, right, c[col:], k.cRow, p > chunk*k.pixels)
		}
	})
	addChunks(par, sc, g, dst, sums, k.chunks, k.cRow)
}

// addChunks adds up the partial sums of the chunks in order and writes the gradient, some input channels at a time: in most
// layouts theirs are neighbours.
func addChunks(par Parallel, sc *scratch, g *gather, dst Kernel, sums []float32, chunks, cRow int) {
	const channels = 16
	taps := len(g.taps)
	parts, size := divUp(g.ci, channels), g.groups*taps*g.ci*cRow
	par.Run(g.groups*parts, func(task, worker int) {
		group, first := task/parts, task%parts*channels
		count := min(channels, g.ci-first)
		buf := sc.worker(worker, channels*taps*cRow)
		for t := range taps {
			for i := range count {
				at := ((group*taps+t)*g.ci + first + i) * cRow
				sum := buf[(i*taps+t)*cRow:][:cRow]
				copy(sum, sums[at:])
				for c := 1; c < chunks; c++ {
					g.set.Add(sum, sum, sums[c*size+at:][:cRow])
				}
			}
		}
		storeGradient(g.set, dst, g.taps[taps-1].kh+1, g.taps[taps-1].kw+1, buf, cRow, first, count, group*g.co, g.co)
	})
}

// storeGradient writes the gradient of height input channels from i on and width output channels from o on, given as rows of
// output channels in the order [input channel][kh][kw].
func storeGradient(set *kern.Set, dst Kernel, kh, kw int, g []float32, row, i, height, o, width int) {
	base, taps := dst.Base+i*dst.SI+o*dst.SO, kh*kw
	rows := height * taps
	turned, cols := 0, 0 // how many of each can be transposed as vectors
	if (kw == 1 || dst.SW == 1) && (kh == 1 || dst.SH == kw) && dst.SI == taps && dst.SO > 0 {
		turned, cols = rows-rows%set.Lanes(), width-width%set.Lanes()
		set.Transpose(dst.Data[base:], dst.SO, g, row, turned, cols, 0)
	}
	for r := range rows {
		first := 0
		if r < turned {
			first = cols
		}
		from := g[r*row:][first:width]
		at := base + r/taps*dst.SI + r%taps/kw*dst.SH + r%kw*dst.SW + first*dst.SO
		if dst.SO == 1 {
			copy(dst.Data[at:], from)
			continue
		}
		for _, v := range from {
			dst.Data[at] = v
			at += dst.SO
		}
	}
}
