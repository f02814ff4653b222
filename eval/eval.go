// Package eval measures how often a classifier stays right under attack, and keeps a record of every image. Attacks only
// propose: the harness clips what they return to the ball and to [0,1], and decides on a fresh forward pass.
//
// What is recorded of an image does not depend on the batch size, on the order of the images, or on where an evaluation
// was cut off and resumed, bit for bit, on a backend whose answer for an image does not depend on its row or on the rows
// beside it. (GoMLX's Go backend rounds the last digit of some matrix products otherwise in other rows.)
package eval

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// Evaluation says what to measure.
type Evaluation struct {
	Model   *classifier.Model
	Set     *data.Set      // its images, in its order
	Norm    threat.Norm    // the ball that every attack has to stay in
	Epsilon float64        // its radius, in [0,1] pixels
	Suites  []attack.Suite // one column each; every suite attacks every image that is right when clean
	Seed    uint64         // of the attacks' random draws

	BatchSize int    // images at once; 0 takes 32, which suits CPUs. It changes speed, not results
	Selection string // how the checkpoint was chosen, for the record

	Ledger string // the file that the record is written to as it grows, one line of JSON per image; "" writes none
	Resume bool   // go on with the ledger where there is one

	Progress func(Progress) // called after every batch, or nil
}

// Progress is how far an evaluation is.
type Progress struct {
	Done, Total int           // images
	Attack      string        // what just ran; "clean" before any attack
	Elapsed     time.Duration // in this process
	Remaining   time.Duration // at the pace so far; 0 while there is none
}

// Result is a measurement: of all images, or of those that were done when it stopped.
type Result struct {
	Header   Header
	Rows     []Row // in the order of the set
	Warnings []string
	Elapsed  time.Duration // in this process
}

// Run measures. A context that is done ends it with the context's error; the images finished by then are in the result
// and in the ledger, where a later Run with Resume takes up.
func Run(ctx context.Context, backend compute.Backend, e Evaluation) (*Result, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	started := time.Now()
	header, err := e.header(backend)
	if err != nil {
		return nil, err
	}
	result := &Result{Header: header}
	log, err := openLedger(e.Ledger, e.Resume, header, e.Set)
	if err != nil {
		return nil, err
	}
	defer log.close()
	result.Rows = log.rows

	h, err := newHarness(backend, e.Model, e.Set, e.ball(), e.Suites, e.Seed, e.BatchSize)
	if err != nil {
		return nil, err
	}
	defer h.victim.Finalize()
	if result.Warnings, err = h.check(ctx); err != nil {
		return result, err
	}
	resumed := len(result.Rows)
	err = h.run(ctx, resumed, func(r Row) error {
		result.Rows = append(result.Rows, r)
		return log.write(r)
	}, func(finished int, name string) {
		if e.Progress == nil {
			return
		}
		p := Progress{Done: resumed + finished, Total: e.Set.Len(), Attack: name, Elapsed: time.Since(started)}
		if finished > 0 {
			p.Remaining = time.Duration(float64(p.Elapsed) / float64(finished) * float64(p.Total-p.Done))
		}
		e.Progress(p)
	})
	result.Warnings = append(result.Warnings, h.warnings(result.Rows)...)
	result.Elapsed = time.Since(started)
	if err != nil {
		return result, fmt.Errorf("after %d of %d images: %w", len(result.Rows), e.Set.Len(), err)
	}
	return result, log.close()
}

func (e Evaluation) ball() threat.Model { return threat.Model{Norm: e.Norm, Epsilon: e.Epsilon} }

// Validate refuses an evaluation that cannot be made.
func (e Evaluation) Validate() error {
	if err := e.ball().Validate(); err != nil {
		return err
	}
	if e.BatchSize < 0 {
		return fmt.Errorf("batch size is %d, expected at least 1, or 0 for the default", e.BatchSize)
	}
	return Fits(e.Model.Network, e.Set)
}

// Fits refuses images that a network cannot take.
func Fits(net classifier.Network, set *data.Set) error {
	h, w, c := net.Input()
	switch {
	case set.Len() == 0:
		return fmt.Errorf("%s holds no images", set.Name)
	case h != set.Height || w != set.Width || c != set.Channels:
		return fmt.Errorf("%s takes images of %dx%dx%d, but those of %s are %dx%dx%d",
			net.Name(), h, w, c, set.Name, set.Height, set.Width, set.Channels)
	case net.Classes() != len(set.Classes):
		return fmt.Errorf("%s tells %d classes apart, but %s has %d", net.Name(), net.Classes(), set.Name, len(set.Classes))
	}
	return nil
}

func (e Evaluation) header(backend compute.Backend) (Header, error) {
	weights, err := hashState(e.Model)
	h := Header{
		Format:    ledgerFormat,
		Model:     e.Model.Name(),
		Weights:   weights,
		Selection: e.Selection,
		Data:      e.Set.Name,
		Classes:   e.Set.Classes,
		Images:    e.Set.Len(),
		Pixels:    hashSet(e.Set),
		Norm:      e.Norm.String(),
		Epsilon:   e.Epsilon,
		Seed:      e.Seed,
		Attacks:   make([]AttackHeader, len(e.Suites)),
		Backend:   backend.Name(),
		Versions:  versions(),
	}
	for i, s := range e.Suites {
		h.Attacks[i] = AttackHeader{s.Name, s.String()}
	}
	return h, err
}

// hashState is the SHA-256 of a model's parameters: name, then float32 values, in order. It tells weights apart
// whatever file format they came in.
func hashState(m *classifier.Model) (string, error) {
	sum := sha256.New()
	for i, p := range m.Params() {
		sum.Write(append([]byte(p.Name), 0))
		err := tensors.ConstFlatData(m.State[i], func(flat []float32) {
			_ = binary.Write(sum, binary.LittleEndian, flat) // a hash takes everything
		})
		if err != nil {
			return "", fmt.Errorf("reading parameter %s: %w", p.Name, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// hashSet is the SHA-256 of images: each one's index, label and pixels, in order.
func hashSet(s *data.Set) string {
	sum := sha256.New()
	for i, label := range s.Labels {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(s.Index[i]))
		binary.LittleEndian.PutUint64(b[8:], uint64(label))
		sum.Write(b[:])
		sum.Write(s.Image(i))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// versions are those of this module and of the ones that compute.
func versions() map[string]string {
	v := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v["go"] = info.GoVersion
	for _, m := range append(info.Deps, &info.Main) {
		switch {
		case m.Path == "github.com/adaad-go/adaad":
			v["adaad"] = m.Version
		case strings.HasPrefix(m.Path, "github.com/gomlx/"):
			v[m.Path[len("github.com/gomlx/"):]] = m.Version
		}
	}
	return v
}
