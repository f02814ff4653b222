package report

import (
	"cmp"
	"math"
	"slices"
)

// box is a rectangle in a figure.
type box struct{ x0, y0, x1, y1 float64 }

// overlap is the area that two boxes share.
func (b box) overlap(c box) float64 {
	return max(0, min(b.x1, c.x1)-max(b.x0, c.x0)) * max(0, min(b.y1, c.y1)-max(b.y0, c.y0))
}

// label is the name of a point and, once placed, the box it stands in.
type label struct {
	text string
	x, y float64 // the point
	box
}

const lineHeight = 15.

// placeLabels puts the names of points beside them, within a frame, so that they cover neither each other nor marks nor
// other obstacles: each in turn takes the place that costs least, near places being cheaper, until nothing moves.
func placeLabels(labels []label, obstacles []box, frame box) {
	const radius = 7.
	for _, l := range labels {
		obstacles = append(obstacles, box{l.x - radius, l.y - radius, l.x + radius, l.y + radius})
	}
	penalty := func(area float64) float64 {
		if area < 1e-9 {
			return 0
		}
		return 200 + 10*area
	}
	cost := func(i int, b box) float64 {
		sum := 0.
		for j, other := range labels {
			if j != i && other.box != (box{}) {
				sum += penalty(b.overlap(other.box))
			}
		}
		for _, o := range obstacles {
			sum += penalty(b.overlap(o))
		}
		outside := (b.x1-b.x0)*(b.y1-b.y0) - b.overlap(frame)
		return sum + 2*penalty(outside)
	}
	for range 8 {
		moved := false
		for i := range labels {
			l := &labels[i]
			w := textWidth(l.text, textSize)
			best, least := l.box, math.Inf(1)
			for ring := range 16 {
				d := radius + 1 + 9*float64(ring)
				for step := range 16 {
					angle := float64(step) * math.Pi / 8
					dx, dy := math.Cos(angle), math.Sin(angle)
					cx, cy := l.x+dx*(d+w/2), l.y+dy*(d+lineHeight/2)
					b := box{cx - w/2, cy - lineHeight/2, cx + w/2, cy + lineHeight/2}
					// To the right is where a reader looks first.
					c := cost(i, b) + 3*float64(ring*ring) + 2*(1-dx) + 2*math.Abs(dy)
					if c < least {
						best, least = b, c
					}
				}
			}
			if best != l.box {
				l.box, moved = best, true
			}
		}
		if !moved {
			return
		}
	}
}

// drawLabels writes the names, with a line to the point where one had to go far.
func (f *Figure) drawLabels(labels []label) {
	for _, l := range labels {
		x, y := min(max(l.x, l.x0), l.x1), min(max(l.y, l.y0), l.y1) // of the box, the nearest to the point
		if math.Hypot(x-l.x, y-l.y) > 16 {
			f.line("lead", l.x, l.y, x, y)
		}
		f.text((l.x0+l.x1)/2, l.y1-4, "middle", "", l.text)
	}
}

// spread moves heights apart until each has its room, changing them as little as it can and keeping their order, and
// returns where each went.
func spread(heights []float64, room, top, bottom float64) []float64 {
	order := make([]int, len(heights))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(heights[a], heights[b]) })
	// Neighbours that touch become one block around the mean of what its members wish.
	type block struct {
		wish float64 // sum of the members' wishes for the block's first place
		n    int
	}
	var blocks []block
	first := func(b block) float64 {
		at := b.wish / float64(b.n)
		return max(top, min(at, bottom-room*float64(b.n-1)))
	}
	for _, i := range order {
		blocks = append(blocks, block{heights[i], 1})
		for len(blocks) > 1 {
			a, b := blocks[len(blocks)-2], blocks[len(blocks)-1]
			if first(a)+room*float64(a.n) <= first(b) {
				break
			}
			blocks = append(blocks[:len(blocks)-2], block{a.wish + b.wish - room*float64(a.n*b.n), a.n + b.n})
		}
	}
	placed := make([]float64, len(heights))
	k := 0
	for _, b := range blocks {
		for j := range b.n {
			placed[order[k]] = first(b) + room*float64(j)
			k++
		}
	}
	return placed
}
