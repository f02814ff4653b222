package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

var backend = func() compute.Backend {
	b, err := gobackend.New("ops_sequential")
	if err != nil {
		panic(err)
	}
	return b
}()

// linear is z = W x over 2x2 images of three channels, or softmax of that.
type linear struct {
	classes int
	softmax bool
}

const side, pixels = 2, side * side * 3

func (l linear) Name() string           { return "linear" }
func (l linear) Input() (int, int, int) { return side, side, 3 }
func (l linear) Classes() int           { return l.classes }
func (l linear) Params() []classifier.Param {
	return []classifier.Param{{Name: "w", Shape: []int{l.classes, pixels}, Kind: classifier.LinearWeight}}
}

// Forward multiplies and sums, as the Go backend's matrix product rounds the rows of a batch in different ways.
func (l linear) Forward(b *classifier.Bound, x *Node) *Node {
	z := ReduceSum(Mul(Reshape(x, -1, 1, pixels), Reshape(b.Param("w"), 1, l.classes, pixels)), 2)
	if l.softmax {
		return Softmax(z)
	}
	return z
}

// weigh gives a linear model weights.
func weigh(l linear, weight func(i int) float32) *classifier.Model {
	w := make([]float32, l.classes*pixels)
	for i := range w {
		w[i] = weight(i)
	}
	return &classifier.Model{Network: l, State: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(w, l.classes, pixels)}}
}

func normal(seed uint64) func(int) float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(int) float32 { return float32(r.NormFloat64()) }
}

// images are n images of one size with labels at random, grey enough that the border of [0,1] is out of reach.
func images(n, size, classes int) *data.Set {
	r := rand.New(rand.NewPCG(5, 6))
	s := &data.Set{Name: "noise", Height: size, Width: size, Channels: 3}
	for c := range classes {
		s.Classes = append(s.Classes, fmt.Sprint("class ", c))
	}
	for i := range n {
		for range size * size * 3 {
			s.Pixels = append(s.Pixels, uint8(64+r.IntN(128)))
		}
		s.Labels = append(s.Labels, r.IntN(classes))
		s.Index = append(s.Index, 1000-7*i) // an order of its own
	}
	return s
}

func suites(t testing.TB, names string, eps float64) []attack.Suite {
	t.Helper()
	s, err := attack.Parse(names, threat.Model{Epsilon: eps}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustRun(t testing.TB, e Evaluation) *Result {
	t.Helper()
	r, err := Run(context.Background(), backend, e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// margins are those of a linear model of two classes on clean images, and by how much eps can lower them: eps |d|_1
// with d = w_1 - w_0.
func margins(m *classifier.Model, s *data.Set, eps float64) (clean []float64, reach float64) {
	w := m.State[0].Value().([][]float32)
	for j := range pixels {
		reach += eps * math.Abs(float64(w[1][j]-w[0][j]))
	}
	for i, y := range s.Labels {
		var sum float64
		for j, p := range s.Image(i) {
			sum += float64(p) / 255 * float64(w[y][j]-w[1-y][j])
		}
		clean = append(clean, sum)
	}
	return clean, reach
}

func TestLinearModelsHaveTheirClosedFormAccuracy(t *testing.T) {
	model, set := weigh(linear{classes: 2}, normal(1)), images(60, side, 2)
	standing := map[int]bool{}
	for n, eps := range []float64{2. / 255, 8. / 255, 16. / 255, 40. / 255} {
		clean, reach := margins(model, set, eps)
		r := mustRun(t, Evaluation{Model: model, Set: set, Epsilon: eps, Suites: suites(t, "clean,fgsm,pgd-20,cw", eps), BatchSize: 16})
		var right, robust int
		for i, row := range r.Rows {
			if math.Abs(float64(row.Margin)-clean[i]) > 1e-5 {
				t.Errorf("eps %g, image %d: clean margin is %g, want %g", eps, i, row.Margin, clean[i])
			}
			if clean[i] > 0 {
				right++
			}
			if clean[i] > reach {
				robust++
			}
			for _, o := range row.Attacks {
				if math.Abs(float64(o.Margin)-(clean[i]-reach)) > 1e-4 {
					t.Errorf("eps %g, image %d: margin under %s is %g, want %g", eps, i, o.Suite, o.Margin, clean[i]-reach)
				}
				if math.Abs(float64(o.Norm)-eps) > 1e-6 {
					t.Errorf("eps %g, image %d: %s moved it by %g", eps, i, o.Suite, o.Norm)
				}
			}
			if stands := row.BrokenBy == ""; stands && n > 0 && !standing[i] {
				t.Errorf("image %d stands eps %g and fell to less", i, eps)
			} else {
				standing[i] = stands
			}
		}
		if eps == 8./255 && (robust == 0 || robust == right || right == set.Len()) {
			t.Fatalf("the test shows nothing: %d right, %d robust", right, robust)
		}
		for _, a := range r.Accuracies() {
			want := Rate{robust, 60}
			if a.Name == "clean" {
				want.Hits = right
			}
			if a.Rate != want {
				t.Errorf("eps %g: accuracy under %s is %v, want %v", eps, a.Name, a.Rate, want)
			}
			var byClass Rate
			for _, c := range a.Classes {
				byClass.Hits, byClass.Total = byClass.Hits+c.Hits, byClass.Total+c.Total
			}
			if byClass != want {
				t.Errorf("eps %g: the classes under %s sum to %v, want %v", eps, a.Name, byClass, want)
			}
		}
	}
}

// script is an attack that does as it is told.
type script struct {
	name    string
	propose func(pixel float32) float32
}

func (s script) Name() string         { return s.name }
func (s script) String() string       { return "scripted" }
func (s script) Cost(int) attack.Cost { return attack.Cost{} }
func (s script) Perturb(im *attack.Image) ([]float32, error) {
	adv := slices.Clone(im.X)
	for i, p := range adv {
		adv[i] = s.propose(p)
	}
	return adv, nil
}

func same(p float32) float32 { return p }

func one(a attack.Attack) attack.Suite {
	return attack.Suite{Name: a.Name(), Attacks: []attack.Attack{a}}
}

func TestCheatsGainNothing(t *testing.T) {
	const eps = 8. / 255
	model, set := weigh(linear{classes: 2}, normal(1)), images(40, side, 2)
	clean, reach := margins(model, set, eps)
	nan := float32(math.NaN())
	r := mustRun(t, Evaluation{Model: model, Set: set, Epsilon: eps, BatchSize: 16, Suites: []attack.Suite{
		one(script{"negative", func(p float32) float32 { return 1 - p }}),
		one(script{"bright", func(float32) float32 { return 1e9 }}),
		one(script{"nan", func(float32) float32 { return nan }}),
		one(script{"honest", same}),
	}})
	for i, row := range r.Rows {
		if clean[i] > reach && row.BrokenBy != "" {
			t.Errorf("image %d: %s broke what cannot be broken in the ball", i, row.BrokenBy)
		}
		for _, o := range row.Attacks {
			if o.Norm > eps+1e-6 {
				t.Errorf("image %d: %s was let go %g far", i, o.Suite, o.Norm)
			}
			if o.Suite == "nan" && (o.Norm != 0 || o.Broken) {
				t.Errorf("image %d: no number counted as %+v", i, o)
			}
		}
	}
	text := strings.Join(r.Warnings, "\n")
	for _, name := range []string{"negative", "bright", "nan"} {
		if !strings.Contains(text, name+" proposed points outside") {
			t.Errorf("no warning of %s in %q", name, text)
		}
	}
	if strings.Contains(text, "honest") {
		t.Errorf("a warning of the honest one in %q", text)
	}
}

// An image meets the attacks of a suite in order, until one breaks it, and every suite.
func TestSuitesStopAtTheFirstSuccess(t *testing.T) {
	const eps = 8. / 255
	model, set := weigh(linear{classes: 2}, normal(1)), images(45, side, 2)
	fgsm := attack.FGSM(threat.Linf, eps)
	var second atomic.Int64 // images that the second script saw
	counting := func(p float32) float32 { second.Add(1); return p }
	r := mustRun(t, Evaluation{Model: model, Set: set, Epsilon: eps, BatchSize: 4, Suites: []attack.Suite{
		{Name: "joint", Attacks: []attack.Attack{script{"first", same}, fgsm, script{"second", counting}}},
		one(script{"plain", same}),
	}})
	right, robust := 0, 0
	for _, row := range r.Rows {
		if row.Prediction != row.Label {
			continue
		}
		right++
		if o := row.Attacks[0]; !o.Broken {
			robust++
			if o.Attack != "fgsm" {
				t.Errorf("image %d came closest to falling under %s, want fgsm", row.Index, o.Attack)
			}
		} else if o.Attack != "fgsm" || row.BrokenBy != "fgsm" || o.Step != 1 {
			t.Errorf("image %d fell to %s and %s in step %d, want fgsm in step 1", row.Index, o.Attack, row.BrokenBy, o.Step)
		}
		if row.Attacks[1].Broken {
			t.Errorf("image %d fell to its own self", row.Index)
		}
	}
	if robust == 0 || robust == right {
		t.Fatalf("the test shows nothing: %d right, %d robust", right, robust)
	}
	if seen := int(second.Load()) / pixels; seen != robust {
		t.Errorf("%d images came to the last attack, want the %d that stood", seen, robust)
	}
	stages := r.Stages(0)
	if len(stages) != 2 || stages[0].Name != "after first" || stages[0].Hits != right || stages[1].Hits != robust || r.Stages(1) != nil {
		t.Errorf("the stages are %+v, want %d and %d right", stages, right, robust)
	}
}

// small is a residual network with every kind of layer, and images it gets right about half of the time.
func small(t testing.TB) Evaluation {
	t.Helper()
	const eps = 4. / 255
	net, err := zoo.New("resnet8-w4", 3, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	e := Evaluation{Model: &classifier.Model{Network: net, State: golden.State(net, "small.", 6)}, Set: images(21, 8, 3),
		Epsilon: eps, Suites: suites(t, "fgsm,pgd-3", eps), Seed: 3}
	for i, row := range mustRun(t, Evaluation{Model: e.Model, Set: e.Set}).Rows {
		if i%3 != 0 {
			e.Set.Labels[i] = row.Prediction
		}
	}
	return e
}

func TestTheLedgerDoesNotDependOnTheBatch(t *testing.T) {
	e := small(t)
	var ledgers [][]byte
	for _, batch := range []int{3, 8, 0} {
		e.BatchSize = batch
		e.Ledger = filepath.Join(t.TempDir(), "ledger.jsonl")
		r := mustRun(t, e)
		text, err := os.ReadFile(e.Ledger)
		if err != nil {
			t.Fatal(err)
		}
		ledgers = append(ledgers, text)
		if !bytes.Equal(text, ledgers[0]) {
			t.Errorf("batch size %d wrote another ledger than 3:\n%s\n%s", batch, text, ledgers[0])
		}
		back, err := Read(e.Ledger)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back.Header, r.Header) || !reflect.DeepEqual(back.Rows, r.Rows) {
			t.Errorf("batch size %d: the ledger says %+v, the result %+v", batch, back, r)
		}
		if a := r.Accuracies(); a[2].Hits == 0 || a[2].Hits == a[0].Hits {
			t.Fatalf("the test shows nothing: accuracies are %v", a)
		}
	}
}

// The same on backend/vec, for both norms, with all of AutoAttack's attacks, any number of threads and resumes.
func TestAutoAttackLedgersAreTheSameBitForBit(t *testing.T) {
	for norm, eps := range map[threat.Norm]float64{threat.Linf: 2. / 255, threat.L2: 0.1} {
		e := small(t)
		e.Norm, e.Epsilon = norm, eps
		pgd := attack.NewPGD(norm, eps, 3)
		e.Suites = []attack.Suite{quick(attack.AutoAttack(norm, eps)), one(pgd)}
		var want []byte
		for _, c := range []struct {
			config string
			batch  int
			cuts   int // times that it is stopped on the way
		}{{"", 16, 0}, {"", 1, 0}, {"threads=1", 5, 0}, {"threads=1", 64, 0}, {"", 3, 3}, {"threads=1", 2, 2}} {
			backend, err := vec.New(c.config)
			if err != nil {
				t.Fatal(err)
			}
			e.Model = &classifier.Model{Network: e.Model.Network, State: golden.State(e.Model.Network, "small.", 6)} // a tensor has one backend
			e.BatchSize, e.Ledger, e.Resume = c.batch, filepath.Join(t.TempDir(), "ledger.jsonl"), true
			for cut := range c.cuts {
				ctx, cancel := context.WithCancel(t.Context())
				e.Progress = func(p Progress) {
					if p.Done > (cut+1)*4 {
						cancel()
					}
				}
				if _, err := Run(ctx, backend, e); !errors.Is(err, context.Canceled) {
					t.Errorf("stopping %s after %d images gave %v", c.config, 4*cut, err)
				}
				cancel()
			}
			e.Progress = nil
			r, err := Run(t.Context(), backend, e)
			if err != nil {
				t.Fatal(err)
			}
			backend.Finalize()
			got, err := os.ReadFile(e.Ledger)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
				breakers := map[string]bool{}
				for _, row := range r.Rows {
					breakers[row.BrokenBy] = true
				}
				if len(breakers) < 3 || !breakers[""] {
					t.Fatalf("the test shows little: images are broken by %v", breakers)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %+v wrote another ledger:\n%s\n%s", norm, c, got, want)
			}
		}
	}
}

func TestRowsDoNotDependOnTheOrder(t *testing.T) {
	e := small(t)
	want := mustRun(t, e).Rows
	slices.Reverse(e.Set.Labels)
	slices.Reverse(e.Set.Index)
	var pixels []uint8
	for i := e.Set.Len() - 1; i >= 0; i-- {
		pixels = append(pixels, e.Set.Image(i)...)
	}
	e.Set.Pixels, e.BatchSize = pixels, 8
	got := mustRun(t, e).Rows
	slices.Reverse(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the other way round the rows are %v, want %v", got, want)
	}
}

// tiny is an evaluation that takes no time.
func tiny(t testing.TB) Evaluation {
	t.Helper()
	const eps = 8. / 255
	return Evaluation{Model: weigh(linear{classes: 2}, normal(1)), Set: images(20, side, 2), Epsilon: eps,
		Suites: suites(t, "fgsm,pgd-2", eps), Seed: 3, BatchSize: 4, Ledger: filepath.Join(t.TempDir(), "ledger.jsonl")}
}

// A ledger cut off after any byte resumes to the same ledger.
func TestALedgerResumesFromAnyByte(t *testing.T) {
	e := tiny(t)
	mustRun(t, e)
	want, err := os.ReadFile(e.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	e.Resume, e.BatchSize = true, 7
	for cut := 0; cut <= len(want); cut += 1 + len(want)/40 {
		if err := os.WriteFile(e.Ledger, want[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		r := mustRun(t, e)
		got, err := os.ReadFile(e.Ledger)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("cut after %d bytes the ledger became\n%s\nwant\n%s", cut, got, want)
		}
		if len(r.Rows) != e.Set.Len() {
			t.Errorf("cut after %d bytes the result has %d rows, want %d", cut, len(r.Rows), e.Set.Len())
		}
	}
}

// The process is killed in the middle, as by kill -9, twice; the third finishes what they began.
func TestAKilledEvaluationResumes(t *testing.T) {
	const variable = "ADAAD_TEST_KILL_AT"
	if path := os.Getenv(variable); path != "" {
		e := tiny(t)
		e.Ledger, e.Resume, e.BatchSize = path, true, 2
		batches := 0
		e.Progress = func(Progress) {
			if batches++; batches == 15 {
				self, err := os.FindProcess(os.Getpid())
				if err == nil {
					err = self.Kill()
				}
				t.Fatal("still alive: ", err)
			}
		}
		mustRun(t, e)
		return
	}
	e := tiny(t)
	mustRun(t, e)
	want, err := os.ReadFile(e.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed.jsonl")
	var size int
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"="+killed, "TMPDIR="+t.TempDir()) // it cannot clean up after itself
		if out, err := cmd.CombinedOutput(); err == nil || bytes.Contains(out, []byte("still alive")) {
			t.Fatalf("was not killed: %v\n%s", err, out)
		}
		text, err := os.ReadFile(killed)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			if !bytes.Contains(want, line) {
				t.Errorf("the killed ledger has the line %s, which the whole one lacks", line)
			}
		}
		if len(text) <= size || len(text) >= len(want) {
			t.Fatalf("killed with the ledger at\n%s\nwant more than %d bytes of, but not all of\n%s", text, size, want)
		}
		size = len(text)
	}
	e.Ledger, e.Resume = killed, true
	mustRun(t, e)
	if got, err := os.ReadFile(killed); err != nil || !bytes.Equal(got, want) {
		t.Errorf("resumed to\n%s\nwant\n%s (%v)", got, want, err)
	}
}

func TestACancelledEvaluationKeepsWhatItHas(t *testing.T) {
	e := tiny(t)
	want := mustRun(t, e)
	full, err := os.ReadFile(e.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	e.Ledger = filepath.Join(t.TempDir(), "cancelled.jsonl")
	ctx, cancel := context.WithCancel(t.Context())
	var last Progress
	e.Progress = func(p Progress) {
		if last = p; p.Done >= 6 {
			cancel()
		}
	}
	r, err := Run(ctx, backend, e)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "of 20 images") {
		t.Errorf("a cancelled evaluation returned the error %v", err)
	}
	byIndex := map[int]Row{}
	for _, row := range want.Rows {
		byIndex[row.Index] = row
	}
	for _, row := range r.Rows {
		if !reflect.DeepEqual(row, byIndex[row.Index]) {
			t.Errorf("a cancelled evaluation returned %+v, want %+v", row, byIndex[row.Index])
		}
	}
	if n := len(r.Rows); n == 0 || n == 20 {
		t.Errorf("a cancelled evaluation returned %d rows", n)
	}
	if last.Total != 20 || last.Remaining <= 0 {
		t.Errorf("the last progress was %+v", last)
	}
	e.Resume, e.Progress = true, func(p Progress) { last = p }
	mustRun(t, e)
	if got, err := os.ReadFile(e.Ledger); err != nil || !bytes.Equal(got, full) {
		t.Errorf("resumed to\n%s\nwant\n%s (%v)", got, full, err)
	}
	if last.Done != 20 || last.Remaining != 0 {
		t.Errorf("the last progress was %+v", last)
	}
}

func TestResumingSomethingElseIsRefused(t *testing.T) {
	e := tiny(t)
	mustRun(t, e)
	before, err := os.ReadFile(e.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), backend, e)
	if err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("writing over a ledger: %v", err)
	}
	e.Resume = true
	for want, change := range map[string]func(e *Evaluation){
		"seed is 3, that of this evaluation is 4": func(e *Evaluation) { e.Seed = 4 },
		"eps is":            func(e *Evaluation) { e.Epsilon = 0.5 },
		"norm is Linf":      func(e *Evaluation) { e.Norm = threat.L2 },
		"attacks is":        func(e *Evaluation) { e.Suites = e.Suites[:1] },
		"weights_sha256 is": func(e *Evaluation) { e.Model = weigh(linear{classes: 2}, normal(2)) },
		"selection is":      func(e *Evaluation) { e.Selection = "last epoch" },
		"precision is":      func(e *Evaluation) { e.Precision = "bf16" },
		"images is 20, that of this evaluation is 19": func(e *Evaluation) { e.Set = images(19, side, 2) },
		"images_sha256 is":                            func(e *Evaluation) { e.Set = images(20, side, 2); e.Set.Pixels[0]++ },
		"data is noise":                               func(e *Evaluation) { e.Set = images(20, side, 2); e.Set.Name = "other" },
	} {
		other := e
		change(&other)
		if _, err := Run(t.Context(), backend, other); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), e.Ledger) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if after, err := os.ReadFile(e.Ledger); err != nil || !bytes.Equal(after, before) {
		t.Errorf("a refused evaluation changed the ledger: %v", err)
	}
	// Rows that are not the set's, under the right header.
	other := bytes.Replace(before, []byte(`{"index":1000,`), []byte(`{"index":1001,`), 1)
	if err := os.WriteFile(e.Ledger, other, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), backend, e); err == nil || !strings.Contains(err.Error(), "line 2 is image 1001, which is not") {
		t.Errorf("a row of another image: %v", err)
	}
}

func TestEvaluationsThatCannotBeAreRefused(t *testing.T) {
	for want, change := range map[string]func(e *Evaluation){
		"takes images of 2x2x3, but those of noise are 3x3x3": func(e *Evaluation) { e.Set = images(2, 3, 2) },
		"linear tells 2 classes apart, but noise has 3":       func(e *Evaluation) { e.Set = images(2, side, 3) },
		"noise holds no images":                               func(e *Evaluation) { e.Set = images(0, side, 2) },
		"was 8/255 meant":                                     func(e *Evaluation) { e.Epsilon = 8 },
		"batch size is -1":                                    func(e *Evaluation) { e.BatchSize = -1 },
		"no such file":                                        func(e *Evaluation) { e.Ledger = filepath.Join(e.Ledger, "in", "nothing") },
		"short proposed an image of 2 values, expected 12":    func(e *Evaluation) { e.Suites = []attack.Suite{one(short{})} },
	} {
		e := tiny(t)
		change(&e)
		if _, err := Run(t.Context(), backend, e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// short returns too little.
type short struct{ script }

func (short) Name() string                             { return "short" }
func (short) Perturb(*attack.Image) ([]float32, error) { return []float32{1, 2}, nil }

func TestSelfChecks(t *testing.T) {
	set := images(20, side, 2)
	inf := float32(math.Inf(1))
	for want, model := range map[string]*classifier.Model{
		"":                           weigh(linear{classes: 2}, normal(1)),
		"outputs are all probab":     weigh(linear{classes: 2, softmax: true}, normal(1)),
		"20 of 20 images have a gra": weigh(linear{classes: 2}, func(int) float32 { return 0 }),
		"20 of 20 images have logit": weigh(linear{classes: 2}, func(int) float32 { return inf }),
	} {
		r := mustRun(t, Evaluation{Model: model, Set: set, BatchSize: 32})
		if got := strings.Join(r.Warnings, "\n"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("the warnings are %q, want %q", got, want)
		}
		if strings.Contains(want, "logit") && (r.Accuracies()[0].Hits != 0 || r.Rows[0].Prediction != -1) {
			t.Errorf("logits that are not finite count as right: %+v", r.Rows[0])
		}
	}
	// Too few classes for what is asked.
	targeted := attack.APGDT(threat.Linf, 0.01)
	targeted.Steps = 1
	r := mustRun(t, Evaluation{Model: weigh(linear{classes: 2}, normal(1)), Set: set, Epsilon: 0.01, Suites: []attack.Suite{one(targeted)}})
	if got := strings.Join(r.Warnings, "\n"); !strings.Contains(got, "takes more than 2 classes") {
		t.Errorf("the warnings are %q, want one of too few classes", got)
	}
	// Random answers.
	other := &Other{&coins{rand.New(rand.NewPCG(1, 1))}, "coins"}
	r = mustRun(t, Evaluation{Other: other, Set: set})
	if got := strings.Join(r.Warnings, "\n"); !strings.Contains(got, "answers are random") {
		t.Errorf("the warnings are %q, want one of random answers", got)
	}
}

// coins is a classifier that answers at random.
type coins struct{ r *rand.Rand }

func (c *coins) Input() (int, int, int) { return side, side, 3 }
func (c *coins) Classes() int           { return 2 }
func (c *coins) Logits(_ context.Context, images []float32) ([]float32, error) {
	var z []float32
	for range len(images) / pixels * 2 {
		z = append(z, c.r.Float32()*9-4)
	}
	return z, nil
}

// steps is a classifier whose logits are those of a linear model rounded down, and its gradients thus 0 where they are
// asked for: only Square gets anywhere.
type steps struct{ w []float32 }

func (s *steps) Input() (int, int, int) { return side, side, 3 }
func (s *steps) Classes() int           { return 2 }
func (s *steps) Logits(_ context.Context, images []float32) ([]float32, error) {
	var z []float32
	for x := range slices.Chunk(images, pixels) {
		var sum float64
		for i, p := range x {
			sum += float64(p * s.w[i])
		}
		sum = math.Floor(20*sum) + 0.5
		z = append(z, float32(sum), -float32(sum))
	}
	return z, nil
}
func (s *steps) Gradient(ctx context.Context, images []float32, _ []attack.Goal) (logits, gradient []float32, err error) {
	logits, err = s.Logits(ctx, images)
	return logits, make([]float32, len(images)), err
}

// A classifier that is no network of this program has a ledger and checks too.
func TestOtherClassifiers(t *testing.T) {
	weights := make([]float32, pixels)
	for i, next := 0, normal(4); i < pixels; i++ {
		weights[i] = next(i)
	}
	c := &steps{weights}
	const eps = 0.05
	suite := attack.AutoAttack(threat.Linf, eps)
	e := Evaluation{Other: &Other{c, "steps"}, Set: images(30, side, 2), Epsilon: eps, Suites: []attack.Suite{quick(suite)}, Ledger: filepath.Join(t.TempDir(), "ledger.jsonl")}
	for i := range e.Set.Labels {
		x := make([]float32, pixels)
		data.Floats(x, e.Set.Image(i))
		z, err := c.Logits(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		e.Set.Labels[i], _ = attack.Answer(z, 0)
	}
	r, err := Run(t.Context(), nil, e)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(r.Warnings, "\n")
	for _, want := range []string{"30 of 30 images have a gradient of exactly zero", "square broke"} {
		if !strings.Contains(text, want) {
			t.Errorf("the warnings are %q, want one with %q", text, want)
		}
	}
	back, err := Read(e.Ledger)
	if err != nil || !reflect.DeepEqual(back.Rows, r.Rows) || back.Header.Model != "steps" || !back.Complete() {
		t.Errorf("the ledger says %+v (%v), the result %+v", back, err, r)
	}
	if _, err := Run(t.Context(), nil, Evaluation{Other: &Other{c, "steps"}, Set: images(3, 3, 2)}); err == nil ||
		!strings.Contains(err.Error(), "steps takes images of 2x2x3") {
		t.Errorf("images of another size: %v", err)
	}
}

// quick is a suite with fewer steps.
func quick(s attack.Suite) attack.Suite {
	s.Attacks = slices.Clone(s.Attacks)
	for i, a := range s.Attacks {
		switch a := a.(type) {
		case attack.APGD:
			a.Steps = 10
			s.Attacks[i] = a
		case attack.FAB:
			a.Steps = 5
			s.Attacks[i] = a
		case attack.Square:
			a.Queries = 100
			s.Attacks[i] = a
		}
	}
	return s
}

// An evaluation ends at the first image after which its intervals are tight enough, whatever the batch size, and wherever
// it was stopped before.
func TestEvaluationsEndWhenTheirIntervalsAreTight(t *testing.T) {
	e := tiny(t)
	e.Set, e.Until = images(300, side, 2), 0.1
	var want []Row
	for _, batch := range []int{1, 7, 32} {
		e.BatchSize, e.Ledger = batch, filepath.Join(t.TempDir(), "ledger.jsonl")
		r := mustRun(t, e)
		if want == nil {
			want = r.Rows
		}
		if !reflect.DeepEqual(r.Rows, want) || !r.Complete() {
			t.Errorf("batch size %d: ended after %d images, want %d", batch, len(r.Rows), len(want))
		}
		text, err := os.ReadFile(e.Ledger)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{len(text) / 2, len(text)} {
			if err := os.WriteFile(e.Ledger, text[:cut], 0o666); err != nil {
				t.Fatal(err)
			}
			again := e
			again.Resume = true
			if r := mustRun(t, again); !reflect.DeepEqual(r.Rows, want) {
				t.Errorf("batch size %d, resumed: ended after %d images, want %d", batch, len(r.Rows), len(want))
			}
		}
	}
	if len(want) < 50 || len(want) >= 300 {
		t.Fatalf("the test shows nothing: ended after %d images", len(want))
	}
	reach := func(rows []Row) (far float64) {
		r := Result{Header: Header{Classes: e.Set.Classes, Attacks: []AttackHeader{{Name: "fgsm"}, {Name: "pgd-2"}}}, Rows: rows}
		for _, a := range r.Accuracies()[1:3] {
			low, high := a.Wilson()
			far = max(far, a.Value()-low, high-a.Value())
		}
		return far
	}
	if now, before := reach(want), reach(want[:len(want)-1]); now > e.Until || before <= e.Until {
		t.Errorf("the intervals reached %g, and %g one image before; want the first below %g", now, before, e.Until)
	}
	e.Until = 1.5
	if _, err := Run(t.Context(), backend, e); err == nil || !strings.Contains(err.Error(), "until is 1.5") {
		t.Errorf("until 150%%: %v", err)
	}
}

func TestDiff(t *testing.T) {
	right, wrong := Row{Label: 1, Prediction: 1}, Row{Label: 1, BrokenBy: "clean"}
	with := func(index int, r Row, outcomes ...Outcome) Row {
		r.Index, r.Attacks = index, outcomes
		return r
	}
	stands, falls := Outcome{}, Outcome{Attack: "square", Broken: true}
	a := &Result{Header: Header{Attacks: []AttackHeader{{Name: "fgsm"}, {Name: "autoattack"}}},
		Rows: []Row{with(1, right, stands, stands), with(2, right, stands, falls), with(3, right, stands, stands), with(4, wrong), with(9, right, stands, stands)}}
	b := &Result{Header: Header{Attacks: []AttackHeader{{Name: "autoattack"}}},
		Rows: []Row{with(4, wrong), with(3, wrong), with(2, right, stands), with(1, right, stands)}}
	want := Comparison{
		Suites: []SuiteDifference{{"clean", 2, 1, 0, 1}, {"autoattack", 1, 1, 1, 1}},
		Images: []Difference{{2, 1, "autoattack", "square", ""}, {3, 1, "clean", "", "clean"}},
	}
	if got := Diff(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("they differ in %+v, want %+v", got, want)
	}
}

func TestScorer(t *testing.T) {
	const eps = 8. / 255
	set := images(30, side, 2)
	search := attack.NewPGD(threat.Linf, eps, 20).Threat
	attacked, err := NewScorer(backend, linear{classes: 2}, set, search, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer attacked.Finalize()
	search.Steps = 0
	plain, err := NewScorer(backend, linear{classes: 2}, set, search, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Finalize()
	for seed := range uint64(4) { // one scorer, many states
		model := weigh(linear{classes: 2}, normal(seed))
		var wantClean, wantRobust Rate
		clean, reach := margins(model, set, eps)
		for _, m := range clean {
			wantClean.count(m > 0)
			wantRobust.count(m > reach)
		}
		if clean, robust, err := attacked.Score(t.Context(), model.State); err != nil || clean != wantClean || robust != wantRobust {
			t.Errorf("weights %d: scored %v and %v (%v), want %v and %v", seed, clean, robust, err, wantClean, wantRobust)
		}
		if clean, robust, err := plain.Score(t.Context(), model.State); err != nil || clean != wantClean || robust != (Rate{}) {
			t.Errorf("weights %d without attack: scored %v and %v (%v), want %v and nothing", seed, clean, robust, err, wantClean)
		}
	}
	if _, err := NewScorer(backend, linear{classes: 3}, set, search, 8, 1); err == nil {
		t.Error("a network of three classes was taken for a set of two")
	}
}

// The time that is left follows the last calls: one that took long because a graph was compiled, or because the machine stood
// still, hardly matters.
func TestThePaceForgetsWhatTookLong(t *testing.T) {
	now := time.Now()
	p := &pace{last: now, full: 1000, images: 100, flight: 10}
	call := func(took time.Duration, work int) {
		now = now.Add(took)
		p.called(attack.Cost{Forwards: work}, now)
	}
	call(time.Minute, 10)
	if left := p.remaining(); left != 0 {
		t.Errorf("after one call %v are left, want nothing said", left)
	}
	for range recentCalls {
		call(10*time.Millisecond, 10)
		if left, want := p.remaining(), time.Duration(100*1000-p.work)*time.Millisecond; left != 0 && left != want {
			t.Fatalf("%v are left, want %v", left, want)
		}
	}
	call(time.Hour, 10)
	for range 10 * recentCalls {
		call(20*time.Millisecond, 10)
	}
	if left, want := p.remaining(), time.Duration(100*1000-p.work)*2*time.Millisecond; left != want {
		t.Errorf("%v are left at half the pace, want %v", left, want)
	}
	for range 100 {
		p.finished(attack.Cost{})
	}
	if left := p.remaining(); left != 0 {
		t.Errorf("%v are left when all is done", left)
	}
}

func TestRates(t *testing.T) {
	for r, want := range map[Rate][3]float64{ // the roots q of (p-q)² = z² q(1-q)/n
		{0, 10}:        {0, 0, 0.2775328},
		{5, 10}:        {0.5, 0.2365931, 0.7634069},
		{10, 10}:       {1, 0.7224672, 1},
		{5423, 10_000}: {0.5423, 0.5325209, 0.5520466},
		{0, 0}:         {0, 0, 1},
	} {
		low, high := r.Wilson()
		for i, got := range [3]float64{r.Value(), low, high} {
			if math.Abs(got-want[i]) > 1e-6 {
				t.Errorf("%v: value and interval are %g, %g, %g, want %v", r, r.Value(), low, high, want)
				break
			}
		}
	}
	a := Accuracy{Classes: []Rate{{}, {3, 4}, {1, 4}, {1, 4}}}
	if a.WorstClass() != 2 || (Accuracy{Classes: []Rate{{}}}).WorstClass() != -1 {
		t.Errorf("the worst classes are %d and %d, want 2 and none", a.WorstClass(), Accuracy{Classes: []Rate{{}}}.WorstClass())
	}
}

func TestDamagedLedgersAreRefused(t *testing.T) {
	const header = `{"ledger":1,"classes":["a","b"],"attacks":[{"name":"fgsm"}]}` + "\n"
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	for text, want := range map[string]string{
		"":                               "found no whole line",
		"nonsense":                       "found no whole line",
		"PK\x03\n":                       "line 1: expected the header of a ledger",
		"{\"ledger\":9}\n":               "line 1: ledger is format 9, expected 1",
		header + "{\"index\":\n":         "line 2: expected an image's row",
		header + "{\"index\":-1}\n":      "line 2: index is -1",
		header + "{\"label\":2}\n":       "line 2: label is 2, expected one of 2 classes",
		header + "{\"prediction\":-2}\n": "line 2: prediction is -2",
		header + "{\"prediction\":0}\n":  "line 2: attacks has 0 entries, expected 1",
		header + "{\"prediction\":1}\n":  `line 2: broken_by is "", expected "clean"`,
		header + "{\"attacks\":[{}]}\n":  `line 2: suite is "", expected "fgsm"`,
		header + `{"attacks":[{"suite":"fgsm","prediction":1}]}` + "\n":                   "line 2: fgsm: broken is false, but prediction is 1 and label is 0",
		header + strings.Repeat(`{"index":4,"prediction":1,"broken_by":"clean"}`+"\n", 2): "line 3: image 4 is on line 2 already",
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

func FuzzLedger(f *testing.F) {
	const header = `{"ledger":1,"model":"linear","classes":["a","b"],"images":2,"norm":"Linf","eps":0.03,"attacks":[{"name":"fgsm"}]}` + "\n"
	const fell = `{"index":7,"label":1,"prediction":1,"margin":0.5,"attacks":[{"suite":"fgsm","attack":"fgsm","broken":true,"prediction":0,"margin":-0.1,"norm":0.03}],"broken_by":"fgsm","seed":3}` + "\n"
	const wrong = `{"index":5,"label":1,"prediction":0,"margin":-0.5,"broken_by":"clean","seed":3}` + "\n"
	for _, seed := range []string{header + fell + wrong, header + fell + wrong[:20], header + fell + fell, header[:30], "{}\n", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		header, rows, size, err := parseLedger(text)
		if err != nil || header == nil {
			return
		}
		for _, a := range (&Result{Header: *header, Rows: rows}).Accuracies() {
			if a.Total != len(rows) {
				t.Errorf("%s counts %d of %d rows", a.Name, a.Total, len(rows))
			}
		}
		// What was understood, written again, is understood the same.
		var again bytes.Buffer
		enc := json.NewEncoder(&again)
		if err := enc.Encode(header); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		_, rows2, size2, err := parseLedger(again.Bytes())
		if err != nil || size2 != again.Len() || len(rows2) != len(rows) || size > len(text) {
			t.Errorf("%q was read as %d rows, and those as %d (%v)", text, len(rows), len(rows2), err)
		}
	})
}
