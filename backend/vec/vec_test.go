package vec

import (
	"testing"

	"github.com/gomlx/compute/support/backendtest"

	"github.com/adaad-go/adaad/internal/kern"
)

// forEachSet runs a test with a backend for every instruction set of this machine.
func forEachSet(t *testing.T, f func(t *testing.T, b *Backend)) {
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
