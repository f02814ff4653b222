// Package mesh makes several devices of one backend work as one. The images of a batch are shared out among them, rows of
// equal number in order; weights and everything else are on every device. Programs are the backend's own to partition (XLA's
// Shardy does so), with the meaning they have on one device: a batch norm's statistics are those of the whole batch, a
// gradient is the sum over all of it, and results differ from one device's by the order of sums alone.
package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// name and axis are what the partitioner knows the devices by.
const name, axis = "devices", "images"

// Backend is several devices of a backend as one.
type Backend struct {
	compute.Backend
	devices int
}

// New makes the first so many devices of a backend one. Finalizing it finalizes the backend.
func New(b compute.Backend, devices int) (*Backend, error) {
	if devices < 1 || devices > b.NumDevices() {
		return nil, fmt.Errorf("%d devices are asked for, %s has %d", devices, b.Name(), b.NumDevices())
	}
	return &Backend{b, devices}, nil
}

// Devices is how many there are.
func (m *Backend) Devices() int { return m.devices }

// NumDevices is 1: all of them are device 0.
func (m *Backend) NumDevices() int { return 1 }

// Description says what the backend is and how many of its devices are used.
func (m *Backend) Description() string {
	return fmt.Sprintf("%s, batches shared out among %d", m.Backend.Description(), m.devices)
}

// HasSharedBuffers is false: what lies on several devices is nowhere as a whole.
func (m *Backend) HasSharedBuffers() bool { return false }

// NewSharedBuffer is an error.
func (m *Backend) NewSharedBuffer(compute.DeviceNum, shapes.Shape) (compute.Buffer, any, error) {
	return nil, nil, errors.New("several devices share no buffer")
}

// BufferFromFlatData keeps a copy of the values until a program takes them, which says how they are to lie.
func (m *Backend) BufferFromFlatData(_ compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	from := reflect.ValueOf(flat)
	if from.Kind() != reflect.Slice || from.Len() != shape.Size() {
		return nil, fmt.Errorf("the values of a buffer of %s are %T, expected a slice of %d", shape, flat, shape.Size())
	}
	host := reflect.MakeSlice(from.Type(), from.Len(), from.Len())
	reflect.Copy(host, from)
	return &buffer{mesh: m, shape: shape, host: host}, nil
}

// layout is how a tensor lies on the devices.
type layout int

const (
	whole layout = iota // all of it on each
	rows                // the first axis is cut into as many parts as there are devices
)

// of is the layout that a program's declaration asks for. A batch that the devices cannot share out equally lies whole on each.
func (m *Backend) of(spec *compute.ShardingSpec, shape shapes.Shape) layout {
	if spec != nil && len(spec.Axes) > 0 && len(spec.Axes[0]) > 0 && shape.Rank() > 0 && shape.Dimensions[0]%m.devices == 0 {
		return rows
	}
	return whole
}

// spec is the layout as the partitioner wants it told. What is not told it may choose itself.
func (l layout) spec() *compute.ShardingSpec {
	if l == rows {
		return &compute.ShardingSpec{Mesh: name, Axes: [][]string{{axis}}}
	}
	return &compute.ShardingSpec{Mesh: name}
}

// buffer is a tensor on the devices, or on its way there.
type buffer struct {
	mesh  *Backend
	shape shapes.Shape

	mu     sync.Mutex
	host   reflect.Value    // a slice of the values, until they are on the devices
	parts  []compute.Buffer // by device
	layout layout
}

func (b *buffer) Backend() compute.Backend              { return b.mesh }
func (b *buffer) Shape() (shapes.Shape, error)          { return b.shape, nil }
func (b *buffer) DeviceNum() (compute.DeviceNum, error) { return 0, nil }
func (b *buffer) Data() (any, error)                    { return nil, errors.New("several devices share no buffer") }
func (b *buffer) CopyToDevice(compute.DeviceNum) (compute.Buffer, error) {
	return nil, errors.New("there is no device but the one that all of them are")
}

// Finalize frees what the devices hold.
func (b *buffer) Finalize() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, p := range b.parts {
		errs = append(errs, p.Finalize())
	}
	b.parts, b.host = nil, reflect.Value{}
	return errors.Join(errs...)
}

// ToFlatData copies the values to a slice.
func (b *buffer) ToFlatData(flat any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(reflect.ValueOf(flat))
}

func (b *buffer) read(to reflect.Value) error {
	switch {
	case to.Kind() != reflect.Slice || to.Len() != b.shape.Size():
		return fmt.Errorf("the values of a buffer of %s are read into %s, expected a slice of %d", b.shape, to.Type(), b.shape.Size())
	case b.host.IsValid():
		reflect.Copy(to, b.host)
		return nil
	case b.parts == nil:
		return errors.New("the buffer was freed or given away")
	case b.layout == whole:
		return b.parts[0].ToFlatData(to.Interface())
	}
	n := to.Len() / len(b.parts)
	for d, p := range b.parts {
		if err := p.ToFlatData(to.Slice(d*n, (d+1)*n).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// as is the tensor on each device, laid out so. One that lies otherwise is laid out anew, by way of the host: programs that
// agree on what is a batch never ask for that.
func (b *buffer) as(l layout) ([]compute.Buffer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parts != nil && b.layout == l {
		return b.parts, nil
	}
	host := b.host
	if !host.IsValid() {
		host = reflect.MakeSlice(reflect.SliceOf(b.shape.DType.GoType()), b.shape.Size(), b.shape.Size())
		if err := b.read(host); err != nil {
			return nil, err
		}
	}
	shape, n := b.shape, host.Len()
	if l == rows {
		shape, n = shape.Clone(), n/b.mesh.devices
		shape.Dimensions[0] /= b.mesh.devices
	}
	var parts []compute.Buffer
	free := func(parts []compute.Buffer) (err error) {
		for _, p := range parts {
			err = errors.Join(err, p.Finalize())
		}
		return err
	}
	for d := range b.mesh.devices {
		from := 0
		if l == rows {
			from = d * n
		}
		p, err := b.mesh.Backend.BufferFromFlatData(compute.DeviceNum(d), host.Slice(from, from+n).Interface(), shape)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("copying to device %d: %w", d, err), free(parts))
		}
		parts = append(parts, p)
	}
	old := b.parts
	b.host, b.parts, b.layout = reflect.Value{}, parts, l
	return parts, free(old)
}

// Builder begins a program for all the devices.
func (m *Backend) Builder(program string) compute.Builder {
	b := &builder{Builder: m.Backend.Builder(program), mesh: m}
	var all []compute.DeviceNum
	for d := range m.devices {
		all = append(all, compute.DeviceNum(d))
	}
	b.fault = b.Builder.DistributedAutoSharding(compute.Mesh{Name: name, AxesSizes: []int{m.devices}, AxesNames: []string{axis}})
	b.fault = cmp.Or(b.fault, b.Builder.DeviceAssignment(all...))
	return b
}

type builder struct {
	compute.Builder
	mesh    *Backend
	fault   error // in telling it of the devices
	main    *function
	in, out []layout
}

// DistributedAutoSharding takes the program's mesh, of one device; which devices that is the builder was told.
func (b *builder) DistributedAutoSharding(meshes ...compute.Mesh) error {
	for _, m := range meshes {
		for _, n := range m.AxesSizes {
			if n != 1 {
				return fmt.Errorf("a program asks for %d devices, and to programs there is one", n)
			}
		}
	}
	return nil
}

// DeviceAssignment takes the one device there is.
func (b *builder) DeviceAssignment(devices ...compute.DeviceNum) error {
	if len(devices) != 1 || devices[0] != 0 {
		return fmt.Errorf("a program asks for devices %v, and to programs there is device 0", devices)
	}
	return nil
}

// DistributedSPMD is an error but for one device.
func (b *builder) DistributedSPMD(devices int) error {
	if devices != 1 {
		return fmt.Errorf("a program asks for %d devices, and to programs there is one", devices)
	}
	return nil
}

// Main is the program's main function, which notes how what it takes and gives is to lie.
func (b *builder) Main() compute.Function {
	if b.main == nil {
		b.main = &function{b.Builder.Main(), b}
	}
	return b.main
}

// Compile compiles the program for the devices.
func (b *builder) Compile() (compute.Executable, error) {
	if b.fault != nil {
		return nil, fmt.Errorf("sharing a program among %d devices: %w", b.mesh.devices, b.fault)
	}
	e, err := b.Builder.Compile()
	if err != nil {
		return nil, err
	}
	return &executable{e, b.mesh, b.in, b.out}, nil
}

type function struct {
	compute.Function
	builder *builder
}

// Parameter declares an input.
func (f *function) Parameter(name string, shape shapes.Shape, spec *compute.ShardingSpec) (compute.Value, error) {
	l := f.builder.mesh.of(spec, shape)
	f.builder.in = append(f.builder.in, l)
	return f.Function.Parameter(name, shape, l.spec())
}

// Return declares the outputs.
func (f *function) Return(outputs []compute.Value, specs []*compute.ShardingSpec) error {
	told := make([]*compute.ShardingSpec, len(outputs))
	for i, v := range outputs {
		shape, err := f.Shape(v)
		if err != nil {
			return err
		}
		var spec *compute.ShardingSpec
		if i < len(specs) {
			spec = specs[i]
		}
		l := f.builder.mesh.of(spec, shape)
		f.builder.out, told[i] = append(f.builder.out, l), l.spec()
	}
	return f.Function.Return(outputs, told)
}

type executable struct {
	compute.Executable
	mesh    *Backend
	in, out []layout
}

// Execute runs the program on all devices.
func (e *executable) Execute(inputs []compute.Buffer, donate []bool, _ compute.DeviceNum) ([]compute.Buffer, error) {
	n, devices := len(e.in), e.mesh.devices
	if len(inputs) != n {
		return nil, fmt.Errorf("a program has %d inputs, expected %d", len(inputs), n)
	}
	parts, given := make([]compute.Buffer, n*devices), make([]bool, n*devices)
	for i, in := range inputs {
		b, ours := in.(*buffer)
		if !ours || b.mesh != e.mesh {
			return nil, fmt.Errorf("input %d is of another backend", i)
		}
		on, err := b.as(e.in[i])
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		for d, p := range on {
			parts[d*n+i], given[d*n+i] = p, len(donate) > 0 && donate[i]
		}
	}
	results, err := e.Executable.Execute(parts, given, 0)
	for i, in := range inputs {
		if len(donate) > 0 && donate[i] {
			in.(*buffer).parts = nil
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]compute.Buffer, len(e.out))
	for i, shape := range e.Outputs() {
		b := &buffer{mesh: e.mesh, shape: shape, layout: e.out[i]}
		for d := range devices {
			b.parts = append(b.parts, results[d*len(out)+i])
		}
		out[i] = b
	}
	return out, nil
}
