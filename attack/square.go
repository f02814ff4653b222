package attack

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/adaad-go/adaad/threat"
)

// Square is Square Attack (Andriushchenko et al., ECCV 2020): random search for a point of lower margin that asks for
// logits only. From vertical stripes of ±eps (Linf) or tiles of bumps (L2), each query changes one square window and is
// kept where the margin falls. The window's area starts at 0.8 of the image's and is halved after set numbers of queries.
type Square struct {
	Norm    threat.Norm
	Epsilon float64
	Queries int
}

// NewSquare is Square Attack with the settings of AutoAttack.
func NewSquare(norm threat.Norm, eps float64) Square { return Square{norm, eps, 5000} }

// Name is the attack's name.
func (a Square) Name() string { return "square" }

func (a Square) String() string {
	return fmt.Sprintf("%s eps %s, %d queries", a.Norm, threat.Format(a.Epsilon), a.Queries)
}

// Cost is a forward pass for the start and for every query.
func (a Square) Cost(int) Cost { return Cost{Forwards: a.Queries + 1} }

// halvings are the numbers of queries after which the window's area is halved, for any number of queries.
var halvings = []int{10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000}

// windowSide is that of the window of a query, at least least.
func windowSide(query, h, w, least int) int {
	area := 0.8 * float64(h*w)
	for _, n := range halvings {
		if query > n {
			area /= 2
		}
	}
	return min(max(int(math.RoundToEven(math.Sqrt(area))), least), h, w)
}

// Perturb searches from an image.
func (a Square) Perturb(im *Image) ([]float32, error) {
	h, w, c := im.Classifier().Input()
	p := picture{h, w, c, im.X, a.Epsilon, im.Rand(a.Name(), 0)}
	start, change := p.stripes, p.recolour
	if a.Norm == threat.L2 {
		start, change = p.tiles, p.shift
	}
	best, next := start(), make([]float32, len(im.X))
	lowest := float32(math.Inf(1))
	for query := range a.Queries + 1 {
		copy(next, best)
		if query > 0 && !change(next, query-1) {
			continue // the logits are known
		}
		var logits []float32
		var err error
		if query == 0 || a.Norm == threat.L2 { // where the whole perturbation is scaled
			logits, err = im.Logits(next)
		} else {
			logits, err = im.LogitsNear(next, best)
		}
		if err != nil {
			return nil, err
		}
		prediction, margin := Answer(logits, im.Label)
		if prediction != im.Label {
			return next, nil
		}
		if margin < lowest {
			lowest = margin
			best, next = next, best
		}
	}
	return best, nil
}

// picture is an image and how it is changed at random.
type picture struct {
	h, w, c int
	x       []float32
	eps     float64
	r       *rand.Rand
}

func (p picture) at(row, column, channel int) int { return (row*p.w+column)*p.c + channel }

func (p picture) sign() float32 { return float32(1 - 2*p.r.IntN(2)) }

// window is the corner of a random window of a side.
func (p picture) window(s int) (row, column int) { return p.r.IntN(p.h - s + 1), p.r.IntN(p.w - s + 1) }

// stripes are the image ± eps, with a sign for each column and channel.
func (p picture) stripes() []float32 {
	adv := slices.Clone(p.x)
	for column := range p.w {
		for channel := range p.c {
			offset := p.sign() * float32(p.eps)
			for row := range p.h {
				i := p.at(row, column, channel)
				adv[i] = max(0, min(adv[i]+offset, 1))
			}
		}
	}
	return adv
}

// recolour puts a window of adv at the image ± eps, with a sign for each channel, and says whether that changed anything.
func (p picture) recolour(adv []float32, query int) bool {
	s := windowSide(query, p.h, p.w, 1)
	top, left := p.window(s)
	changed := false
	for channel := range p.c {
		offset := p.sign() * float32(p.eps)
		for row := top; row < top+s; row++ {
			for column := left; column < left+s; column++ {
				i := p.at(row, column, channel)
				v := max(0, min(p.x[i]+offset, 1))
				changed = changed || v != adv[i]
				adv[i] = v
			}
		}
	}
	return changed
}

// tiles are the image and a perturbation of norm eps: five by five tiles of bumps, with a sign for each channel.
func (p picture) tiles() []float32 {
	s := max(min(p.h, p.w)/5, 1)
	delta := make([]float32, len(p.x))
	for top := p.h % s / 2; top+s <= p.h; top += s {
		for left := p.w % s / 2; left+s <= p.w; left += s {
			bump := p.bump(s)
			for channel := range p.c {
				sign := p.sign()
				for i, v := range bump {
					delta[p.at(top+i/s, left+i%s, channel)] = sign * v
				}
			}
		}
	}
	return p.plus(delta)
}

// shift moves the perturbation of adv from one window to another, where it adds a bump to what is there (Algorithm 3 of
// the paper), and brings the whole to norm eps.
func (p picture) shift(adv []float32, query int) bool {
	s := windowSide(query, p.h, p.w, 3)
	if s%2 == 0 && s < min(p.h, p.w) {
		s++
	}
	to, toLeft := p.window(s)
	from, fromLeft := p.window(s)
	bump := p.bump(s)
	delta := make([]float32, len(adv))
	for i, v := range adv {
		delta[i] = v - p.x[i]
	}
	left := max(p.eps*p.eps-math.Pow(threat.L2.Length(delta), 2), 0) / float64(p.c)
	old := slices.Clone(delta)
	within := func(row, column, top, left int) bool {
		return row >= top && row < top+s && column >= left && column < left+s
	}
	for channel := range p.c {
		var there, both float64 // squared norms of the old perturbation in the new window and in the two
		for row := range p.h {
			for column := range p.w {
				i := p.at(row, column, channel)
				isThere, isHere := within(row, column, to, toLeft), within(row, column, from, fromLeft)
				v := float64(old[i]) * float64(old[i])
				if isThere {
					there += v
				}
				if isThere || isHere {
					both += v
				}
				if isHere {
					delta[i] = 0
				}
			}
		}
		sign := p.sign()
		fresh := make([]float32, len(bump))
		for k, v := range bump {
			fresh[k] = sign*v + old[p.at(to+k/s, toLeft+k%s, channel)]/float32(tiny+math.Sqrt(there))
		}
		scale := float32(math.Sqrt(left+both) / (tiny + threat.L2.Length(fresh)))
		for k, v := range fresh {
			delta[p.at(to+k/s, toLeft+k%s, channel)] = v * scale
		}
	}
	copy(adv, p.plus(delta))
	return true
}

// plus is the image with the perturbation brought to norm eps, clipped to [0,1].
func (p picture) plus(delta []float32) []float32 {
	scale := float32(p.eps / (threat.L2.Length(delta) + tiny))
	for i, v := range delta {
		delta[i] = max(0, min(p.x[i]+v*scale, 1))
	}
	return delta
}

// bump is η of the paper, s by s with norm 1: two hills of opposite sign side by side or one above the other.
func (p picture) bump(s int) []float32 {
	v := make([]float32, s*s)
	hill(v[:s/2*s], s/2, s, 1)
	hill(v[s/2*s:], s-s/2, s, -1)
	norm := float32(threat.L2.Length(v))
	for i := range v {
		v[i] /= norm
	}
	if p.r.IntN(2) == 1 {
		for i := range s {
			for j := range i {
				v[i*s+j], v[j*s+i] = v[j*s+i], v[i*s+j]
			}
		}
	}
	return v
}

// hill adds to rows by columns values rectangles that grow from the middle, each by 1/k² for the k-th, and brings them to
// norm 1 and a sign.
func hill(v []float32, rows, columns int, sign float32) {
	if len(v) == 0 {
		return
	}
	top, left := rows/2, columns/2
	for k := range max(top, left) + 1 {
		for row := max(top-k, 0); row < min(top+k+1, rows); row++ {
			for column := max(left-k, 0); column < min(left+k+1, columns); column++ {
				v[row*columns+column] += 1 / float32((k+1)*(k+1))
			}
		}
	}
	norm := float32(threat.L2.Length(v))
	for i := range v {
		v[i] *= sign / norm
	}
}
