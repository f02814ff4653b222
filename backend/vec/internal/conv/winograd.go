package conv

import (
	"slices"

	"github.com/adaad-go/adaad/internal/kern"
)

// winograd is a 3x3 correlation of stride 1 by F(4x4,3x3): out[n,y,x] = Σ in[n, y+kh-padTop, x+kw-padLeft]·w[kh,kw]. A
// task takes a block of tiles through the input transform, 36 matrix products and the output transform while it stays in
// a second-level cache.
type winograd struct {
	tiling
	mul              *kern.Set // of the products: the tiling's, or that of bfloat16
	inH, inW, cin    int
	outH, outW, cout int
	padTop, padLeft  int
	image, result    lattice // all pixels of the input, and of the output
	group            int     // planes whose products are computed together
	held             bool    // the weights of a plane stay in registers
	row              int     // elements of a tile of a plane of the transformed input
	plane            int     // elements of one of the transformed input or of the products
	weights          int     // of one plane

	// borrows says that the weights are packed for the gradient of this correlation: the same ones reversed, and read from
	// output to input.
	borrows bool
}

const (
	planes        = kern.WinogradPlanes
	winogradTiles = 24 // in a task: with the weights of 64 channels these stay in a second-level cache
	narrowTiles   = 32
	narrowPlanes  = 18
	heldTiles     = 16 // with the weights of a plane these stay in a first-level cache
	widePlanes    = 6  // in a call, where there are more weights
)

// narrow says that a plane has so few weights that calls of kernels are what its products wait for. Then one call computes
// those of narrowPlanes planes, or of all for the weights' gradient.
func narrow(cin, cout int) bool { return cin*cout <= 1024 }

// tiling is the tiles of 4x4 that cover all images.
type tiling struct {
	set            *kern.Set
	zeros          []float32
	least          int // tasks, where the tiles suffice
	n              int
	tilesH, tilesW int
	tiles          int // in a task
}

func newTiling(set *kern.Set, zeros []float32, tasks, n, h, w int) tiling {
	return tiling{set: set, zeros: zeros, least: tasks, n: n, tilesH: divUp(h, 4), tilesW: divUp(w, 4)}
}

// share divides the tiles into tasks of about as many.
func (t *tiling) share(tiles int) {
	t.tiles = divUp(t.total(), max(divUp(t.total(), tiles), min(t.least, divUp(t.total(), t.set.MaxRows(t.set.MaxVecs())))))
}

// lattice is the pixels of an image that patches or tiles are taken of: all of them, or those of every second row and column.
type lattice struct {
	h, w       int
	start      int // of the first pixel in an image, in elements
	row, col   int // from one pixel to the next
	image      int // from one image to the next
	top, left  int // by which the first patch begins before the first pixel
	high, wide kern.Points
}

// vectors is the set whose vectors divide all numbers of channels, or nil.
func vectors(set *kern.Set, channels ...int) *kern.Set {
	divides := func(s *kern.Set) bool {
		return !slices.ContainsFunc(channels, func(c int) bool { return c%s.Lanes() != 0 })
	}
	for _, s := range kern.Sets() {
		// Vectors of half the width serve channels that the wide ones do not divide.
		if s.Name() == "avx2" && set.Name() == "avx512" && !divides(set) {
			set = s
		}
	}
	if !divides(set) {
		return nil
	}
	return set
}

// newWinograd returns nil where another algorithm is better: where most of the tiles would be outside the image, or the
// channels do not fill vectors.
func newWinograd(set *kern.Set, zeros []float32, tasks int, bf16 bool, n, inH, inW, cin, outH, outW, cout, padTop, padLeft int) *winograd {
	set = vectors(set, cin, cout)
	w := &winograd{tiling: newTiling(set, zeros, tasks, n, outH, outW), inH: inH, inW: inW, cin: cin, outH: outH, outW: outW, cout: cout,
		padTop: padTop, padLeft: padLeft}
	if set == nil || 16*planes*w.tilesH*w.tilesW > 10*9*outH*outW || inH*inW == 0 || n*outH*outW == 0 {
		return nil
	}
	w.image = lattice{h: inH, w: inW, row: inW * cin, col: cin, image: inH * inW * cin, top: padTop, left: padLeft,
		high: kern.AllPoints, wide: kern.AllPoints}
	w.result = lattice{h: outH, w: outW, row: outW * cout, col: cout, image: outH * outW * cout,
		high: kern.AllPoints, wide: kern.AllPoints}
	tiles := winogradTiles
	w.group = widePlanes
	w.held = cin == set.HeldTerms() && cout == set.Lanes()
	w.mul = multiplier(set, bf16 && !w.held)
	w.row = cin / w.mul.Terms()
	switch {
	case w.held:
		tiles, w.group = heldTiles, 1
	case narrow(cin, cout):
		tiles, w.group = narrowTiles, narrowPlanes
	}
	w.share(tiles)
	w.plane = oddLines(w.tiles * max(w.row, cout))
	w.weights = oddLines(w.row * cout)
	return w
}

// multiplier is the set that multiplies: that of bfloat16 if it may and there is one.
func multiplier(set *kern.Set, bf16 bool) *kern.Set {
	if b := set.BF16(); bf16 && b != nil {
		return b
	}
	return set
}

func (t *tiling) total() int { return t.n * t.tilesH * t.tilesW }

// strip is the width of a panel of weights.
func (t *tiling) strip() int { return t.set.MaxVecs() * t.set.Lanes() }

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
		buf := sc.worker(worker, 9*plane+planes*pairedPlane(width)+line)
		taps := cut(&buf, 9*plane)
		for t := range 9 {
			fillPanels(w.set, taps[t*plane:], w.cin, width, func(i int) ([]float32, int) {
				return k.Data[k.Base+t/3*k.SH+t%3*k.SW+i*k.SI+col*k.SO:], k.SO
			})
		}
		transformWeights(w.mul, packed[col*w.row:], w.weights, taps, plane, w.cin, width, buf)
	})
}

// pairedRows is how many rows' planes of numbers stay in a first-level cache until pairs are made of them.
const pairedRows = 4

// transformWeights transforms taps of rows of width columns into rows of the elements that are multiplied, with room for some planes.
func transformWeights(mul *kern.Set, dst []float32, dstPlane int, taps []float32, plane, rows, width int, room []float32) {
	vecs := width / mul.Lanes()
	if mul.Terms() == 1 {
		mul.WinogradWeights(dst, dstPlane, taps, plane, rows*vecs)
		return
	}
	own := pairedPlane(width)
	for i := 0; i < rows; i += pairedRows {
		some := min(pairedRows, rows-i)
		mul.WinogradWeights(room, own, taps[i*width:], plane, some*vecs)
		mul.PairRows(dst[i/2*width:], dstPlane, room, own, planes, some/2, vecs)
	}
}

// pairedPlane is the size of one of the planes that transformWeights needs room for.
func pairedPlane(width int) int { return oddLines(pairedRows * width) }

// tile is where a tile is.
type tile struct{ n, y, x int }

func (t *tiling) tile(i int) tile {
	return tile{i / t.tilesW / t.tilesH, i / t.tilesW % t.tilesH, i % t.tilesW}
}

// span is count tiles side by side, the leftmost being at.
type span struct {
	at    tile
	count int
}

// block is the tiles of a task.
type block []span

// block appends count tiles from first on to b.
func (t *tiling) block(b block, first, count int) block {
	at := t.tile(first)
	for count > 0 {
		n := min(t.tilesW-at.x, count)
		b = append(b, span{at, n})
		count -= n
		at.x = 0
		if at.y++; at.y == t.tilesH {
			at.y = 0
			at.n++
		}
	}
	return b
}

// spans is how many spans of a task are expected.
const spans = narrowTiles

// of is the lattice of image n of x from one channel on.
func (l *lattice) of(x, zeros []float32, n, channel int) kern.Image {
	return kern.Image{X: x[n*l.image+l.start+channel:], Zeros: zeros[channel:], Height: l.h, Width: l.w, Row: l.row, Col: l.col}
}

// below is how many of the first spans lie below one another in one image, as kernels take them.
func (b block) below() int {
	s, n := b[0], 1
	for n < len(b) && b[n] == (span{tile{s.at.n, s.at.y + n, s.at.x}, s.count}) {
		n++
	}
	return n
}

// transformInput transforms width channels from one on of the tiles of b, each into a row of every plane of dst, for a set to multiply.
func (t *tiling) transformInput(set *kern.Set, dst []float32, row, plane int, b block, x []float32, l *lattice, channel, width int) {
	for len(b) > 0 {
		at, count, below := b[0].at, b[0].count, b.below()
		m := l.of(x, t.zeros, at.n, channel)
		set.WinogradInput(dst, plane, row, &m, l.high, l.wide, 4*at.y-l.top, 4*at.x-l.left, width/set.Lanes(), count, below)
		dst, b = dst[below*count*row:], b[below:]
	}
}

// run computes the convolution.
func (w *winograd) run(par Parallel, y, x, weights []float32, e Epilogue, mask []uint16) {
	sc := getScratch(par.Workers())
	defer sc.put()
	o := w.newOutput(y, w.cout, e, mask)
	if w.late() {
		w.runLate(par, sc, x, weights, o)
		return
	}
	par.Run(divUp(w.total(), w.tiles), func(task, worker int) {
		first := task * w.tiles
		count := min(w.tiles, w.total()-first)
		next := w.inputRows(x, first+count, min(w.tiles, w.total()-first-count))
		var room [spans]span
		w.compute(o, w.block(room[:0], first, count), count, x, weights, sc, worker, next, w.outputRows(y, first, count))
	})
}

// compute makes the outputs of the count tiles of b. next and made are memory to fetch on the way.
func (w *winograd) compute(o *output, b block, count int, x, weights []float32, sc *scratch, worker int, next, made []float32) {
	buf := sc.worker(worker, (planes+w.group)*w.plane+16*w.cout+3*line)
	// The products of a group take the place of the group before, which has been multiplied: so there is less to keep in the
	// caches.
	products := cut(&buf, (planes+w.group)*w.plane)
	in := products[w.group*w.plane:]
	w.transformInput(w.mul, in, w.row, w.plane, b, x, &w.image, 0, w.cin)
	if w.held {
		w.set.GemmHeld(&kern.Tiles{Rows: count, Vecs: 1, K: w.cin, Count: planes, ARow: w.cin, ACol: 1, AStep: w.plane, BRow: w.cout,
			BStep: w.weights, CRow: w.cout, CStep: w.plane, Ahead: next}, in, weights, products)
		o.transform(&w.result, products, w.cout, w.plane, b, 0, w.cout, buf)
		return
	}
	for p := 0; p < planes; p += w.group {
		multiplyAll(w.mul, w.group, 1, count, w.cout, w.row, in[p*w.plane:], w.plane, 0, w.row, 1, right{weights[p*w.weights:], w.row, 0}, w.weights,
			products[p*w.plane:], w.plane, w.cout, false, fetches{ahead(p/w.group, planes/w.group, next, made)})
	}
	o.transform(&w.result, products, w.cout, w.plane, b, 0, w.cout, buf)
}

// inputRows is the rows of x that count tiles from first on read.
func (w *winograd) inputRows(x []float32, first, count int) []float32 {
	return w.rows(x, first, count, w.inH, w.inW*w.cin, 4, -w.padTop, 6-w.padTop)
}

// outputRows is the rows of y that count tiles from first on make.
func (w *winograd) outputRows(y []float32, first, count int) []float32 {
	return w.rows(y, first, count, w.outH, w.outW*w.cout, 4, 0, 4)
}

// rows is those of x, images of h rows of size elements, in which are count tiles from first on, which begin at every step-th
// row and each reach from row above to row below, counted from there.
func (t *tiling) rows(x []float32, first, count, h, size, step, above, below int) []float32 {
	if count <= 0 {
		return nil
	}
	row := func(at tile, y int) int { return at.n*h + min(max(0, step*at.y+y), h) }
	return x[row(t.tile(first), above)*size : row(t.tile(first+count-1), below)*size]
}

// ahead is what is fetched during one of some steps of products, for the transforms would wait for memory: a part of one or
// of the other, in turn.
func ahead(step, steps int, one, other []float32) []float32 {
	if step%2 == 1 {
		one = other
	}
	i, parts := step/2, divUp(steps, 2)
	return one[i*len(one)/parts : (i+1)*len(one)/parts]
}

// Where there are so many weights that four times as many, transformed, would not stay in the cache, they are packed as
// they are and transformed late, a block at a time and anew for every group of tiles: memory is what these layers wait
// for. A block is lateTerms rows of one strip of panels.
const (
	lateWeights = 4 << 20 / 4 // elements of all planes, of transformed weights, from which it is done
	lateTerms   = 256         // channels of the input in a block
	latePlanes  = 4           // in a call: few, so that each of as many calls can fetch a square of the next block
	lateTiles   = 128         // in a group
	lateBatch   = 256         // tiles that are transformed before any are multiplied
)

func (w *winograd) late() bool { return planes*w.row*w.cout > lateWeights }

// borrow makes w read the weights that another correlation packed, of which w is the gradient. They are turned round on
// the way.
func (w *winograd) borrow(from *winograd) {
	if from != nil && w.set == from.set && w.late() && w.cin%w.strip() == 0 && w.cout%w.strip() == 0 {
		w.borrows = true
	}
}

// packLate packs the weights as [strip][square][9][terms][columns]. A square has as many terms as a strip is wide, so that turned
// round it is one again.
func (w *winograd) packLate(par Parallel, packed []float32, k Kernel) {
	par.Run(divUp(w.cout, w.strip()), func(strip, _ int) {
		col := strip * w.strip()
		for row := 0; row < w.cin; row += w.strip() {
			taps, terms, width := w.taps(packed, row, col)
			for t := range 9 {
				fillPanels(w.set, taps[t*terms*width:], terms, width, func(i int) ([]float32, int) {
					return k.Data[k.Base+t/3*k.SH+t%3*k.SW+(row+i)*k.SI+col*k.SO:], k.SO
				})
			}
		}
	})
}

// taps is the square of weights at a row and a column, and its size.
func (w *winograd) taps(weights []float32, row, col int) (taps []float32, terms, width int) {
	terms, width = min(w.strip(), w.cin-row), min(w.strip(), w.cout-col)
	at := col*w.cin + row*width
	if w.borrows { // of rows and columns exchanged
		at = row*w.cout + col*terms
	}
	return weights[9*at:][:9*terms*width], terms, width
}

// transformLate transforms those of some terms from a row on of the strip at a column, with room for a square and its planes.
func (w *winograd) transformLate(dst []float32, plane int, weights []float32, row, terms, col int, room, planes []float32) {
	for i := 0; i < terms; i += w.strip() {
		taps, height, width := w.turned(weights, row+i, col, room)
		transformWeights(w.mul, dst[i/w.mul.Terms()*width:], plane, taps, height*width, height, width, planes)
	}
}

// turned is taps as they are multiplied with: those of another correlation, of which w is the gradient, are transposed and
// reversed, with room for a square.
func (w *winograd) turned(weights []float32, row, col int, room []float32) (taps []float32, terms, width int) {
	taps, terms, width = w.taps(weights, row, col)
	if !w.borrows {
		return taps, terms, width
	}
	size := terms * width
	for t := range 9 {
		w.set.Transpose(room[(8-t)*size:], width, taps[t*size:], terms, width, terms, size)
	}
	return room[:9*size], terms, width
}

// multiplyFew adds to the products of a few tiles those with some terms from a row on of the strip at a column, whose weights are
// transformed on the way, with room for a square.
func (w *winograd) multiplyFew(products []float32, productRow, productPlane int, left []float32, plane, tiles int, weights []float32, row, terms, col int, room []float32) {
	for i := 0; i < terms; i += w.strip() {
		taps, height, width := w.turned(weights, row+i, col, room)
		w.set.WinogradProducts(products, productPlane, productRow, left[i:], plane, lateTerms, taps, height*width, width, height, tiles,
			width/w.set.Lanes(), row+i > 0, w.nextSquare(weights, row+i, col))
	}
}

// nextSquare is the weights behind those at a row and a column.
func (w *winograd) nextSquare(weights []float32, row, col int) []float32 {
	if row += w.strip(); row >= w.cin {
		row, col = 0, col+w.strip()
	}
	if col >= w.cout {
		return nil
	}
	taps, _, _ := w.taps(weights, row, col)
	return taps
}

func (w *winograd) runLate(par Parallel, sc *scratch, x, weights []float32, o *output) {
	batch := divUp(w.total(), divUp(w.total(), lateBatch))
	tiles := divUp(batch, divUp(batch, lateTiles))
	blocks := divUp(w.cin, lateTerms)
	wide := w.strip()
	most := lateTerms / w.mul.Terms() // elements of a row of a block
	inPlane, outPlane, wPlane := oddLines(tiles*most), oddLines(tiles*wide), oddLines(most*wide)
	size := planes * inPlane // of a block
	in := sc.common(divUp(batch, tiles) * blocks * size)
	for start := 0; start < w.total(); start += batch {
		groups := divUp(min(batch, w.total()-start), tiles)
		count := func(group int) int { return min(tiles, min(batch, w.total()-start)-group*tiles) }
		channels := lateTerms // that a task transforms: fewer where there would be too few tasks
		for channels > lateTerms/4 && groups*divUp(w.cin, channels) < par.Workers() {
			channels /= 2
		}
		parts := divUp(w.cin, channels)
		par.Run(groups*parts, func(task, _ int) {
			group, row := task/parts, task%parts*channels
			var room [lateTiles]span
			b := w.block(room[:0], start+group*tiles, count(group))
			to := in[(group*blocks+row/lateTerms)*size+row%lateTerms/w.mul.Terms():]
			w.transformInput(w.mul, to, most, inPlane, b, x, &w.image, row, min(channels, w.cin-row))
		})
		par.Run(groups*divUp(w.cout, wide), func(task, worker int) {
			group, col := task%groups, task/groups*wide
			width, n := min(wide, w.cout-col), count(group)
			buf := sc.worker(worker, planes*(wPlane+outPlane)+9*wide*wide+planes*pairedPlane(wide)+16*wide+4*line)
			transformed, products, turned := cut(&buf, planes*wPlane), cut(&buf, planes*outPlane), cut(&buf, 9*wide*wide)
			for i := range blocks {
				row := i * lateTerms
				terms := min(lateTerms, w.cin-row)
				if n <= w.mul.FewTiles() {
					w.multiplyFew(products, wide, outPlane, in[(group*blocks+i)*size:], inPlane, n, weights, row, terms, col, turned)
					continue
				}
				w.transformLate(transformed, wPlane, weights, row, terms, col, turned, buf)
				terms /= w.mul.Terms()
				for p := 0; p < planes; p += latePlanes {
					left := in[(group*blocks+i)*size+p*inPlane:]
					multiplyAll(w.mul, latePlanes, 1, n, width, terms, left, inPlane, 0, most, 1, right{transformed[p*wPlane:], terms, 0}, wPlane,
						products[p*outPlane:], outPlane, wide, i > 0, fetches{w.nextTaps(weights, row, col, p), left[latePlanes*inPlane : min(len(left), 2*latePlanes*inPlane)]})
				}
			}
			var room [lateTiles]span
			o.transform(&w.result, products, wide, outPlane, w.block(room[:0], start+group*tiles, n), col, width, buf)
		})
	}
}

// nextTaps is what to fetch while products from a plane on are computed: some of the weights behind those at a row and a column.
func (w *winograd) nextTaps(weights []float32, row, col, plane int) []float32 {
	if row += lateTerms; row >= w.cin {
		row, col = 0, col+w.strip()
	}
	square := plane / latePlanes * w.strip()
	if row += square; square >= lateTerms || row >= w.cin || col >= w.cout {
		return nil
	}
	taps, _, _ := w.taps(weights, row, col)
	return taps
}

// output is where products go, and with which epilogue.
type output struct {
	*tiling
	channels          int
	y, bias, residual []float32
	mask              []uint16
	floor             float32
	finish            *finisher // for tiles that reach over an edge
}

func (t *tiling) newOutput(y []float32, channels int, e Epilogue, mask []uint16) *output {
	o := &output{tiling: t, channels: channels, y: y, bias: e.Bias, residual: e.Residual, mask: mask, floor: noFloor}
	o.finish = finishForward(t.set, y, channels, e, t.zeros)
	if mask != nil {
		o.finish = finishInput(t.set, y, channels, e.Residual, mask, t.zeros)
	}
	if e.ReLU {
		o.floor = 0
	}
	if o.bias == nil {
		o.bias = t.zeros
	}
	return o
}

// transform makes width channels from one on of the outputs of the tiles of b, of their products, with room for one tile of
// them in edge.
func (o *output) transform(l *lattice, products []float32, productRow, plane int, b block, channel, width int, edge []float32) {
	vecs := width / o.set.Lanes()
	words := kern.MaskWords(o.channels)
	for _, s := range b {
		t, n := s.at, s.count
		at := t.n*l.image + l.start + 4*t.y*l.row + 4*t.x*l.col + channel
		h := min(4, l.h-4*t.y)
		whole := min(n, (l.w-4*t.x)/4)
		if h < 4 {
			whole = 0
		}
		switch {
		case whole == 0:
		case o.mask != nil:
			o.set.WinogradOutputMask(o.y[at:], l.row, l.col, products, plane, productRow, l.high, l.wide, from(o.residual, at), o.mask[at/o.channels*words:],
				l.row/o.channels*words, l.col/o.channels*words, channel, vecs, whole)
		default:
			o.set.WinogradOutput(o.y[at:], l.row, l.col, products, plane, productRow, l.high, l.wide, o.bias[channel:], from(o.residual, at), o.floor,
				vecs, whole)
		}
		for k := whole; k < n; k++ {
			o.set.WinogradOutput(edge, 4*width, width, products[k*productRow:], plane, productRow, l.high, l.wide, o.zeros, nil, noFloor, vecs, 1)
			cols := min(4, l.w-4*(t.x+k))
			for r := range h {
				o.finish.rows(at+r*l.row+4*k*l.col, l.col, edge[4*r*width:], width, channel, cols, width)
			}
		}
		products = products[n*productRow:]
	}
}

// The weights' gradient is made of pieces: for some input channels, some output channels and a chunk of the tiles, a task
// transforms both operands some tiles at a time, adds up the 36 planes of their products, and at the end transforms the sums,
// all in memory of its own. The chunks of a gradient are then added in order.
//
// With more channels, of which every piece would transform some of the others' anew, all are transformed once, a batch of
// tiles at a time, and a task adds up one plane. That takes enough tiles to be worth reading and writing all sums for.
const (
	gradChannels = 64
	gradTiles    = 64 // in a chunk, or in a gradient by planes, at least
	gradBatch    = 128
	gradTasks    = 16 // at least, where there is enough to do
)

// gradKernel is the gradient of the correlation by its weights: dst = Gᵀ·[Σ_tiles (Bᵀ·x·B) ⊙ (A·dy·Aᵀ)]·G.
func (w *winograd) gradKernel(par Parallel, dst Kernel, x, dy []float32) {
	lanes := w.set.Lanes()
	ci := roundUp(divUp(w.cin, divUp(w.cin, gradChannels)), lanes)
	co := roundUp(divUp(w.cout, divUp(w.cout, gradChannels)), lanes)
	partsIn, partsOut := divUp(w.cin, ci), divUp(w.cout, co)
	if partsIn > 1 && partsOut > 1 && w.total() >= gradTiles {
		w.gradKernelByPlanes(par, dst, x, dy)
		return
	}
	chunks := max(1, min(divUp(gradTasks, partsIn*partsOut), w.total()/gradTiles))
	each := divUp(w.total(), chunks)
	chunks = divUp(w.total(), each)
	tiles, group := gradTiles/2, widePlanes // so few that they and the sums of 64 channels stay in a second-level cache
	if narrow(ci, co) {
		tiles, group = gradTiles, planes // of what comes next, only x is fetched in the single call
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
		var room [2 * spans]span
		for first := chunk * each; first < end; first += tiles {
			count := min(tiles, end-first)
			b := w.block(room[:0], first, count)
			w.transformInput(w.set, xt, ci, xPlane, b, x, &w.image, i, height)
			w.transformGradient(dyt, co, dyPlane, b, dy, o, width)
			var nextX, nextDY []float32 // of all channels
			next := min(tiles, w.total()-first-count)
			if partsIn == 1 {
				nextX = w.inputRows(x, first+count, next)
			}
			if partsOut == 1 {
				nextDY = w.outputRows(dy, first+count, next)
			}
			for p := 0; p < planes; p += group {
				multiplyAll(w.set, group, 1, height, width, count, xt[p*xPlane:], xPlane, 0, 1, ci, right{dyt[p*dyPlane:], 0, co}, dyPlane,
					sums[p*sumPlane:], sumPlane, width, first > chunk*each, fetches{ahead(p/group, planes/group, nextX, nextDY)})
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

// gradKernelByPlanes is gradKernel where each operand is transformed once.
func (w *winograd) gradKernelByPlanes(par Parallel, dst Kernel, x, dy []float32) {
	const tiles, rows = 16, 8 // transformed by a task, and back
	batch := divUp(w.total(), divUp(w.total(), gradBatch))
	xRow, dyRow := oddLines(w.cin), oddLines(w.cout)
	xPlane, dyPlane, sumPlane := oddLines(batch*xRow), oddLines(batch*dyRow), oddLines(w.cin*w.cout)
	sc := getScratch(par.Workers())
	defer sc.put()
	buf := sc.common(planes*(xPlane+dyPlane+sumPlane) + 2*line)
	xt, dyt, sums := cut(&buf, planes*xPlane), cut(&buf, planes*dyPlane), buf
	for start := 0; start < w.total(); start += batch {
		count := min(batch, w.total()-start)
		par.Run(2*divUp(count, tiles), func(task, _ int) {
			first := task / 2 * tiles
			var room [spans]span
			b := w.block(room[:0], start+first, min(tiles, count-first))
			if task%2 == 0 {
				w.transformInput(w.set, xt[first*xRow:], xRow, xPlane, b, x, &w.image, 0, w.cin)
			} else {
				w.transformGradient(dyt[first*dyRow:], dyRow, dyPlane, b, dy, 0, w.cout)
			}
		})
		par.Run(planes, func(p, _ int) {
			// All planes of the operands are more than a second-level cache holds.
			var next fetches
			if q := p + 1; q < planes {
				next = fetches{xt[q*xPlane:][:count*xRow], dyt[q*dyPlane:][:count*dyRow]}
			}
			multiplyAll(w.set, 1, 1, w.cin, w.cout, count, xt[p*xPlane:], 0, 0, 1, xRow, right{dyt[p*dyPlane:], 0, dyRow}, 0, sums[p*sumPlane:], 0,
				w.cout, start > 0, next)
		})
	}
	par.Run(divUp(w.cin, rows), func(task, worker int) {
		i := task * rows
		height := min(rows, w.cin-i)
		out := sc.worker(worker, 9*rows*w.cout)
		for r := range height {
			w.set.WinogradWeightsGrad(out[9*r*w.cout:], w.cout, sums[(i+r)*w.cout:], sumPlane, w.cout/w.set.Lanes())
		}
		storeGradient(w.set, dst, 3, 3, out, w.cout, i, height, 0, w.cout)
	})
}

// transformGradient is transformInput for the output's gradient.
func (w *winograd) transformGradient(dst []float32, row, plane int, b block, dy []float32, channel, width int) {
	for len(b) > 0 {
		at, count, below := b[0].at, b[0].count, b.below()
		m := w.result.of(dy, w.zeros, at.n, channel)
		w.set.WinogradGradient(dst, plane, row, &m, 4*at.y, 4*at.x, width/w.set.Lanes(), count, below)
		dst, b = dst[below*count*row:], b[below:]
	}
}
