package vec

// MACs are the multiply-adds of everything the backend has executed so far, as papers count them: those of convolutions
// and matrix products, by their shapes, padding included, whatever algorithm computes them. The count is the same on every
// machine.
func (b *Backend) MACs() int64 { return b.macs.Load() }

// macs are the multiply-adds of a node.
func (n *node) macs() int64 {
	switch a := n.attr.(type) {
	case convolution: // a product for every output and every value of its kernel
		kernel := n.in[1].shape
		count := n.out[0].shape.Size() * (kernel.Size() / kernel.Dimensions[a.axes.KernelOutputChannels])
		for _, d := range a.inputDilations { // zeros put between inputs, as in the gradient of a stride, are no work
			count /= max(d, 1)
		}
		return int64(count)
	case dot: // a product for every output and every value that is contracted
		count := n.out[0].shape.Size()
		for _, axis := range a.lhsContracting {
			count *= n.in[0].shape.Dimensions[axis]
		}
		return int64(count)
	}
	return 0
}
