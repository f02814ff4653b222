package conv

import "github.com/adaad-go/adaad/internal/kern"

// winograd is a 3x3 correlation of stride 1 by F(4x4,3x3): out[n,y,x] = Σ in[n, y+kh-padTop, x+kw-padLeft]·w[kh,kw]. A
// task takes a block of tiles through the input transform, 36 matrix products and the output transform while it stays in
// a second-level cache.
type winograd struct {
	set              *kern.Set
	zeros            []float32
	n, inH, inW, cin int
	outH, outW, cout int
	padTop, padLeft  int
	tilesH, tilesW   int
	tiles            int // in a task
	inRow, outRow    int // of a tile in the transformed input and in the products
	inPlane,
	outPlane int
	weights int // of one plane

	// borrows says that the weights are packed for the gradient of this correlation: the same ones reversed, and read from
	// output to input.
	borrows bool
}

const (
	winogradCache = 512 << 10 / 4 // elements of one task's transformed input and products
	planes        = kern.WinogradPlanes
)

// newWinograd returns nil where another algorithm is better: where most of the tiles would be outside the image, or the
// channels do not fill vectors.
func newWinograd(set *kern.Set, zeros []float32, n, inH, inW, cin, outH, outW, cout, padTop, padLeft int) *winograd {
	for _, s := range kern.Sets() {
		// Vectors of half the width serve channels that the wide ones do not divide.
		if s.Name() == "avx2" && set.Name() == "avx512" && (cin%set.Lanes() != 0 || cout%set.Lanes() != 0) {
			set = s
		}
	}
	w := &winograd{set: set, zeros: zeros, n: n, inH: inH, inW: inW, cin: cin, outH: outH, outW: outW, cout: cout,
		padTop: padTop, padLeft: padLeft, tilesH: divUp(outH, 4), tilesW: divUp(outW, 4)}
	if cin%set.Lanes() != 0 || cout%set.Lanes() != 0 || 16*planes*w.tilesH*w.tilesW > 10*9*outH*outW || inH*inW == 0 || n*outH*outW == 0 {
		return nil
	}
	w.inRow, w.outRow = oddLines(cin), oddLines(cout)
	rows := set.MaxRows()
	w.tiles = max(2, min(8*16/rows, winogradCache/planes/(w.inRow+w.outRow)/rows)) * rows
	w.tiles = divUp(w.total(), max(divUp(w.total(), w.tiles), min(minTasks, divUp(w.total(), rows))))
	w.inPlane, w.outPlane = oddLines(w.tiles*w.inRow), oddLines(w.tiles*w.outRow)
	w.weights = oddLines(cin * cout)
	return w
}

func (w *winograd) total() int { return w.n * w.tilesH * w.tilesW }

func (w *winograd) packedSize() int { return planes * w.weights }

// pack transforms the weights into 36 planes of panels, a strip at a time.
func (w *winograd) pack(par Parallel, packed []float32, k Kernel) {
	sc := getScratch(par.Workers())
	defer sc.put()
	wide := w.set.MaxVecs() * w.set.Lanes()
	par.Run(divUp(w.cout, wide), func(strip, worker int) {
		col := strip * wide
		width := min(wide, w.cout-col)
		plane := oddLines(w.cin * width)
		taps := sc.worker(worker, 9*plane)
		for t := range 9 {
			fillPanels(w.set, taps[t*plane:], w.cin, width, func(i int) ([]float32, int) {
				return k.Data[k.Base+t/3*k.SH+t%3*k.SW+i*k.SI+col*k.SO:], k.SO
			})
		}
		w.set.WinogradWeights(packed[col*w.cin:], w.weights, taps, plane, w.cin*width/w.set.Lanes())
	})
}

// tile is where a tile is.
type tile struct{ n, y, x int }

func (w *winograd) tile(i int) tile {
	return tile{i / w.tilesW / w.tilesH, i / w.tilesW % w.tilesH, i % w.tilesW}
}

func (w *winograd) next(t tile) tile {
	if t.x++; t.x == w.tilesW {
		t.x = 0
		if t.y++; t.y == w.tilesH {
			t.y = 0
			t.n++
		}
	}
	return t
}

// columnMask has bit j set where column first+j, for j < n, is one of width.
func columnMask(first, n, width int) uint {
	lo, hi := min(max(0, -first), n), min(max(0, width-first), n)
	if lo >= hi {
		return 0
	}
	return 1<<hi - 1<<lo
}

// patchRows sets rows to those of image n from row first on, zeros where there are none.
func patchRows(rows [][]float32, x, zeros []float32, n, first, h, size int) {
	for i := range rows {
		rows[i] = zeros[:size]
		if y := first + i; y >= 0 && y < h {
			rows[i] = x[(n*h+y)*size:][:size]
		}
	}
}

// transformInput transforms count tiles from first on, each into inRow elements of every plane of dst.
func (w *winograd) transformInput(dst []float32, plane, first, count int, x []float32) {
	var rows [6][]float32
	vecs := w.cin / w.set.Lanes()
	t := w.tile(first)
	for i := range count {
		if i == 0 || t.x == 0 {
			patchRows(rows[:], x, w.zeros, t.n, 4*t.y-w.padTop, w.inH, w.inW*w.cin)
		}
		left := 4*t.x - w.padLeft
		w.set.WinogradInput(dst[i*w.inRow:], plane, &rows, left*w.cin, w.cin, columnMask(left, 6, w.inW), vecs)
		t = w.next(t)
	}
}

// run computes the convolution. Where the transformed weights are too many for a core's cache and the tiles few, the
// three steps each go over all tiles instead, so that the weights are read once.
func (w *winograd) run(par Parallel, y, x, weights []float32, e Epilogue, mask []uint16) {
	sc := getScratch(par.Workers())
	defer sc.put()
	o := w.newOutput(y, e, mask)
	if w.phased() {
		w.runPhased(par, sc, x, weights, o)
		return
	}
	par.Run(divUp(w.total(), w.tiles), func(task, worker int) {
		first := task * w.tiles
		count := min(w.tiles, w.total()-first)
		buf := sc.worker(worker, planes*(w.inPlane+w.outPlane)+16*w.cout+3*line)
		in, products := cut(&buf, planes*w.inPlane), cut(&buf, planes*w.outPlane)
		w.transformInput(in, w.inPlane, first, count, x)
		for p := range planes {
			multiply(w.set, count, w.cout, w.cin, in[p*w.inPlane:], w.inRow, 1, right{weights[p*w.weights:], w.cin, 0},
				products[p*w.outPlane:], w.outRow, false)
		}
		o.transform(products, w.outPlane, first, count, buf)
	})
}

const (
	phasedWeights = 4 << 20 / 4 // elements of all planes from which the steps go over all tiles
	phasedTiles   = 256         // or as many of them as this
	phasedStep    = 8           // transformed by one task
	phasedCols    = 256         // of a plane's products, computed by one task
)

func (w *winograd) phased() bool { return planes*w.weights > phasedWeights }

// borrow makes w read the weights that another correlation packed, of which w is the gradient, where there are so many
// that packing them twice costs much memory and turning them round on the way, as every product needs them, little time.
func (w *winograd) borrow(from *winograd) {
	if wide := w.set.MaxVecs() * w.set.Lanes(); from != nil && w.set == from.set && w.phased() && w.cin%wide == 0 && w.cout%wide == 0 {
		w.borrows = true
	}
}

// reversed[i] is the interpolation point that is the inverse of point i, and reversedScale by how much the transform at i
// of a kernel read backwards is that of the kernel at reversed[i]: kernel(x) read backwards is x²·kernel(1/x). All are
// powers of two, so nothing is rounded.
var (
	reversed      = [6]int{5, 3, 4, 1, 2, 0}
	reversedScale = [6]float32{1, -2, -2, -0.5, -0.5, 1}
)

// turned writes columns [col, col+width) of plane p in panels: the transposed of those rows of the plane that was packed
// for the gradient.
func (w *winograd) turned(panels, weights []float32, p, col, width int) {
	i, j := p/6, p%6
	plane := weights[(6*reversed[i]+reversed[j])*w.weights:]
	wide := w.set.MaxVecs() * w.set.Lanes()
	for row := 0; row < w.cin; row += wide {
		for c := col; c < col+width; c += wide {
			w.set.Transpose(panels[(c-col)*w.cin+row*wide:], wide, plane[row*w.cout+c*wide:], wide, wide, wide, reversedScale[i]*reversedScale[j], wide*w.cout)
		}
	}
}

func (w *winograd) runPhased(par Parallel, sc *scratch, x, weights []float32, o *output) {
	tiles := divUp(w.total(), divUp(w.total(), phasedTiles))
	inPlane, outPlane := oddLines(tiles*w.inRow), oddLines(tiles*w.outRow)
	buf := sc.common(planes*(inPlane+outPlane) + 2*line)
	in, products := cut(&buf, planes*inPlane), cut(&buf, planes*outPlane)
	strips := divUp(w.cout, phasedCols)
	for start := 0; start < w.total(); start += tiles {
		block := min(tiles, w.total()-start)
		par.Run(divUp(block, phasedStep), func(task, _ int) {
			first := task * phasedStep
			w.transformInput(in[first*w.inRow:], inPlane, start+first, min(phasedStep, block-first), x)
		})
		par.Run(planes*strips, func(task, worker int) {
			p, col := task/strips, task%strips*phasedCols
			width := min(phasedCols, w.cout-col)
			strips := right{weights[p*w.weights+col*w.cin:], w.cin, 0}
			if w.borrows {
				strips.data = sc.worker(worker, w.cin*phasedCols)
				w.turned(strips.data, weights, p, col, width)
			}
			multiply(w.set, block, width, w.cin, in[p*inPlane:], w.inRow, 1, strips, products[p*outPlane+col:], w.outRow, false)
		})
		par.Run(divUp(block, phasedStep), func(task, worker int) {
			first := task * phasedStep
			o.transform(products[first*w.outRow:], outPlane, start+first, min(phasedStep, block-first), sc.worker(worker, 16*w.cout))
		})
	}
}

// output is where products go, and with which epilogue.
type output struct {
	*winograd
	y, bias, residual []float32
	mask              []uint16
	floor             float32
	finish            finisher // for tiles that reach over an edge
}

func (w *winograd) newOutput(y []float32, e Epilogue, mask []uint16) *output {
	o := &output{winograd: w, y: y, bias: e.Bias, residual: e.Residual, mask: mask, floor: noFloor}
	o.finish = finishForward(w.set, y, w.cout, e, w.zeros)
	if mask != nil {
		o.finish = finishInput(w.set, y, w.cout, e.Residual, mask, w.zeros)
	}
	if e.ReLU {
		o.floor = 0
	}
	if o.bias == nil {
		o.bias = w.zeros
	}
	return o
}

// transform makes the outputs of count tiles from first on of their products, with room for one tile in edge.
func (o *output) transform(products []float32, plane, first, count int, edge []float32) {
	w := o.winograd
	vecs, row := w.cout/w.set.Lanes(), w.outW*w.cout
	t := w.tile(first)
	for i := range count {
		src := products[i*w.outRow:]
		at := ((t.n*w.outH+4*t.y)*w.outW + 4*t.x) * w.cout
		var extra []float32
		if o.residual != nil {
			extra = o.residual[at:]
		}
		switch h, width := w.outH-4*t.y, w.outW-4*t.x; {
		case h < 4 || width < 4:
			w.set.WinogradOutput(edge, 4*w.cout, w.cout, src, plane, w.zeros, nil, noFloor, vecs)
			for r := range min(4, h) {
				o.finish.rows(at+r*row, w.cout, edge[4*r*w.cout:], w.cout, 0, min(4, width), w.cout)
			}
		case o.mask != nil:
			words := kern.MaskWords(w.cout)
			w.set.WinogradOutputMask(o.y[at:], row, w.cout, src, plane, extra, o.mask[at/w.cout*words:], w.outW*words, words, vecs)
		default:
			w.set.WinogradOutput(o.y[at:], row, w.cout, src, plane, o.bias, extra, o.floor, vecs)
		}
		t = w.next(t)
	}
}

// The weights' gradient goes over blocks of tiles, big enough that the 36 sums of products, which do not stay in a core's
// cache, are seldom read and written. One block is enough for the networks' widest layers; then their sums are made for a
// few input channels at a time.
const (
	gradCache    = 2 << 20 / 4 // elements of a block's transformed operands, if that makes
	gradTiles    = 128         // at least so many tiles
	gradElements = 64 << 10    // transformed by one task
	gradSums     = 8 << 20 / 4 // elements of all planes' sums, where there is one block
	planeRows    = 96          // of a plane's sums, computed by one task
)

// gradKernel is the gradient of the correlation by its weights: dst = Gᵀ·[Σ_tiles (Bᵀ·x·B) ⊙ (A·dy·Aᵀ)]·G.
func (w *winograd) gradKernel(par Parallel, dst Kernel, x, dy []float32) {
	tiles := min(w.total(), max(gradTiles, gradCache/planes/(w.inRow+w.outRow)))
	tiles = divUp(w.total(), divUp(w.total(), tiles))
	channels := w.cin // whose sums are made at once
	if tiles == w.total() {
		channels = min(w.cin, max(planeRows, gradSums/planes/w.cout))
	}
	xPlane, dyPlane := oddLines(tiles*w.inRow), oddLines(tiles*w.outRow)
	sumPlane := oddLines(channels * w.cout)
	sc := getScratch(par.Workers())
	defer sc.put()
	buf := sc.common(planes*(xPlane+dyPlane+sumPlane) + 3*line)
	xt, dyt, sums := cut(&buf, planes*xPlane), cut(&buf, planes*dyPlane), cut(&buf, planes*sumPlane)
	vecs := w.cout / w.set.Lanes()
	each := max(1, gradElements/planes/(w.inRow+w.outRow))
	for start := 0; start < w.total(); start += tiles {
		block := min(tiles, w.total()-start)
		par.Run(divUp(block, each), func(task, _ int) {
			first := task * each
			count := min(each, block-first)
			w.transformInput(xt[first*w.inRow:], xPlane, start+first, count, x)
			var rows [4][]float32
			t := w.tile(start + first)
			for i := range count {
				if i == 0 || t.x == 0 {
					patchRows(rows[:], dy, w.zeros, t.n, 4*t.y, w.outH, w.outW*w.cout)
				}
				w.set.WinogradGradient(dyt[(first+i)*w.outRow:], dyPlane, &rows, 4*t.x*w.cout, w.cout, columnMask(4*t.x, 4, w.outW), vecs)
				t = w.next(t)
			}
		})
		for from := 0; from < w.cin; from += channels {
			width := min(channels, w.cin-from)
			parts := divUp(width, planeRows)
			par.Run(planes*parts, func(task, _ int) {
				p, lo, hi := task/parts, width*(task%parts)/parts, width*(task%parts+1)/parts
				multiply(w.set, hi-lo, w.cout, block, xt[p*xPlane+from+lo:], 1, w.inRow, right{dyt[p*dyPlane:], 0, w.outRow},
					sums[p*sumPlane+lo*w.cout:], w.cout, start > 0)
			})
			if start+block == w.total() {
				w.finishGradKernel(par, sc, dst, sums, sumPlane, from, width)
			}
		}
	}
}

// finishGradKernel transforms the sums of width input channels from one on.
func (w *winograd) finishGradKernel(par Parallel, sc *scratch, dst Kernel, sums []float32, sumPlane, from, width int) {
	par.Run(width, func(i, worker int) {
		out := sc.worker(worker, 9*w.cout)
		w.set.WinogradWeightsGrad(out, w.cout, sums[i*w.cout:], sumPlane, w.cout/w.set.Lanes())
		for t := range 9 {
			at := dst.Base + (from+i)*dst.SI + t/3*dst.SH + t%3*dst.SW
			if dst.SO == 1 {
				copy(dst.Data[at:at+w.cout], out[t*w.cout:])
				continue
			}
			for _, v := range out[t*w.cout : (t+1)*w.cout] {
				dst.Data[at] = v
				at += dst.SO
			}
		}
	})
}
