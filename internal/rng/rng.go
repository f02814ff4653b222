// Package rng gives every random draw of a run its own key, so that the same seed gives the same run whatever the
// batch size, the number of threads, the order of work and the number of resumes.
package rng

import "math/rand/v2"

// Purpose names what random numbers are drawn for. Two purposes never share a stream.
type Purpose string

// The purposes in use.
const (
	Init       Purpose = "init"       // initial weights; keyed by parameter
	Split      Purpose = "split"      // held-out images and subsets; keyed by class
	Shuffle    Purpose = "shuffle"    // order of the training images; keyed by epoch
	Augment    Purpose = "augment"    // crop and flip; keyed by epoch and image
	TrainStart Purpose = "train"      // start of the inner maximisation; keyed by epoch and image
	Attack     Purpose = "attack"     // start of evaluation attacks; keyed by attack, image and restart
	Draw       Purpose = "procedural" // procedurally drawn images; keyed by split and image
)

// New returns the stream of one (seed, purpose, keys...). Keys are what identifies the draw: epoch, image index,
// restart; never a position in a batch.
func New(seed uint64, purpose Purpose, keys ...uint64) *rand.Rand {
	h := mix(seed ^ 0x6a09e667f3bcc908)
	for _, c := range []byte(purpose) {
		h = mix(h ^ uint64(c))
	}
	h = mix(h ^ uint64(len(keys))<<32)
	for _, k := range keys {
		h = mix(h ^ k)
	}
	return rand.New(rand.NewPCG(h, mix(h^0xbb67ae8584caa73b)))
}

// Key turns a name, such as an attack's or a parameter's, into a key (64-bit FNV-1a).
func Key(name string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// mix is splitmix64's step and output function (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
