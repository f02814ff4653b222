package conv

// Around an image are zeros. Products with them are left out where they are many: of a 3x3 kernel of stride 2 on an image of
// 8x8 they are a sixth. The points of a task are then put in such an order that those which a block of taps needs follow each
// other.

// edge is the row and the column of the grid from which some taps read beside the image, each -1 where there is none or more
// than one.
type edge struct{ row, col int }

// beside says whether taps read beside the image from the row, and from the column, at the edge.
type beside struct{ row, col bool }

var noEdge = edge{-1, -1}

// edgeChannels is from how many leaving out products is worth cutting the sums into more blocks.
const edgeChannels = 128

// findEdge sets the edge if that saves a tenth of all products.
func (g *gather) findEdge() {
	g.edge = noEdge
	if g.groups > 1 || g.ci < edgeChannels {
		return
	}
	place := func(points, step, size int, offset func(t tap) int) int {
		found := -1
		for _, t := range g.taps {
			for p := range points {
				if inside(p*step+offset(t), size) || p == found {
					continue
				}
				if found >= 0 {
					return -1
				}
				found = p
			}
		}
		return found
	}
	g.edge.row = place(g.gh, g.stepH, g.inH, func(t tap) int { return t.dy })
	g.edge.col = place(g.gw, g.stepW, g.inW, func(t tap) int { return t.dx })
	left := 0
	for _, t := range g.taps {
		h, w, b := g.gh, g.gw, g.besideOf(t)
		if b.row {
			h--
		}
		if b.col {
			w--
		}
		left += h * w
	}
	if 10*left > 9*len(g.taps)*g.gh*g.gw {
		g.edge = noEdge
	}
}

func inside(at, size int) bool { return at >= 0 && at < size }

// besideOf says where a tap reads beside the image.
func (g *gather) besideOf(t tap) beside {
	return beside{g.edge.row >= 0 && !inside(g.edge.row*g.stepH+t.dy, g.inH), g.edge.col >= 0 && !inside(g.edge.col*g.stepW+t.dx, g.inW)}
}

// sorted is points by kind: first those of the row at the edge only, then those of neither, of the column only, and of both.
type sorted struct {
	list   []stretch
	starts [5]int // of the kinds in list, and its end
	points [5]int // before these
}

// sort appends points to list by kind.
func (g *gather) sort(points, list []stretch) sorted {
	s := sorted{list: list}
	count := 0
	add := func(p stretch, lo, hi int) {
		if lo < hi {
			s.list = append(s.list, stretch{p.n, p.oy, lo, hi - lo})
			count += hi - lo
		}
	}
	for kind, is := range [4]beside{{row: true}, {}, {col: true}, {row: true, col: true}} {
		for _, p := range points {
			lo, hi := p.ox, p.ox+p.count
			switch {
			case is.row != (p.oy == g.edge.row):
			case is.col:
				add(p, max(lo, g.edge.col), min(hi, g.edge.col+1))
			default:
				add(p, lo, min(hi, g.edge.col))
				add(p, max(lo, g.edge.col+1), hi)
			}
		}
		s.starts[kind+1], s.points[kind+1] = len(s.list), count
	}
	return s
}

// of is the points from which a block of taps reads inside the image, the number of those before them, and their own.
func (s *sorted) of(b beside) (list []stretch, before, count int) {
	first, end := 0, 4
	switch b {
	case beside{row: true}:
		first, end = 1, 3
	case beside{col: true}:
		end = 2
	case beside{row: true, col: true}:
		first, end = 1, 2
	}
	return s.list[s.starts[first]:s.starts[end]], s.points[first], s.points[end] - s.points[first]
}
