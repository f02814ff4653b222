// Package data holds labelled images in memory and brings them there: CIFAR-10 and CIFAR-100 in their binary form, MNIST
// in IDX files, folders of pictures, and a set drawn from a seed that needs no files at all. It also downloads the
// official archives, and makes training batches of any set.
//
// Images are NHWC bytes; a batch is float32 in [0, 1]. Every random choice is keyed by an image's place in its original
// split, so it is the same whatever subset, batch size or number of threads the image is met in.
package data

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/adaad-go/adaad/internal/rng"
)

// Split is the part of a data set: the images to train on, or those to report results on.
type Split int

// The splits.
const (
	Train Split = iota
	Test
)

// String returns "train" or "test".
func (s Split) String() string {
	if s == Train {
		return "train"
	}
	return "test"
}

// Set is labelled images of one size.
type Set struct {
	Name                    string   // as [Open] takes it
	Height, Width, Channels int      // of every image
	Classes                 []string // class names; a label is an index into them
	Groups                  []string // each class's group, such as CIFAR-100's superclasses; nil where there are none
	Pixels                  []uint8  // N, Height, Width, Channels
	Labels                  []int    // N
	Index                   []int    // N: the image's place in the original split, which keys its random draws
}

// Len returns the number of images.
func (s *Set) Len() int { return len(s.Labels) }

// ImageSize returns the number of bytes in an image, Height·Width·Channels.
func (s *Set) ImageSize() int { return s.Height * s.Width * s.Channels }

// Image returns the pixels of image i, height by width by channels. They are the set's own, not a copy.
func (s *Set) Image(i int) []uint8 {
	n := s.ImageSize()
	return s.Pixels[i*n : (i+1)*n : (i+1)*n]
}

// Subset returns n of the images, as many of each class as there are (classes without enough images are used up, and
// the others fill their place), or the set itself if n is not in [1, Len). The choice depends on the seed and the images'
// Index alone. The classes take turns, so the first images of a subset are balanced too, and a smaller subset is the
// beginning of a larger one.
func (s *Set) Subset(n int, seed uint64) *Set {
	if n <= 0 || n >= s.Len() {
		return s
	}
	return s.pick(s.takeTurns(n, seed))
}

// Balanced returns all the images in the order in which Subset takes them: at random, the classes taking turns.
func (s *Set) Balanced(seed uint64) *Set { return s.pick(s.takeTurns(s.Len(), seed)) }

// takeTurns returns the places of n images: one of each class after the other, each class in random order.
func (s *Set) takeTurns(n int, seed uint64) []int {
	byClass := s.drawLots(seed, "subset")
	turns := rng.New(seed, rng.Split, rng.Key("turns")).Perm(len(byClass))
	rows := make([]int, 0, n)
	for round := 0; len(rows) < n; round++ {
		for _, class := range turns {
			if members := byClass[class]; round < len(members) && len(rows) < n {
				rows = append(rows, members[round])
			}
		}
	}
	return rows
}

// HoldOut divides the set in two, both in the set's own order: held has the nearest whole number to that fraction of
// each class, though at least one image of every class that has two, and train has the rest. The choice depends on the
// seed and the images' Index alone. A fraction of 0 holds out nothing; one outside [0, 1) panics.
func (s *Set) HoldOut(fraction float64, seed uint64) (train, held *Set) {
	if !(fraction >= 0 && fraction < 1) {
		panic(fmt.Sprintf("data: HoldOut of a fraction %v: want one in [0, 1)", fraction))
	}
	if fraction == 0 {
		return s, s.pick(nil)
	}
	isHeld := make([]bool, s.Len())
	for _, members := range s.drawLots(seed, "hold out") {
		n := int(fraction*float64(len(members)) + 0.5)
		if n == 0 && len(members) > 1 {
			n = 1
		}
		for _, i := range members[:n] {
			isHeld[i] = true
		}
	}
	var kept, out []int
	for i, h := range isHeld {
		if h {
			out = append(out, i)
		} else {
			kept = append(kept, i)
		}
	}
	return s.pick(kept), s.pick(out)
}

// drawLots returns the images of each class in random order. Every image draws a number of its own, so that leaving
// images out of a set does not change the order of the others.
func (s *Set) drawLots(seed uint64, purpose string) [][]int {
	lots := make([]uint64, s.Len())
	byClass := make([][]int, len(s.Classes))
	for i, class := range s.Labels {
		lots[i] = rng.New(seed, rng.Split, rng.Key(purpose), uint64(s.Index[i])).Uint64()
		byClass[class] = append(byClass[class], i)
	}
	for _, members := range byClass {
		slices.SortStableFunc(members, func(a, b int) int { return cmp.Compare(lots[a], lots[b]) })
	}
	return byClass
}

// pick returns a set of copies of the images in rows, in that order.
func (s *Set) pick(rows []int) *Set {
	p := *s
	size := s.ImageSize()
	p.Pixels = make([]uint8, len(rows)*size)
	p.Labels = make([]int, len(rows))
	p.Index = make([]int, len(rows))
	for k, i := range rows {
		copy(p.Pixels[k*size:], s.Image(i))
		p.Labels[k] = s.Labels[i]
		p.Index[k] = s.Index[i]
	}
	return &p
}

// count returns 0, 1, ..., n-1: the Index of a whole split.
func count(n int) []int {
	index := make([]int, n)
	for i := range index {
		index[i] = i
	}
	return index
}
