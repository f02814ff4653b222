package vec

import (
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// Buffer implements [compute.Buffer]: a shape and its values in Go memory.
type Buffer struct {
	backend *Backend
	shape   shapes.Shape
	mem     []byte // nil once finalized or donated

	// id names these contents: no two buffers, and no two contents that a program wrote, ever share one.
	id uint64
	// exposed is set once a client has had the memory itself: it may write it at any time, so id says nothing more about
	// the contents.
	exposed atomic.Bool
}

var _ compute.Buffer = (*Buffer)(nil)

var lastID atomic.Uint64

// alignment of values in memory: a cache line, and the widest vector register.
const alignment = 64

// allocate returns n zero bytes, aligned.
func allocate(n int) []byte {
	raw := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (alignment - 1)
	return raw[skip : skip+n : skip+n]
}

func byteSize(s shapes.Shape) int { return s.DType.SizeForDimensions(s.Dimensions...) }

// flatOf views mem as a slice of the shape's Go type.
func flatOf(mem []byte, s shapes.Shape) any {
	if s.Size() == 0 {
		return dtypes.MakeAnySlice(s.DType, 0)
	}
	return dtypes.UnsafeAnySliceFromBytes(unsafe.Pointer(unsafe.SliceData(mem)), s.DType, s.Size())
}

// floats views mem as float32 values.
func floats(mem []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/4)
}

// bytesOf views float32 values as memory.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// memory keeps what finalized buffers leave, by size, until the garbage collector wants it: new pages cost more than many
// an operation.
type memory struct{ bySize sync.Map } // int to *sync.Pool of *[]byte

// get returns n bytes of any contents.
func (m *memory) get(n int) []byte {
	if p, ok := m.bySize.Load(n); ok {
		if mem, ok := p.(*sync.Pool).Get().(*[]byte); ok {
			return *mem
		}
	}
	return allocate(n)
}

func (m *memory) put(mem []byte) {
	p, _ := m.bySize.LoadOrStore(len(mem), &sync.Pool{})
	p.(*sync.Pool).Put(&mem)
}

// arenas are the working memories of programs that do not run just now: programs that run in turn share one.
type arenas struct {
	mu   sync.Mutex
	free []*pages.Region
}

// get returns at least n bytes of any contents: the smallest that is large enough, or a new one in place of the largest.
func (a *arenas) get(n int) *pages.Region {
	a.mu.Lock()
	defer a.mu.Unlock()
	better := func(x, y int) bool {
		if (x >= n) != (y >= n) {
			return x >= n
		}
		return (x < y) == (x >= n)
	}
	best := -1
	for i, r := range a.free {
		if best < 0 || better(len(r.Bytes()), len(a.free[best].Bytes())) {
			best = i
		}
	}
	if best < 0 {
		return pages.New(n)
	}
	r := a.free[best]
	a.free = slices.Delete(a.free, best, best+1)
	if len(r.Bytes()) < n {
		r.Free()
		return pages.New(n)
	}
	return r
}

func (a *arenas) put(r *pages.Region) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = append(a.free, r)
}

// newBuffer returns a buffer of any contents.
func (b *Backend) newBuffer(shape shapes.Shape) *Buffer {
	return &Buffer{backend: b, shape: shape.Clone(), mem: b.memory.get(byteSize(shape)), id: lastID.Add(1)}
}

// release ends the life of the buffer. Its memory is used again, unless a client may still have it.
func (buf *Buffer) release() {
	if buf.mem != nil && !buf.exposed.Load() {
		buf.backend.memory.put(buf.mem)
	}
	buf.mem = nil
}

// checkFlat reports whether flat is a slice that holds exactly the values of the shape.
func checkFlat(what string, flat any, shape shapes.Shape) error {
	t := reflect.TypeOf(flat)
	if t == nil || t.Kind() != reflect.Slice {
		return errors.Errorf("vec: %s: values of type %T given, expected a slice for shape %s", what, flat, shape)
	}
	if packed := shape.DType.IsPacked() && t.Elem().Kind() == reflect.Uint8; !packed && dtypes.FromGoType(t.Elem()) != shape.DType {
		return errors.Errorf("vec: %s: values of type %T given, expected those of shape %s", what, flat, shape)
	}
	if n := reflect.ValueOf(flat).Len() * int(t.Elem().Size()); n != byteSize(shape) {
		return errors.Errorf("vec: %s: %d bytes of values given, expected %d for shape %s", what, n, byteSize(shape), shape)
	}
	return nil
}

// BufferFromFlatData implements [compute.DataInterface]: it copies the values.
func (b *Backend) BufferFromFlatData(device compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	if err := b.check("BufferFromFlatData", device); err != nil {
		return nil, err
	}
	if err := checkFlat("BufferFromFlatData", flat, shape); err != nil {
		return nil, err
	}
	buf := b.newBuffer(shape)
	copy(buf.mem, dtypes.UnsafeByteSliceFromAny(flat))
	return buf, nil
}

// HasSharedBuffers implements [compute.DataInterface]: buffers are Go memory.
func (b *Backend) HasSharedBuffers() bool { return true }

// NewSharedBuffer implements [compute.DataInterface]. The memory must not be written while a program reads it.
func (b *Backend) NewSharedBuffer(device compute.DeviceNum, shape shapes.Shape) (compute.Buffer, any, error) {
	if err := b.check("NewSharedBuffer", device); err != nil {
		return nil, nil, err
	}
	buf := b.newBuffer(shape)
	clear(buf.mem)
	buf.exposed.Store(true)
	return buf, flatOf(buf.mem, shape), nil
}

// live reports whether the buffer still has its values.
func (buf *Buffer) live(what string) error {
	if buf.backend.IsFinalized() {
		return errors.Errorf("vec: %s: the backend was finalized", what)
	}
	if buf.mem == nil {
		return errors.Errorf("vec: %s: the buffer was finalized or donated", what)
	}
	return nil
}

// Backend implements [compute.Buffer].
func (buf *Buffer) Backend() compute.Backend { return buf.backend }

// Finalize implements [compute.Buffer]. Finalizing twice, or after donating, does nothing.
func (buf *Buffer) Finalize() error {
	buf.release()
	return nil
}

// Shape implements [compute.Buffer].
func (buf *Buffer) Shape() (shapes.Shape, error) { return buf.shape, nil }

// DeviceNum implements [compute.Buffer].
func (buf *Buffer) DeviceNum() (compute.DeviceNum, error) { return 0, nil }

// ToFlatData implements [compute.Buffer].
func (buf *Buffer) ToFlatData(flat any) error {
	if err := buf.live("ToFlatData"); err != nil {
		return err
	}
	if err := checkFlat("ToFlatData", flat, buf.shape); err != nil {
		return err
	}
	copy(dtypes.UnsafeByteSliceFromAny(flat), buf.mem)
	return nil
}

// Data implements [compute.Buffer]: the memory itself, not a copy.
func (buf *Buffer) Data() (any, error) {
	if err := buf.live("Data"); err != nil {
		return nil, err
	}
	buf.exposed.Store(true)
	return flatOf(buf.mem, buf.shape), nil
}

// CopyToDevice implements [compute.Buffer]: a copy on the only device.
func (buf *Buffer) CopyToDevice(device compute.DeviceNum) (compute.Buffer, error) {
	if err := buf.live("CopyToDevice"); err != nil {
		return nil, err
	}
	if err := buf.backend.check("CopyToDevice", device); err != nil {
		return nil, err
	}
	c := buf.backend.newBuffer(buf.shape)
	copy(c.mem, buf.mem)
	return c, nil
}
