package zoo

// smallCNN is the network of the TRADES code for MNIST (after Carlini and Wagner 2017): four convolutions without
// padding, two poolings, three linear layers. The authors' dropout before the second linear layer is left out: a
// network draws no random numbers here.
func smallCNN(s scope, x image, classes int) image {
	f := s.in("feature_extractor")
	unpadded := func(x image, name string, out int) image {
		return relu(f.conv(x, name, conv{out: out, size: 3, stride: 1, valid: true, bias: true}))
	}
	x = unpadded(unpadded(x, "conv1", 32), "conv2", 32)
	x = maxPool2(x)
	x = unpadded(unpadded(x, "conv3", 64), "conv4", 64)
	x = flatten(maxPool2(x))

	c := s.in("classifier")
	x = relu(c.linear(x, "fc1", 200))
	x = relu(c.linear(x, "fc2", 200))
	return c.linear(x, "fc3", classes)
}
