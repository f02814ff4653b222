package conv

// Window is the pixels of rows [Top, Bottom) and columns [Left, Right) of image N.
type Window struct{ N, Top, Left, Bottom, Right int }

// Empty reports whether the window has no pixels.
func (w Window) Empty() bool { return w.Top >= w.Bottom || w.Left >= w.Right }

// Pixels is how many the window has.
func (w Window) Pixels() int { return max(0, w.Bottom-w.Top) * max(0, w.Right-w.Left) }

// Union is the smallest window of the same image in which both are.
func (w Window) Union(v Window) Window {
	switch {
	case w.Empty():
		return v
	case v.Empty():
		return w
	}
	return Window{w.N, min(w.Top, v.Top), min(w.Left, v.Left), max(w.Bottom, v.Bottom), max(w.Right, v.Right)}
}

// Reached is the window of the output in which Forward's results depend on a window of the input.
func (p *Plan) Reached(w Window) Window {
	if w.Empty() {
		return Window{N: w.N}
	}
	oh, ow := p.s.Out()
	// Output o reads inputs o·stride - pad + k·dilation.
	axis := func(lo, hi, stride, pad, reach, out int) (int, int) {
		return min(max(0, divUp(max(0, lo+pad-reach), stride)), out), min(max(0, (hi-1+pad)/stride+1), out)
	}
	v := Window{N: w.N}
	v.Top, v.Bottom = axis(w.Top, w.Bottom, p.s.StrideH, p.s.PadTop, (p.s.KH-1)*p.s.DilH, oh)
	v.Left, v.Right = axis(w.Left, w.Right, p.s.StrideW, p.s.PadLeft, (p.s.KW-1)*p.s.DilW, ow)
	return v
}

// Cover is what ForwardWindows computes for a window of the output: whole tiles, or whole rows. ok is false where it does
// not know how to do less than all.
func (p *Plan) Cover(w Window) (cover Window, ok bool) {
	oh, ow := p.s.Out()
	switch {
	case p.winogradForward != nil && p.winogradForward.late(), p.depthwiseForward != nil:
		return w, false
	case w.Empty():
	case p.winogradForward != nil, p.phasesForward != nil:
		w.Top, w.Left, w.Bottom, w.Right = w.Top/4*4, w.Left/4*4, min(roundUp(w.Bottom, 4), oh), min(roundUp(w.Right, 4), ow)
	default:
		w.Left, w.Right = 0, ow
	}
	return w, true
}

// Read is the window of the input that ForwardWindows reads for one of the output that it computes: of tiles, or of rows.
func (p *Plan) Read(w Window) Window {
	if w.Empty() {
		return Window{N: w.N}
	}
	axis := func(lo, hi, stride, pad, kernel, dilation, in int) (int, int) {
		lo, hi = lo*stride-pad, (hi-1)*stride-pad+(kernel-1)*dilation+1
		return min(max(0, lo), in), min(max(0, hi), in)
	}
	v := Window{N: w.N}
	v.Top, v.Bottom = axis(w.Top, w.Bottom, p.s.StrideH, p.s.PadTop, p.s.KH, p.s.DilH, p.s.H)
	v.Left, v.Right = axis(w.Left, w.Right, p.s.StrideW, p.s.PadLeft, p.s.KW, p.s.DilW, p.s.W)
	return v
}

// ForwardWindows is Forward for what covers some windows of the output, to the same bits, on the goroutine that calls it. The
// images are as many as there is memory for, whatever the plan's batch.
func (p *Plan) ForwardWindows(y, x, w []float32, e Epilogue, windows []Window) {
	weights := p.packForward.parts(w)[0]
	sc := getScratch(1)
	defer sc.put()
	if t := p.winogradForward; t != nil {
		o := t.newOutput(y, t.cout, e, nil)
		t.cover(windows, func(b block, count int) { t.compute(o, b, count, x, weights, sc, 0, nil, nil) })
		return
	}
	if t := p.phasesForward; t != nil {
		o := t.newOutput(y, t.outer, e, nil)
		t.cover(windows, func(b block, count int) {
			for col := 0; col < t.outer; col += t.cols {
				t.compute(o, b, count, col, x, weights, sc, 0, nil, nil)
			}
		})
		return
	}
	finish := finishForward(p.set, y, p.s.Cout, e, p.zeros)
	for _, v := range windows {
		if v.Empty() {
			continue
		}
		if t := p.thin; t != nil {
			for row := v.Top; row < v.Bottom; row += t.rows {
				t.compute(v.N, row, min(t.rows, v.Bottom-row), x, weights, finish, sc, 0)
			}
			continue
		}
		g := p.forward
		first, end := (v.N*g.gh+v.Top)*g.gw, (v.N*g.gh+v.Bottom)*g.gw
		for ; first < end; first += g.points {
			for col := 0; col < g.co; col += g.cols {
				g.compute(first, min(g.points, end-first), col, sc.worker(0, g.scratchSize()), x, weights, finish)
			}
		}
	}
}

// cover calls f for blocks of about as many of the tiles that cover the windows.
func (t *tiling) cover(windows []Window, f func(b block, count int)) {
	tiles := func(v Window) (top, left, bottom, right int) {
		if v.Empty() {
			return
		}
		return v.Top / 4, v.Left / 4, divUp(v.Bottom, 4), divUp(v.Right, 4)
	}
	total := 0
	for _, v := range windows {
		top, left, bottom, right := tiles(v)
		total += (bottom - top) * (right - left)
	}
	if total == 0 {
		return
	}
	most := divUp(total, divUp(total, t.tiles))
	var room [spans]span
	b, count := block(room[:0]), 0
	for _, v := range windows {
		top, left, bottom, right := tiles(v)
		for y := top; y < bottom; y++ {
			for x := left; x < right; {
				n := min(right-x, most-count)
				b = append(b, span{tile{v.N, y, x}, n})
				x += n
				if count += n; count == most {
					f(b, count)
					b, count = b[:0], 0
				}
			}
		}
	}
	if count > 0 {
		f(b, count)
	}
}
