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
	"errors"
	"fmt"
	"math/bits"
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
	Model *classifier.Model // a network of this program, run on the backend, or
	Other *Other            // any other classifier, where Model is nil

	Set     *data.Set      // its images, in its order
	Norm    threat.Norm    // the ball that every attack has to stay in
	Epsilon float64        // its radius, in [0,1] pixels
	Suites  []attack.Suite // one column each; every suite attacks every image that is right when clean
	Seed    uint64         // of the attacks' random draws

	// Until ends the evaluation after the first images of the set whose 95% intervals of the accuracy under every suite
	// reach no further than this share from it; 0 takes all images. It asks for images in random order.
	Until float64

	BatchSize int    // images at once, down to a power of two; 0 takes 128, which suits CPUs. It changes speed, not results
	Selection string // how the checkpoint was chosen, for the record
	Precision string // what the model computes in, for the record; empty is float32

	Ledger string // the file that the record is written to as it grows, one line of JSON per image; "" writes none
	Resume bool   // go on with the ledger where there is one

	Progress func(Progress) // called after every batch, or nil
}

// Other is a classifier that is no network of this program, and its name in the record.
type Other struct {
	attack.Classifier
	Label string
}

// Name is what the record calls it.
func (o *Other) Name() string { return o.Label }

// Progress is how far an evaluation is.
type Progress struct {
	Done, Total int           // images
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

// Cost is the most that an evaluation asks of the classifier.
func (e Evaluation) Cost() attack.Cost {
	h := harness{classifier: e.Other, suites: e.Suites}
	if e.Model != nil {
		h.classifier = attack.NewVictim(nil, e.Model)
	}
	return h.cost().Times(e.Set.Len())
}

// errEnough ends a run whose intervals are as tight as was asked for.
var errEnough = errors.New("the intervals are tight enough")

// Run measures. A context that is done ends it with the context's error; the images finished by then are in the result
// and in the ledger, where a later Run with Resume takes up. The backend is for a Model alone.
func Run(ctx context.Context, backend compute.Backend, e Evaluation) (*Result, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	started := time.Now()
	header, err := e.Header(backend)
	if err != nil {
		return nil, err
	}
	result := &Result{Header: header}
	log, err := openLedger(e.Ledger, e.Resume, header, e.Set)
	if err != nil {
		return nil, err
	}
	defer log.close()

	h := &harness{e.classifier(), e.Set, e.ball(), e.Suites, e.Seed, batchSize(e.BatchSize)}
	if e.Model != nil {
		victim := attack.NewVictim(backend, e.Model)
		defer victim.Finalize()
		h.classifier = victim
	}
	if result.Warnings, err = h.check(ctx); err != nil {
		return result, err
	}
	rows := newRows(e.Set.Len(), header)
	for at, r := range log.rows {
		rows.add(at, r)
	}
	left := rows.missing()
	p := &pace{last: time.Now(), full: h.cost().Work(), images: len(left), flight: attack.InFlight * h.batch}
	outside := outsiders{}
	if !rows.enough {
		err = h.run(ctx, left, func(at int, r record) error {
			p.finished(r.spent)
			outside.add(r)
			if err := log.write(r.row); err != nil {
				return err
			}
			if rows.add(at, r.row); rows.enough {
				return errEnough
			}
			return nil
		}, func(c attack.Cost) {
			if p.called(c, time.Now()); e.Progress != nil {
				e.Progress(Progress{rows.count, e.Set.Len(), time.Since(started), p.remaining()})
			}
		})
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	result.Rows = rows.known()
	result.Warnings = append(result.Warnings, warnings(outside, result)...)
	result.Elapsed = time.Since(started)
	if err != nil {
		return result, fmt.Errorf("after %d of %d images: %w", len(result.Rows), e.Set.Len(), err)
	}
	if e.Progress != nil {
		e.Progress(Progress{len(result.Rows), len(result.Rows), result.Elapsed, 0})
	}
	return result, log.finish(result)
}

// Perturb returns the images of the set as an attack leaves them, in the set's order: clipped, as Run judges them, and with
// the same random draws.
func (e Evaluation) Perturb(ctx context.Context, backend compute.Backend, a attack.Attack) ([][]float32, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	h := &harness{classifier: e.classifier(), set: e.Set, ball: e.ball(), seed: e.Seed, batch: batchSize(e.BatchSize)}
	if e.Model != nil {
		victim := attack.NewVictim(backend, e.Model)
		defer victim.Finalize()
		h.classifier = victim
	}
	images := make([][]float32, e.Set.Len())
	crowd := attack.Crowd{
		Classifier: h.classifier, Batch: h.batch, Seed: h.seed,
		Next: h.image,
		Work: func(i int, im *attack.Image) error {
			proposed, err := a.Perturb(im)
			if err != nil {
				return fmt.Errorf("%s: %w", a.Name(), err)
			}
			images[i], _ = h.clip(im, proposed)
			return nil
		},
		Done: func(int, *attack.Image) error { return nil },
	}
	return images, crowd.Run(ctx, len(images))
}

func (e Evaluation) classifier() attack.Classifier {
	if e.Other == nil {
		return nil
	}
	return e.Other.Classifier
}

// batchSize is the number of images at once: a power of two, as a victim takes, of at most n.
func batchSize(n int) int {
	if n == 0 {
		return defaultBatch
	}
	return 1 << (bits.Len(uint(n)) - 1)
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
	if !(e.Until >= 0 && e.Until < 1) {
		return fmt.Errorf("until is %g, expected a share of at least 0 and below 1, such as 0.005", e.Until)
	}
	if e.Model == nil {
		return Fits(e.Other, e.Set)
	}
	return Fits(e.Model.Network, e.Set)
}

// Sized is what has a name, takes images of one size and tells a number of classes apart.
type Sized interface {
	Name() string
	Input() (height, width, channels int)
	Classes() int
}

// Fits refuses images that a network cannot take.
func Fits(net Sized, set *data.Set) error {
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

// Header is the first line of the record: all that a result depends on. The backend is for a Model alone.
func (e Evaluation) Header(backend compute.Backend) (Header, error) {
	h := Header{
		Format:    ledgerFormat,
		Selection: e.Selection, Precision: e.Precision,
		Data:     e.Set.Name,
		Classes:  e.Set.Classes,
		Images:   e.Set.Len(),
		Pixels:   hashSet(e.Set),
		Norm:     e.Norm.String(),
		Epsilon:  e.Epsilon,
		Seed:     e.Seed,
		Attacks:  make([]AttackHeader, len(e.Suites)),
		Until:    e.Until,
		Versions: versions(),
	}
	for i, s := range e.Suites {
		h.Attacks[i] = AttackHeader{s.Name, s.String(), nil}
		if len(s.Attacks) > 1 {
			for _, a := range s.Attacks {
				h.Attacks[i].Stages = append(h.Attacks[i].Stages, a.Name())
			}
		}
	}
	if e.Model == nil {
		h.Model = e.Other.Name()
		return h, nil
	}
	h.Model, h.Backend = e.Model.Name(), backend.Name()
	var err error
	h.Weights, err = Fingerprint(e.Model)
	return h, err
}

// Fingerprint is the SHA-256 of a model's parameters: name, then float32 values, in order. It tells weights apart
// whatever file format they came in.
func Fingerprint(m *classifier.Model) (string, error) {
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
