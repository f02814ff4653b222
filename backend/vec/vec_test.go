package vec

import (
	"os"
	"strings"
	"testing"

	"github.com/gomlx/compute/support/backendtest"

	"github.com/adaad-go/adaad/internal/kern"
)

// forEachSet runs a test with a backend for every instruction set of this machine, and fails for those that
// ADAAD_REQUIRE_SETS names and it lacks.
func forEachSet(t *testing.T, f func(t *testing.T, b *Backend)) {
	for name := range strings.SplitSeq(os.Getenv("ADAAD_REQUIRE_SETS"), ",") {
		if name != "" {
			if _, err := kern.Named(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, set := range kern.Sets() {
		t.Run(set.Name(), func(t *testing.T) { f(t, newBackend(t, "isa="+set.Name())) })
	}
}

func newBackend(t testing.TB, config string) *Backend {
	t.Helper()
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b.(*Backend)
}

func TestCompliance(t *testing.T) {
	forEachSet(t, func(t *testing.T, b *Backend) { backendtest.RunAll(t, b, nil) })
}
