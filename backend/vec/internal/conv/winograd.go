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
	group            int // planes whose products are computed together
	inPlane,
	outPlane int // elements of a plane of the transformed input and of the products
	weights int // of one plane

	// borrows says that the weights are packed for the gradient of this correlation: the same ones reversed, and read from
	// output to input.
	borrows bool
}

const (
	planes        = kern.WinogradPlanes
	winogradTiles = 24 // in a task: with the weights of 64 channels these stay in a second-level cache
	narrowTiles   = 32
	narrowPlanes  = 18
)

// narrow says that a plane has so few weights that calls of kernels are what its products wait for. Then one call computes
// those of narrowPlanes planes.
func narrow(cin, cout int) bool { return cin*cout <= 1024 }

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
	w.tiles, w.group = winogradTiles, 1
	if narrow(cin, cout) {
		w.tiles, w.group = narrowTiles, narrowPlanes
	}
	w.tiles = divUp(w.total(), max(divUp(w.total(), w.tiles), min(minTasks, divUp(w.total(), set.MaxRows()))))
	w.inPlane, w.outPlane = oddLines(w.tiles*cin), oddLines(w.tiles*cout)
	w.weights = oddLines(cin * cout)
	return w
}

func (w *winograd) total() int { return w.n * w.tilesH * w.tilesW }

func (w *winograd) packedSize() int {
	if w.late() {
		return 9 * w.cin * w.cout
	}
	return planes * w.weights
}

// pack transforms the weights into 36 planes of panels, a strip at a time, unless that is done late.
func (w *winograd) pack(par Parallel, packed []float32, k Kernel) {
	if w.late() {
		w.packLate(par, packed, k)
		return
	}
	sc := getScratch(par.Workers())
	defer sc.put()
	wide := w.strip()
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

// runs calls f for count tiles from first on, all those in one row at once: n of them, the leftmost being t, number i of all.
func (w *winograd) runs(first, count int, f func(t tile, i, n int)) {
	t := w.tile(first)
	for i := 0; i < count; {
		n := min(w.tilesW-t.x, count-i)
		f(t, i, n)
		i += n
		t.x = 0
		if t.y++; t.y == w.tilesH {
			t.y = 0
			t.n++
		}
	}
}

// patchRows sets rows to those of image n from row first on, h rows of size elements, from one element on; zeros where there
// are none.
func patchRows(rows [][]float32, x, zeros []float32, n, first, h, size, from int) {
	for i := range rows {
		rows[i] = zeros[from:size]
		if y := first + i; y >= 0 && y < h {
			rows[i] = x[(n*h+y)*size:][from:size]
		}
	}
}

// transformInput transforms width channels from one on of count tiles from first on, each into a row of every plane of dst.
func (w *winograd) transformInput(dst []float32, row, plane, first, count int, x []float32, channel, width int) {
	var rows [6][]float32
	w.runs(first, count, func(t tile, i, n int) {
		patchRows(rows[:], x, w.zeros, t.n, 4*t.y-w.padTop, w.inH, w.inW*w.cin, channel)
		w.set.WinogradInput(dst[i*row:], plane, row, &rows, 4*t.x-w.padLeft, w.inW, w.cin, width/w.set.Lanes(), n)
	})
}

// run computes the convolution.
func (w *winograd) run(par Parallel, y, x, weights []float32, e Epilogue, mask []uint16) {
	sc := getScratch(par.Workers())
	defer sc.put()
	o := w.newOutput(y, e, mask)
	if w.late() {
		w.runLate(par, sc, x, weights, o)
		return
	}
	par.Run(divUp(w.total(), w.tiles), func(task, worker int) {
		first := task * w.tiles
		count := min(w.tiles, w.total()-first)
		buf := sc.worker(worker, planes*(w.inPlane+w.outPlane)+16*w.cout+3*line)
		in, products := cut(&buf, planes*w.inPlane), cut(&buf, planes*w.outPlane)
		w.transformInput(in, w.cin, w.inPlane, first, count, x, 0, w.cin)
		next := w.inputRows(x, first+count, min(w.tiles, w.total()-first-count))
		made := w.outputRows(y, first, count)
		for p := 0; p < planes; p += w.group {
			multiplyAll(w.set, w.group, count, w.cout, w.cin, in[p*w.inPlane:], w.inPlane, w.cin, 1, right{weights[p*w.weights:], w.cin, 0}, w.weights,
				products[p*w.outPlane:], w.outPlane, w.cout, false, ahead(p, w.group, next, made))
		}
		o.transform(products, w.cout, w.outPlane, first, count, 0, w.cout, buf)
	})
}

// inputRows is the rows of x that count tiles from first on read.
func (w *winograd) inputRows(x []float32, first, count int) []float32 {
	return w.rows(x, first, count, w.inH, w.inW*w.cin, -w.padTop, 6-w.padTop)
}

// outputRows is the rows of y that count tiles from first on make.
func (w *winograd) outputRows(y []float32, first, count int) []float32 {
	return w.rows(y, first, count, w.outH, w.outW*w.cout, 0, 4)
}

// rows is those of x, images of h rows of size elements, in which are count tiles from first on, each reaching from row above
// to row below, counted from its own first.
func (w *winograd) rows(x []float32, first, count, h, size, above, below int) []float32 {
	if count <= 0 {
		return nil
	}
	row := func(t tile, y int) int { return t.n*h + min(max(0, 4*t.y+y), h) }
	return x[row(w.tile(first), above)*size : row(w.tile(first+count-1), below)*size]
}

// ahead is what is fetched while the products of n planes from p on are computed, for the transforms would wait for memory: a
// part of one or of the other, in turn.
func ahead(p, n int, one, other []float32) []float32 {
	if p/n%2 == 1 {
		one = other
	}
	i, parts := p/n/2, planes/n/2
	return one[i*len(one)/parts : (i+1)*len(one)/parts]
}

// Where there are so many weights that four times as many, transformed, would not stay in the cache, they are packed as
// they are and transformed late, a block at a time and anew for every group of tiles: memory is what these layers wait
// for. A block is lateTerms rows of one strip of panels.
const (
	lateWeights = 4 << 20 / 4 // elements of all planes from which it is done
	lateTerms   = 64
	lateTiles   = 64  // in a group
	lateBatch   = 256 // tiles that are transformed before any are multiplied
)

func (w *winograd) late() bool { return planes*w.cin*w.cout > lateWeights }

func (w *winograd) strip() int { return w.set.MaxVecs() * w.set.Lanes() }

// borrow makes w read the weights that another correlation packed, of which w is the gradient. They are turned round on
// the way.
func (w *winograd) borrow(from *winograd) {
	if from != nil && w.set == from.set && w.late() && w.cin%w.strip() == 0 && w.cout%w.strip() == 0 {
		w.borrows = true
	}
}

// packLate packs the weights as [strip][block of terms][9][terms][columns].
func (w *winograd) packLate(par Parallel, packed []float32, k Kernel) {
	par.Run(divUp(w.cout, w.strip()), func(strip, _ int) {
		col := strip * w.strip()
		width := min(w.strip(), w.cout-col)
		for row := 0; row < w.cin; row += lateTerms {
			terms := min(lateTerms, w.cin-row)
			for t := range 9 {
				fillPanels(w.set, packed[9*(col*w.cin+row*width)+t*terms*width:], terms, width, func(i int) ([]float32, int) {
					return k.Data[k.Base+t/3*k.SH+t%3*k.SW+(row+i)*k.SI+col*k.SO:], k.SO
				})
			}
		}
	})
}

// turned writes rows [row, row+terms) of the strip at column col to taps: those weights were packed for the gradient, that
// is, reversed and with rows and columns exchanged.
func (w *winograd) turned(taps, weights []float32, row, terms, col int) {
	wide := w.strip()
	there := col / lateTerms * lateTerms // where the block starts that has these columns as rows
	height := min(lateTerms, w.cout-there)
	for j := 0; j < terms; j += wide {
		block := weights[9*((row+j)*w.cout+there*wide):]
		for t := range 9 {
			w.set.Transpose(taps[((8-t)*terms+j)*wide:], wide, block[(t*height+col-there)*wide:], wide, wide, wide, height*wide)
		}
	}
}

func (w *winograd) runLate(par Parallel, sc *scratch, x, weights []float32, o *output) {
	batch := divUp(w.total(), divUp(w.total(), lateBatch))
	tiles := divUp(batch, divUp(batch, lateTiles))
	blocks := divUp(w.cin, lateTerms)
	wide := w.strip()
	inPlane, outPlane, wPlane := oddLines(tiles*lateTerms), oddLines(tiles*wide), oddLines(lateTerms*wide)
	block := planes * inPlane
	in := sc.common(divUp(batch, tiles) * blocks * block)
	for start := 0; start < w.total(); start += batch {
		groups := divUp(min(batch, w.total()-start), tiles)
		count := func(group int) int { return min(tiles, min(batch, w.total()-start)-group*tiles) }
		par.Run(groups*blocks, func(task, _ int) {
			group, row := task/blocks, task%blocks*lateTerms
			w.transformInput(in[task*block:], lateTerms, inPlane, start+group*tiles, count(group), x, row, min(lateTerms, w.cin-row))
		})
		par.Run(groups*divUp(w.cout, wide), func(task, worker int) {
			group, col := task%groups, task/groups*wide
			width, n := min(wide, w.cout-col), count(group)
			buf := sc.worker(worker, planes*(wPlane+outPlane)+9*lateTerms*wide+16*wide+4*line)
			transformed, products, taps := cut(&buf, planes*wPlane), cut(&buf, planes*outPlane), cut(&buf, 9*lateTerms*wide)
			for i := range blocks {
				row := i * lateTerms
				terms := min(lateTerms, w.cin-row)
				if w.borrows {
					w.turned(taps, weights, row, terms, col)
				} else {
					taps = weights[9*(col*w.cin+row*width):]
				}
				w.set.WinogradWeights(transformed, wPlane, taps, terms*width, terms*width/w.set.Lanes())
				for p := range planes {
					multiply(w.set, n, width, terms, in[(group*blocks+i)*block+p*inPlane:], lateTerms, 1,
						right{transformed[p*wPlane:], terms, 0}, products[p*outPlane:], wide, i > 0)
				}
			}
			o.transform(products, wide, outPlane, start+group*tiles, n, col, width, buf)
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

// transform makes width channels from one on of the outputs of count tiles from first on of their products, with room for
// one tile of them in edge.
func (o *output) transform(products []float32, productRow, plane, first, count, channel, width int, edge []float32) {
	w := o.winograd
	vecs, row := width/w.set.Lanes(), w.outW*w.cout
	words := kern.MaskWords(w.cout)
	w.runs(first, count, func(t tile, i, n int) {
		at := ((t.n*w.outH+4*t.y)*w.outW+4*t.x)*w.cout + channel
		h := min(4, w.outH-4*t.y)
		whole := min(n, (w.outW-4*t.x)/4)
		if h < 4 {
			whole = 0
		}
		src := products[i*productRow:]
		switch {
		case whole == 0:
		case o.mask != nil:
			w.set.WinogradOutputMask(o.y[at:], row, w.cout, src, plane, productRow, from(o.residual, at), o.mask[at/w.cout*words:], w.outW*words, words,
				channel, vecs, whole)
		default:
			w.set.WinogradOutput(o.y[at:], row, w.cout, src, plane, productRow, o.bias[channel:], from(o.residual, at), o.floor, vecs, whole)
		}
		for k := whole; k < n; k++ {
			w.set.WinogradOutput(edge, 4*width, width, src[k*productRow:], plane, productRow, w.zeros, nil, noFloor, vecs, 1)
			cols := min(4, w.outW-4*(t.x+k))
			for r := range h {
				o.finish.rows(at+r*row+4*k*w.cout, w.cout, edge[4*r*width:], width, channel, cols, width)
			}
		}
	})
}

// The weights' gradient is made of pieces: for some input channels, some output channels and a chunk of the tiles, a task
// transforms both operands some tiles at a time, adds up the 36 planes of their products, and at the end transforms the sums,
// all in memory of its own. The chunks of a gradient are then added in order.
const (
	gradChannels = 64
	gradTiles    = 64 // in a chunk, at least
	gradTasks    = 16
)

// gradKernel is the gradient of the correlation by its weights: dst = Gᵀ·[Σ_tiles (Bᵀ·x·B) ⊙ (A·dy·Aᵀ)]·G.
func (w *winograd) gradKernel(par Parallel, dst Kernel, x, dy []float32) {
	lanes := w.set.Lanes()
	ci := roundUp(divUp(w.cin, divUp(w.cin, gradChannels)), lanes)
	co := roundUp(divUp(w.cout, divUp(w.cout, gradChannels)), lanes)
	partsIn, partsOut := divUp(w.cin, ci), divUp(w.cout, co)
	chunks := max(1, min(divUp(gradTasks, partsIn*partsOut), w.total()/gradTiles))
	each := divUp(w.total(), chunks)
	chunks = divUp(w.total(), each)
	tiles, group := gradTiles/2, 1 // so few that they and the sums of 64 channels stay in a second-level cache
	if narrow(ci, co) {
		tiles, group = gradTiles, narrowPlanes
	}
	xPlane, dyPlane, sumPlane := oddLines(tiles*ci), oddLines(tiles*co), oddLines(ci*co)
	piece := 9 * ci * co
	sc := getScratch(par.Workers())
	defer sc.put()
	var partial []float32 // [input channels][output channels][chunk] of pieces
	if chunks > 1 {
		partial = sc.common(partsIn * partsOut * chunks * piece)
	}
	par.Run(partsIn*partsOut*chunks, func(task, worker int) {
		chunk, o, i := task%chunks, task/chunks%partsOut*co, task/chunks/partsOut*ci
		height, width := min(ci, w.cin-i), min(co, w.cout-o)
		buf := sc.worker(worker, planes*(xPlane+dyPlane+sumPlane)+piece+4*line)
		xt, dyt, sums := cut(&buf, planes*xPlane), cut(&buf, planes*dyPlane), cut(&buf, planes*sumPlane)
		end := min((chunk+1)*each, w.total())
		for first := chunk * each; first < end; first += tiles {
			count := min(tiles, end-first)
			w.transformInput(xt, ci, xPlane, first, count, x, i, height)
			w.transformGradient(dyt, co, dyPlane, first, count, dy, o, width)
			var nextX, nextDY []float32 // of all channels
			next := min(tiles, w.total()-first-count)
			if partsIn == 1 {
				nextX = w.inputRows(x, first+count, next)
			}
			if partsOut == 1 {
				nextDY = w.outputRows(dy, first+count, next)
			}
			for p := 0; p < planes; p += group {
				multiplyAll(w.set, group, height, width, count, xt[p*xPlane:], xPlane, 1, ci, right{dyt[p*dyPlane:], 0, co}, dyPlane,
					sums[p*sumPlane:], sumPlane, width, first > chunk*each, ahead(p, group, nextX, nextDY))
			}
		}
		out := buf
		if chunks > 1 {
			out = partial[task*piece:]
		}
		for r := range height {
			w.set.WinogradWeightsGrad(out[9*r*width:], width, sums[r*width:], sumPlane, width/lanes)
		}
		if chunks == 1 {
			storeGradient(w.set, dst, 3, 3, out, width, i, height, o, width)
		}
	})
	if chunks == 1 {
		return
	}
	rows := divUp(ci, lanes)
	par.Run(partsIn*partsOut*rows, func(task, _ int) {
		r, o, i := task%rows*lanes, task/rows%partsOut, task/rows/partsOut
		height, width := min(lanes, w.cin-i*ci-r), min(co, w.cout-o*co)
		if height <= 0 {
			return
		}
		pieces := partial[(i*partsOut+o)*chunks*piece:]
		size := 9 * height * width
		sum := pieces[9*r*width:][:size]
		for c := 1; c < chunks; c++ {
			w.set.Add(sum, sum, pieces[c*piece+9*r*width:][:size])
		}
		storeGradient(w.set, dst, 3, 3, sum, width, i*ci+r, height, o*co, width)
	})
}

// transformGradient is transformInput for the output's gradient.
func (w *winograd) transformGradient(dst []float32, row, plane, first, count int, dy []float32, channel, width int) {
	var rows [4][]float32
	w.runs(first, count, func(t tile, i, n int) {
		patchRows(rows[:], dy, w.zeros, t.n, 4*t.y, w.outH, w.outW*w.cout, channel)
		w.set.WinogradGradient(dst[i*row:], plane, row, &rows, 4*t.x, w.outW, w.cout, width/w.set.Lanes(), n)
	})
}
