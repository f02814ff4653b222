package data

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/adaad-go/adaad/internal/rng"
)

// ShapesSeed is the seed of the set that [Open] draws as "shapes".
const ShapesSeed = 1

// The sizes of the splits of "shapes".
const (
	shapesTrain = 10000
	shapesTest  = 2000
)

const (
	shapeSide  = 32
	cueHeight  = 7.0 / 255 // largest change a class's ripple makes: an attack of 8/255 rubs it out and has some left to forge another
	pixelNoise = 0.5 / 255 // standard deviation of the noise on every channel
)

// A shape is a class of "shapes": an outline that survives an attack, and a ripple that does not.
type shape struct {
	name string
	// distance is about the signed distance from (x, y) to the outline, negative inside; the shape about fills the unit
	// disc and stays within 1.5 of its centre.
	distance func(x, y float64) float64
	ripple   [2]float64 // waves across and down the image
}

var shapes = [...]shape{
	{"disc", disc, [2]float64{6, 6}},
	{"ring", ring, [2]float64{6, 10}},
	{"square", square, [2]float64{6, 14}},
	{"triangle", triangle, [2]float64{10, 6}},
	{"star", star, [2]float64{10, 10}},
	{"cross", cross, [2]float64{10, 14}},
	{"heart", heart, [2]float64{14, 6}},
	{"crescent", crescent, [2]float64{14, 10}},
	{"bowl", bowl, [2]float64{14, 14}},
	{"checker", checker, [2]float64{8, 12}},
}

func disc(x, y float64) float64     { return math.Hypot(x, y) - 0.9 }
func ring(x, y float64) float64     { return math.Abs(math.Hypot(x, y)-0.72) - 0.24 }
func square(x, y float64) float64   { return box(x, y, 0.76, 0.76) }
func triangle(x, y float64) float64 { return max(y-0.55, math.Abs(x)*math.Sqrt(3)/2-y/2-0.55) }
func cross(x, y float64) float64    { return min(box(x, y, 1, 0.27), box(x, y, 0.27, 1)) }
func crescent(x, y float64) float64 {
	return max(math.Hypot(x, y)-1, 0.78-math.Hypot(x-0.42, y))
}

// star has five points: the plane is folded onto half of one, whose edge is a line from its tip to the notch beside it.
func star(x, y float64) float64 {
	const tip, notch, half = 1.1, 0.45, math.Pi / 5
	a := math.Atan2(x, y) // from the tip that points up the y axis
	a = math.Abs(math.Remainder(a, 2*half))
	r := math.Hypot(x, y)
	px, py := r*math.Cos(a), r*math.Sin(a)
	ex, ey := notch*math.Cos(half)-tip, notch*math.Sin(half)
	return ((px-tip)*-ey + py*ex) / -math.Hypot(ex, ey)
}

// heart is a square on its corner with a disc on each of its upper sides.
func heart(x, y float64) float64 {
	const side = 0.52 // half a side of the square, and the discs' radius
	x, y = math.Abs(x), y+0.15
	u, v := (x+y)/math.Sqrt2, (y-x)/math.Sqrt2
	return min(box(u, v, side, side), math.Hypot(u, v+side)-side)
}

// bowl is half a disc, open side up.
func bowl(x, y float64) float64 { return max(math.Hypot(x, y+0.4)-1.05, -(y + 0.4)) }

// checker is the five dark squares of a board of three by three.
func checker(x, y float64) float64 {
	const cell = 0.3
	x, y = math.Abs(x), math.Abs(y)
	return min(box(x, y, cell, cell), box(x-2*cell, y-2*cell, cell, cell))
}

func box(x, y, w, h float64) float64 { return max(math.Abs(x)-w, math.Abs(y)-h) }

// Shapes draws the first n images of a split: 32x32 colour pictures of ten shapes in turn, one to a picture, near the
// middle and upright within 15 degrees, in random sizes and colours, faintly shaded, on a faintly shaded and cluttered
// ground, under a little noise.
//
// The set is made to show what adversarial training is for, so each picture tells its class twice:
//
//   - by the shape, lighter or darker than the ground by at least 0.32 before shading: a robust cue, but one that
//     takes some learning, for place, size, angle, colours, which of shape and ground is lighter, and clutter all vary;
//   - by a faint ripple over the whole picture, cos(2π·a·x/32 + φ)·cos(2π·b·y/32 + ψ) with the class's own (a, b), random
//     φ and ψ and a height of 7/255: an easy cue which hardly shows, and which an attack of 8/255 can rub out and
//     replace by another class's.
//
// The ripple's height, the noise, the contrast and the poses were set by trial, so that a small network trained on the
// pictures as they are relies on the ripple and gets nearly nothing right under PGD, and one trained against attacks,
// which has only the shape to go by, learns in a few hundred steps. Natural images have such cues too (Ilyas et
// al., "Adversarial Examples Are Not Bugs, They Are Features", 2019); here they are planted, and the gap between natural
// and robust training is wide by design. Results on this set say that a method works, not how well it does on
// photographs.
//
// Image i depends on the seed, the split and i alone. Processors on which Go fuses multiplications with additions may
// round a pixel to the next level.
func Shapes(seed uint64, split Split, n int) *Set {
	s := &Set{
		Name: "shapes", Height: shapeSide, Width: shapeSide, Channels: 3,
		Pixels: make([]uint8, n*shapeSide*shapeSide*3),
		Labels: make([]int, n),
		Index:  count(n),
	}
	for _, c := range shapes {
		s.Classes = append(s.Classes, c.name)
	}
	parallel(n, func(i int) {
		s.Labels[i] = i % len(shapes)
		drawShape(s.Image(i), &shapes[i%len(shapes)], rng.New(seed, rng.Draw, uint64(split), uint64(i)))
	})
	return s
}

type colour [3]float64

func (c colour) light() float64 { return 0.299*c[0] + 0.587*c[1] + 0.114*c[2] }

// between returns a random number in [lo, hi).
func between(r *rand.Rand, lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }

func randomColour(r *rand.Rand) (c colour) {
	for k := range c {
		c[k] = between(r, 0.1, 0.9)
	}
	return c
}

// contrasting returns two random colours, one lighter than the other by at least gap.
func contrasting(r *rand.Rand, gap float64) (a, b colour) {
	for {
		a, b = randomColour(r), randomColour(r)
		if math.Abs(a.light()-b.light()) >= gap {
			return a, b
		}
	}
}

// A wave is a random slow shading of a surface.
type wave struct{ x, y, phase, height float64 }

func randomWave(r *rand.Rand, height float64) wave {
	angle, length := between(r, 0, 2*math.Pi), between(r, 10, 40)
	k := 2 * math.Pi / length
	return wave{k * math.Cos(angle), k * math.Sin(angle), between(r, 0, 2*math.Pi), height}
}

func (w wave) at(x, y float64) float64 { return w.height * math.Sin(w.x*x+w.y*y+w.phase) }

// A pose places a shape: its centre, its radius in pixels and its angle.
type pose struct{ x, y, scale, cos, sin float64 }

func randomPose(r *rand.Rand, scale, spread, angle float64) pose {
	a := between(r, -angle, angle)
	const middle = float64(shapeSide) / 2
	return pose{middle + between(r, -spread, spread), middle + between(r, -spread, spread), scale, math.Cos(a), math.Sin(a)}
}

// distance is f's, in pixels, at a point of the image.
func (p pose) distance(f func(x, y float64) float64, x, y float64) float64 {
	x, y = (x-p.x)/p.scale, (y-p.y)/p.scale
	return p.scale * f(p.cos*x+p.sin*y, p.cos*y-p.sin*x)
}

// cover is how much of the pixel centred on (x, y) the shape covers: 16 samples where the outline may cross it.
func (p pose) cover(f func(x, y float64) float64, x, y float64) float64 {
	if reach := 1.5*p.scale + 1; (x-p.x)*(x-p.x)+(y-p.y)*(y-p.y) > reach*reach {
		return 0
	}
	d := p.distance(f, x, y)
	if d >= 1 {
		return 0
	}
	if d <= -1 {
		return 1
	}
	inside := 0
	for sy := range 4 {
		for sx := range 4 {
			if p.distance(f, x+(float64(sx)-1.5)/4, y+(float64(sy)-1.5)/4) < 0 {
				inside++
			}
		}
	}
	return float64(inside) / 16
}

func drawShape(dst []uint8, s *shape, r *rand.Rand) {
	ground, paint := contrasting(r, 0.32)
	groundWave, paintWave := randomWave(r, 0.03), randomWave(r, 0.03)
	where := randomPose(r, between(r, 11, 13), 1.5, math.Pi/12)

	// Clutter lies on the ground, under the shape.
	type spot struct {
		pose
		colour
		f func(x, y float64) float64
	}
	clutter := make([]spot, r.IntN(3))
	for k := range clutter {
		f := disc
		if r.IntN(2) == 0 {
			f = square
		}
		tint := ground
		for c := range tint {
			tint[c] += between(r, -0.1, 0.1)
		}
		clutter[k] = spot{randomPose(r, between(r, 1.5, 4), 16, math.Pi), tint, f}
	}

	var across, down [shapeSide]float64
	phaseX, phaseY := between(r, 0, 2*math.Pi), between(r, 0, 2*math.Pi)
	for k := range shapeSide {
		w := 2 * math.Pi * float64(k) / shapeSide
		across[k] = cueHeight * math.Cos(s.ripple[0]*w+phaseX)
		down[k] = math.Cos(s.ripple[1]*w + phaseY)
	}

	for py := range shapeSide {
		for px := range shapeSide {
			x, y := float64(px)+0.5, float64(py)+0.5
			at := ground
			for k := range clutter {
				c := &clutter[k]
				at = mix(at, c.colour, 0, c.cover(c.f, x, y))
			}
			at = mix(at, at, groundWave.at(x, y), 1)
			at = mix(at, paint, paintWave.at(x, y), where.cover(s.distance, x, y))
			for c, v := range at {
				v += across[px]*down[py] + pixelNoise*r.NormFloat64()
				dst[(py*shapeSide+px)*3+c] = uint8(255*min(max(v, 0), 1) + 0.5)
			}
		}
	}
}

// mix lays colour b, lightened by shade, over a so that it covers that much of it.
func mix(a, b colour, shade, cover float64) colour {
	for c := range a {
		a[c] += (b[c] + shade - a[c]) * cover
	}
	return a
}

// parallel calls f(0), ..., f(n-1) on all processors.
func parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				f(i)
			}
		})
	}
	all.Wait()
}
