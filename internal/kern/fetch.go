package kern

// Fetch asks for what x holds to be brought into the processor's second-level cache, while it goes on.
func (s *Set) Fetch(x []float32) {
	if s.asm != nil && len(x) > 0 {
		s.asm.fetch(&x[0], (len(x)+15)/16)
	}
}
