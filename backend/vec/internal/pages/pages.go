// Package pages allocates large pieces of memory outside the garbage-collected heap, which may grow to twice what lives on
// it, and on large pages where the system has them, of which a processor needs fewer addresses at hand. Such memory never
// leaves the backend.
package pages

import (
	"runtime"
	"unsafe"
)

// Region is a piece of memory. It is given back when Free is called or the Region is garbage; slices of it do not keep it
// alive.
type Region struct {
	bytes   []byte
	mapped  []byte // what the system gave, or nil
	cleanup runtime.Cleanup
}

// Align is what regions are aligned to: a cache line, and the widest vector register.
const Align = 64

const (
	large = 1 << 20  // from this size memory comes from the system
	huge  = 16 << 20 // and from this on large pages: smaller ones would waste too much of the last
)

// New returns n zero bytes.
func New(n int) *Region {
	r := &Region{}
	if n >= large {
		slack := 0
		if n >= huge {
			slack = hugePage
		}
		if r.mapped = mapPages(n+slack, n >= huge); r.mapped != nil {
			r.bytes = aligned(r.mapped, n, max(slack, 1))
			r.cleanup = runtime.AddCleanup(r, unmap, r.mapped)
			return r
		}
	}
	r.bytes = aligned(make([]byte, n+Align), n, Align)
	return r
}

// Bytes is the memory.
func (r *Region) Bytes() []byte { return r.bytes }

// Free gives the memory back; nobody may use it any more.
func (r *Region) Free() {
	if r.mapped != nil {
		r.cleanup.Stop()
		unmap(r.mapped)
	}
	r.bytes, r.mapped = nil, nil
}

func aligned(raw []byte, n, to int) []byte {
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (to - 1)
	return raw[skip : skip+n : skip+n]
}
