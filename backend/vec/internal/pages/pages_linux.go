package pages

import "golang.org/x/sys/unix"

const hugePage = 2 << 20

// mapPages returns n zero bytes, on large pages if it can, or nil.
func mapPages(n int, huge bool) []byte {
	raw, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	if huge && unix.Madvise(raw, unix.MADV_HUGEPAGE) != nil {
		return raw // small pages do as well
	}
	return raw
}

func unmap(raw []byte) {
	if err := unix.Munmap(raw); err != nil {
		panic("pages: " + err.Error()) // of memory that was mapped: a bug here
	}
}
