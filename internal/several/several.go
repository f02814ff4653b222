// Package several makes a backend of one device look like one of several, each with memory of its own, for tests of what
// runs on several. It is strict where a partitioner would be: a program must say how every input and output lies, a part must
// be on its device and of its size, and what is said to be the same on all devices must have the same bits there. Then it
// computes the whole once.
package several

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// Backend is a backend as several devices.
type Backend struct {
	compute.Backend
	Copied  atomic.Int64 // how many numbers were copied from the host to a device or back
	devices int
}

// New is the backend b as so many devices.
func New(b compute.Backend, devices int) *Backend { return &Backend{Backend: b, devices: devices} }

// NumDevices is how many there are said to be.
func (b *Backend) NumDevices() int { return b.devices }

// HasSharedBuffers is false: the devices are not the host.
func (b *Backend) HasSharedBuffers() bool { return false }

// BufferFromFlatData copies values to a device.
func (b *Backend) BufferFromFlatData(device compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	b.Copied.Add(int64(shape.Size()))
	return b.put(device, flat, shape)
}

func (b *Backend) put(device compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	inner, err := b.Backend.BufferFromFlatData(0, flat, shape)
	return &buffer{inner, b, device}, err
}

type buffer struct {
	compute.Buffer
	backend *Backend
	device  compute.DeviceNum
}

func (b *buffer) ToFlatData(flat any) error {
	b.backend.Copied.Add(int64(reflect.ValueOf(flat).Len()))
	return b.Buffer.ToFlatData(flat)
}

func (b *buffer) Backend() compute.Backend              { return b.backend }
func (b *buffer) DeviceNum() (compute.DeviceNum, error) { return b.device, nil }

// values are a buffer's, as a slice of their type.
func values(b compute.Buffer) (reflect.Value, shapes.Shape, error) {
	shape, err := b.Shape()
	if err != nil {
		return reflect.Value{}, shape, err
	}
	flat := reflect.MakeSlice(reflect.SliceOf(shape.DType.GoType()), shape.Size(), shape.Size())
	return flat, shape, b.ToFlatData(flat.Interface())
}

// Builder begins a program.
func (b *Backend) Builder(name string) compute.Builder {
	return &builder{Builder: b.Backend.Builder(name), backend: b}
}

type builder struct {
	compute.Builder
	backend *Backend
	mesh    string
	axis    string
	main    *function
	in, out []bool // whether it is cut into parts
}

func (b *builder) DistributedAutoSharding(meshes ...compute.Mesh) error {
	if len(meshes) != 1 || len(meshes[0].AxesSizes) != 1 || meshes[0].AxesSizes[0] != b.backend.devices {
		return fmt.Errorf("meshes %v, expected one of one axis over %d devices", meshes, b.backend.devices)
	}
	b.mesh, b.axis = meshes[0].Name, meshes[0].AxesNames[0]
	return nil
}

func (b *builder) DeviceAssignment(devices ...compute.DeviceNum) error {
	if len(devices) != b.backend.devices {
		return fmt.Errorf("devices %v, expected %d", devices, b.backend.devices)
	}
	return nil
}

func (b *builder) Main() compute.Function {
	if b.main == nil {
		b.main = &function{b.Builder.Main(), b}
	}
	return b.main
}

// cut is whether a declaration cuts a tensor.
func (b *builder) cut(spec *compute.ShardingSpec, shape shapes.Shape) (bool, error) {
	switch {
	case spec == nil || spec.Mesh != b.mesh:
		return false, fmt.Errorf("a tensor of %s is said to lie by %v, expected something about mesh %q", shape, spec, b.mesh)
	case len(spec.Axes) == 0:
		return false, nil
	case len(spec.Axes) > 1 || len(spec.Axes[0]) != 1 || spec.Axes[0][0] != b.axis:
		return false, fmt.Errorf("a tensor of %s is cut along %v, expected %q", shape, spec.Axes, b.axis)
	case shape.Rank() == 0 || shape.Dimensions[0]%b.backend.devices != 0:
		return false, fmt.Errorf("a tensor of %s cannot be cut into %d", shape, b.backend.devices)
	}
	return true, nil
}

type function struct {
	compute.Function
	builder *builder
}

func (f *function) Parameter(name string, shape shapes.Shape, spec *compute.ShardingSpec) (compute.Value, error) {
	cut, err := f.builder.cut(spec, shape)
	if err != nil {
		return nil, err
	}
	f.builder.in = append(f.builder.in, cut)
	return f.Function.Parameter(name, shape, nil)
}

func (f *function) Return(outputs []compute.Value, specs []*compute.ShardingSpec) error {
	if len(specs) != len(outputs) {
		return fmt.Errorf("%d of %d outputs are said how to lie", len(specs), len(outputs))
	}
	for i, v := range outputs {
		shape, err := f.Shape(v)
		if err != nil {
			return err
		}
		cut, err := f.builder.cut(specs[i], shape)
		if err != nil {
			return err
		}
		f.builder.out = append(f.builder.out, cut)
	}
	return f.Function.Return(outputs, nil)
}

func (b *builder) Compile() (compute.Executable, error) {
	e, err := b.Builder.Compile()
	return &executable{e, b.backend, b.in, b.out}, err
}

type executable struct {
	compute.Executable
	backend *Backend
	in, out []bool
}

// gather is one input out of its parts.
func (e *executable) gather(parts []compute.Buffer, want shapes.Shape, cut bool) (compute.Buffer, error) {
	part := want
	if cut {
		part = want.Clone()
		part.Dimensions[0] /= e.backend.devices
	}
	var all reflect.Value
	for d, p := range parts {
		b, ours := p.(*buffer)
		if !ours || b.device != compute.DeviceNum(d) {
			return nil, fmt.Errorf("what device %d is given is not there", d)
		}
		flat, shape, err := values(b.Buffer)
		switch {
		case err != nil:
			return nil, err
		case !shape.Equal(part):
			return nil, fmt.Errorf("device %d is given %s, expected %s", d, shape, part)
		case d == 0:
			all = flat
		case cut:
			all = reflect.AppendSlice(all, flat)
		case !bytes.Equal(bits(flat), bits(all)):
			return nil, fmt.Errorf("device %d is given other values than device 0", d)
		}
	}
	return e.backend.Backend.BufferFromFlatData(0, all.Interface(), want)
}

// bits are the values of a slice in a form to compare, NaNs and zeros by their bits.
func bits(flat reflect.Value) []byte { return fmt.Appendf(nil, "%x", flat.Interface()) }

func (e *executable) Execute(inputs []compute.Buffer, donate []bool, _ compute.DeviceNum) ([]compute.Buffer, error) {
	_, want := e.Inputs()
	n := len(want)
	if len(inputs) != n*e.backend.devices {
		return nil, fmt.Errorf("%d inputs, expected %d for each of %d devices", len(inputs), n, e.backend.devices)
	}
	var whole []compute.Buffer
	for i := range want {
		var parts []compute.Buffer
		for d := range e.backend.devices {
			parts = append(parts, inputs[d*n+i])
		}
		b, err := e.gather(parts, want[i], e.in[i])
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		whole = append(whole, b)
	}
	results, err := e.Executable.Execute(whole, nil, 0)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, b := range whole {
		errs = append(errs, b.Finalize())
	}
	for i, given := range donate {
		if given {
			errs = append(errs, inputs[i].Finalize())
		}
	}
	out := make([]compute.Buffer, len(results)*e.backend.devices)
	for i, r := range results {
		flat, shape, err := values(r)
		errs = append(errs, err, r.Finalize())
		size := flat.Len()
		if e.out[i] {
			shape, size = shape.Clone(), size/e.backend.devices
			shape.Dimensions[0] /= e.backend.devices
		}
		for d := range e.backend.devices {
			from := 0
			if e.out[i] {
				from = d * size
			}
			b, err := e.backend.put(compute.DeviceNum(d), flat.Slice(from, from+size).Interface(), shape)
			errs = append(errs, err)
			out[d*len(results)+i] = b
		}
	}
	return out, errors.Join(errs...)
}
