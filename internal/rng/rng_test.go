package rng

import "testing"

func TestStreamsAreKeyed(t *testing.T) {
	seen := map[uint64][]uint64{}
	for seed := range uint64(4) {
		for _, p := range []Purpose{Init, Augment, Attack} {
			for a := range uint64(8) {
				for b := range uint64(8) {
					v := New(seed, p, a, b).Uint64()
					if old, dup := seen[v]; dup {
						t.Fatalf("keys (%d,%s,%d,%d) share a first draw with %v", seed, p, a, b, old)
					}
					seen[v] = []uint64{seed, a, b}
				}
			}
		}
	}
	if New(1, Init, 2).Uint64() != New(1, Init, 2).Uint64() {
		t.Error("the same key gave two streams")
	}
	if New(1, Init, 2).Uint64() == New(1, Init, 2, 0).Uint64() {
		t.Error("a trailing zero key is not told from no key")
	}
}

// The draws are part of what a seed means: a change here changes every published run.
func TestStreamIsPinned(t *testing.T) {
	if got, want := New(1, Init, 2, 3).Uint64(), uint64(0x78ef218c64fcb787); got != want {
		t.Errorf("New(1, init, 2, 3) starts with %#x, want %#x", got, want)
	}
}
