//go:build plugin

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/internal/stablehlo"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// client is some devices, each with memory of its own. All of them compute on one backend.
type client struct {
	backend compute.Backend
	devices int

	mu      sync.Mutex
	buffers map[*buffer]bool // those not destroyed; nil once the client is
}

// newClient is a client of as many devices as a text says: one if it says nothing.
func newClient(devices string) (*client, error) {
	if devices == "" {
		devices = "1"
	}
	n, err := strconv.Atoi(devices)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("ADAAD_PLUGIN_DEVICES is %q, expected a number of devices from 1 on", devices)
	}
	b, err := vec.New("")
	return &client{backend: b, devices: n, buffers: map[*buffer]bool{}}, err
}

// destroy also takes the values of the buffers that are left: go-xla destroys none after its client.
func (c *client) destroy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := range c.buffers {
		b.values = nil
	}
	c.buffers = nil
	c.backend.Finalize()
}

// buffer is a tensor on a device. Its values are never written, so that others may have the same memory.
type buffer struct {
	client *client
	device int
	shape  shapes.Shape
	values []byte
}

func (c *client) newBuffer(device int, shape shapes.Shape, values []byte) *buffer {
	b := &buffer{c, device, shape, values}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buffers[b] = true
	return b
}

func (b *buffer) destroy() {
	b.client.mu.Lock()
	defer b.client.mu.Unlock()
	delete(b.client.buffers, b)
}

// executable is a program for one device, whichever that is, or for the first devices of the client.
type executable struct {
	client  *client
	program *stablehlo.Program
}

func (c *client) compile(format string, text []byte) (*executable, error) {
	if format != "mlir" {
		return nil, fmt.Errorf("the program is %q, expected mlir", format)
	}
	p, err := stablehlo.Compile(c.backend, text)
	switch {
	case err != nil:
		return nil, err
	case p.Devices > c.devices:
		p.Exec.Finalize()
		return nil, fmt.Errorf("the program is for %d devices, there are %d", p.Devices, c.devices)
	}
	return &executable{c, p}, nil
}

// part is the shape of what a device has of a tensor.
func (e *executable) part(t stablehlo.Tensor) shapes.Shape {
	part := t.Shape.Clone()
	if t.Cut {
		part.Dimensions[0] /= e.program.Devices
	}
	return part
}

// gather is an input as a whole, out of the parts that the devices have.
func (e *executable) gather(in stablehlo.Tensor, parts []*buffer, devices []int) (compute.Buffer, error) {
	want := e.part(in)
	var values [][]byte
	for i, b := range parts {
		switch {
		case b.device != devices[i]:
			return nil, fmt.Errorf("what device %d is given is on device %d", devices[i], b.device)
		case !b.shape.Equal(want):
			return nil, fmt.Errorf("device %d is given %s, expected %s", devices[i], b.shape, want)
		case !in.Cut && i > 0 && !bytes.Equal(b.values, values[0]):
			return nil, fmt.Errorf("device %d is given other values than device %d", devices[i], devices[0])
		}
		values = append(values, b.values)
	}
	whole := values[0]
	if in.Cut {
		whole = slices.Concat(values...)
	}
	flat := dtypes.UnsafeAnySliceFromBytes(unsafe.Pointer(unsafe.SliceData(whole)), in.Shape.DType, in.Shape.Size())
	return e.client.backend.BufferFromFlatData(0, flat, in.Shape)
}

// scatter is what each device gets of an output.
func (e *executable) scatter(out stablehlo.Tensor, whole compute.Buffer, devices []int) ([]*buffer, error) {
	flat := dtypes.MakeAnySlice(out.Shape.DType, out.Shape.Size())
	if err := whole.ToFlatData(flat); err != nil {
		return nil, err
	}
	part, values := e.part(out), dtypes.UnsafeByteSliceFromAny(flat)
	size := int(part.ByteSize())
	var parts []*buffer
	for i, d := range devices {
		from := 0
		if out.Cut {
			from = i * size
		}
		parts = append(parts, e.client.newBuffer(d, part, values[from:from+size]))
	}
	return parts, nil
}

// execute computes the whole once. Inputs and outputs are by device, in the order of devices.
func (e *executable) execute(inputs [][]*buffer, devices []int) ([][]*buffer, error) {
	p := e.program
	var whole []compute.Buffer
	defer func() {
		for _, b := range whole {
			b.Finalize()
		}
	}()
	for i, in := range p.In {
		var parts []*buffer
		for _, of := range inputs {
			parts = append(parts, of[i])
		}
		b, err := e.gather(in, parts, devices)
		if err != nil {
			return nil, fmt.Errorf("input %d of %s: %w", i, p.Name, err)
		}
		whole = append(whole, b)
	}
	results, err := p.Exec.Execute(whole, nil, 0)
	if err != nil {
		return nil, err
	}
	whole = append(whole, results...)
	outputs := make([][]*buffer, len(devices))
	for i, r := range results {
		parts, err := e.scatter(p.Out[i], r, devices)
		if err != nil {
			return nil, fmt.Errorf("output %d of %s: %w", i, p.Name, err)
		}
		for d, b := range parts {
			outputs[d] = append(outputs[d], b)
		}
	}
	return outputs, nil
}
