//go:build !linux

package pages

const hugePage = Align

// mapPages returns nil: the heap serves.
func mapPages(int, bool) []byte { return nil }

func unmap([]byte) {}
