package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// childDir, when set, turns the test binary into a training run in that folder.
const childDir = "ADAAD_TRAIN_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	cfg := small(dir)
	// Checkpoints all the time, so that most kills fall into the writing of one.
	cfg.CheckpointEvery, cfg.LogEvery = time.Nanosecond, time.Nanosecond
	if _, err := ReadRecord(dir); !errors.Is(err, fs.ErrNotExist) {
		cfg.Resume = Last
	}
	if _, err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A run killed with SIGKILL at random moments, again and again, ends with the bits of one that was never stopped, and its
// log has each epoch once.
func TestKillAndResume(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many processes")
	}
	want := straight(t)
	self := must[string](t)(os.Executable())
	start := func(dir string) *exec.Cmd {
		child := exec.Command(self)
		child.Env = append(os.Environ(), childDir+"="+dir)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		return child
	}
	// How long a whole run takes here decides how long a killed one may live.
	began := time.Now()
	if err := start(t.TempDir()).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)

	for range 3 {
		dir := t.TempDir()
		kills, finished := 0, false
		for !finished {
			child := start(dir)
			done := make(chan error, 1)
			go func() { done <- child.Wait() }()
			// Later lives are longer, so that the run ends.
			life := time.Duration(rand.Float64() * float64(whole) * (0.4 + 0.05*float64(kills)))
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("after %d kills: %v", kills, err)
				}
				finished = true
			case <-time.After(life):
				child.Process.Kill()
				<-done
				kills++
			}
		}
		if got := outcome(t, dir); got != want {
			t.Fatalf("after %d kills:\n%s\nwant\n%s", kills, got, want)
		}
		left, _ := os.ReadDir(dir)
		if len(left) != 7 {
			t.Errorf("after %d kills the folder holds %v", kills, left)
		}
		t.Logf("%d kills, lives of up to %v", kills, whole)
	}
}
