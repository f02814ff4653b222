package pages

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

func TestRegions(t *testing.T) {
	for _, n := range []int{0, 1, 100, large - 1, large, 3*large + 5} {
		r := New(n)
		b := r.Bytes()
		if len(b) != n || cap(b) != n {
			t.Fatalf("%d bytes asked for, %d with room for %d given", n, len(b), cap(b))
		}
		if n == 0 {
			continue
		}
		if at := uintptr(unsafe.Pointer(&b[0])); at%Align != 0 {
			t.Errorf("%d bytes start at %#x", n, at)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("%d bytes: byte %d is %d", n, i, b[i])
			}
			b[i] = 1
		}
		r.Free()
		if r.Bytes() != nil {
			t.Error("a region that was given back still has bytes")
		}
	}
}

func TestDroppedRegionsAreGivenBack(t *testing.T) {
	mapped := func() int {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Skip("this system does not tell how much is mapped")
		}
		var n int
		if _, err := fmt.Sscan(string(text), &n); err != nil {
			t.Fatal(err)
		}
		return n * os.Getpagesize()
	}
	const size, count = 256 << 20, 64
	before := mapped()
	for i := range count {
		New(size).Bytes()[i] = 1
		runtime.GC()
	}
	for wait := 0; mapped()-before > count/4*size; wait++ {
		if wait == 100 {
			t.Fatalf("%d MiB are still mapped", (mapped()-before)>>20)
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}
