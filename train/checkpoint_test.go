package train

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/gomlx/core/tensors"
)

// stopped leaves a run that was cancelled after so many steps.
func stopped(t *testing.T, steps int) Config {
	t.Helper()
	cfg := small(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg.Reporter, cfg.LogEvery = &stopper{after: steps, stop: cancel}, time.Nanosecond // a step is told as soon as it is taken
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cfg.Reporter, cfg.Resume = nil, Last
	return cfg
}

// No flipped bit of a checkpoint goes unnoticed: it is refused, or holds the same (the bit was in padding).
func TestFlippedBits(t *testing.T) {
	cfg := stopped(t, 4)
	path := filepath.Join(cfg.Dir, Last)
	sound := must[[]byte](t)(os.ReadFile(path))
	want := must[*weights.File](t)(must[*checkpoint](t)(loadCheckpoint(path)).file())
	r, refused := rng.New(1, "test flips"), 0
	const flips = 300
	for range flips {
		flipped := append([]byte(nil), sound...)
		flipped[r.IntN(len(sound))] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, flipped, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := loadCheckpoint(path)
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("error %q does not name %s", err, path)
			}
			continue
		}
		if got := must[*weights.File](t)(c.file()); got.Metadata[sealKey] != want.Metadata[sealKey] {
			t.Fatal("a changed checkpoint was taken")
		}
	}
	if refused < flips*9/10 {
		t.Errorf("%d of %d flipped bits were refused", refused, flips)
	}
}

// A damaged checkpoint is refused; the error names it and the sound one before it, and a run resumed from that ends with
// the same bits as ever.
func TestDamagedCheckpoint(t *testing.T) {
	want := straight(t)
	cfg := stopped(t, 8) // epochs 1 and 2 are done, and two steps of epoch 3
	path := filepath.Join(cfg.Dir, Last)
	sound := must[[]byte](t)(os.ReadFile(path))
	damage := func(what string, raw []byte) {
		t.Helper()
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Run(context.Background(), cfg)
		if err == nil {
			t.Fatalf("%s: the run went on", what)
		}
		for _, part := range []string{path, filepath.Join(cfg.Dir, LastPrev) + " (epoch 3, step 6), is sound"} {
			if !strings.Contains(err.Error(), part) {
				t.Fatalf("%s: error %q, want one that says %q", what, err, part)
			}
		}
	}
	flipped := append([]byte(nil), sound...)
	flipped[len(sound)-1] ^= 1
	damage("flipped bit", flipped)
	for _, n := range []int{0, 7, 8, 100, len(sound) / 2, len(sound) - 1} {
		damage("truncated", sound[:n])
	}
	damage("another step", []byte(strings.Replace(string(sound), `\"step\":8`, `\"step\":9`, 1)))
	damage("other weights", []byte(strings.Replace(string(sound), "checkpoint", "checkpoinT", 1)))

	cfg.Resume = LastPrev
	must[*Result](t)(Run(context.Background(), cfg))
	if got := outcome(t, cfg.Dir); got != want {
		t.Errorf("resumed from last.prev:\n%s\nwant\n%s", got, want)
	}

	// With both damaged there is nothing to offer.
	cfg = stopped(t, 8)
	for _, name := range []string{Last, LastPrev} {
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), sound[:50], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "no sound") {
		t.Errorf("both damaged: %v", err)
	}
	cfg.Resume = Best
	must[*Result](t)(Run(context.Background(), cfg))
	if got := outcome(t, cfg.Dir); got != want {
		t.Errorf("resumed from best:\n%s\nwant\n%s", got, want)
	}
}

// Between the two renames of a new checkpoint there is no last.
func TestStoppedBetweenRenames(t *testing.T) {
	cfg := stopped(t, 8)
	if err := os.Remove(filepath.Join(cfg.Dir, Last)); err != nil {
		t.Fatal(err)
	}
	must[*Result](t)(Run(context.Background(), cfg))
	if outcome(t, cfg.Dir) != straight(t) {
		t.Error("a run resumed without last is not the run it was")
	}
}

// A checkpoint of another network is not taken for one of this.
func TestRestoreRefuses(t *testing.T) {
	cfg := stopped(t, 2)
	c := must[*checkpoint](t)(loadCheckpoint(filepath.Join(cfg.Dir, Last)))
	for want, s := range map[string]*Stepper{
		"network tiny-5, expected tiny-6": must[*Stepper](t)(NewStepper(backend(), tinyModel(6, 1), nil, plain(), SGD{}, 0, true)),
		"has no tensor optimizer.1.":      newStepper(t, plain(), Adam{0.9, 0.999, 1e-8, 0}, 0, true),
		"has a tensor average.":           newStepper(t, plain(), SGD{}, 0, false),
	} {
		if err := s.restore(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	if _, err := find(t.TempDir(), Last); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
}

// The log is cut back to the checkpoint; one that is shorter is not the run's.
func TestShortLogIsRefused(t *testing.T) {
	cfg := stopped(t, 8)
	path := filepath.Join(cfg.Dir, LogFile)
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), path+" has 10 bytes") {
		t.Errorf("error %v, want one that names the log and its 10 bytes", err)
	}
}

// Whatever is read as a checkpoint can be written and read again, and is then the same.
func FuzzParseCheckpoint(f *testing.F) {
	one := tensors.FromFlatDataAndDimensions([]float32{1, 2}, 2)
	c := &checkpoint{position{Network: "tiny-2", Best: &Chosen{Epoch: 1, Score: &Score{Clean: 0.5}}}, map[string]*tensors.Tensor{"student.a": one}}
	path := filepath.Join(f.TempDir(), "seed")
	if err := c.save(path); err != nil {
		f.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(sound[:len(sound)-5])
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := weights.Parse(raw)
		if err != nil {
			return
		}
		c, err := parseCheckpoint(file)
		if err != nil {
			return
		}
		again, err := c.file()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := parseCheckpoint(again); err != nil || !reflect.DeepEqual(c.position, d.position) || len(c.tensors) != len(d.tensors) {
			t.Fatalf("a checkpoint changed by being written: %v", err)
		}
	})
}
