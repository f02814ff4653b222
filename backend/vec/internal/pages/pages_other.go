//go:build !linux

package pages

const hugePage = Align

// mapPages returns nil: the heap serves.
func mapPages(int) []byte { return nil }

func unmap([]byte) {}
