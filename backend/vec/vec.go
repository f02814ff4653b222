// Package vec is a GoMLX backend for CPUs: it records a whole computation, fuses what it can, plans its memory once, and
// runs it with multi-threaded vector kernels.
//
// Operations and data types without a kernel here are replayed on GoMLX's Go backend, so every GoMLX program runs. Results
// depend neither on the number of threads nor on what else runs at the same time: work is divided by shape only.
//
// Import it for its registration under the name "vec":
//
//	import _ "github.com/adaad-go/adaad/backend/vec"
//
//	backend, err := compute.NewWithConfig("vec:threads=2,isa=avx2")
package vec

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/notimplemented"
	"github.com/pkg/errors"

	"github.com/adaad-go/adaad/internal/kern"
)

// BackendName selects this backend in a GoMLX configuration string.
const BackendName = "vec"

func init() { compute.Register(BackendName, New) }

// Backend implements [compute.Backend]. It has one device, number 0.
type Backend struct {
	golang    compute.Backend // runs what has no kernel here
	set       *kern.Set
	kernels   kernels
	pool      *pool
	memory    memory
	arenas    arenas
	cells     cells
	memories  memories
	caps      compute.Capabilities
	finalized atomic.Bool
	macs      atomic.Int64 // executed

	observe func(in *instruction, d time.Duration) // is told how long instructions took, if set
}

var _ compute.Backend = (*Backend)(nil)

// New returns a backend. The configuration is a comma-separated list of
//
//   - threads=N: worker threads, 1 or more (default: GOMAXPROCS);
//   - isa=NAME: the instruction set of the kernels, one of those this CPU runs (default: the best).
func New(config string) (compute.Backend, error) {
	threads, set := runtime.GOMAXPROCS(0), kern.Best()
	for option := range strings.SplitSeq(config, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "":
		case "threads":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return nil, errors.Errorf("vec: option threads=%q: expected a whole number of at least 1", value)
			}
			threads = n
		case "isa":
			var err error
			if set, err = kern.Named(value); err != nil {
				return nil, errors.WithMessagef(err, "vec: option isa=%q", value)
			}
		default:
			return nil, errors.Errorf("vec: unknown option %q in configuration %q: expected threads=N or isa=NAME", key, config)
		}
	}
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		return nil, errors.WithMessage(err, "vec: starting the Go backend")
	}
	return &Backend{golang: golang, set: set, kernels: kernels{set}, pool: newPool(threads), caps: capabilities(golang)}, nil
}

// capabilities are those of the Go backend with static shapes only, as a program is planned for one shape, and without the
// fused operations that are better taken apart.
func capabilities(golang compute.Backend) compute.Capabilities {
	caps := golang.Capabilities().Clone()
	caps.DynamicAxes = false //lint:ignore SA1019 clients may still look at it
	caps.DynamicShapes = compute.DynamicShapesNone
	for _, op := range []compute.OpType{
		compute.OpTypeDynamicBroadcastInDim, compute.OpTypeDynamicIota, compute.OpTypeDynamicPad,
		compute.OpTypeDynamicDimensionSize, compute.OpTypeDynamicShape, compute.OpTypeDynamicReshape,
		compute.OpTypeFusedSoftmax, compute.OpTypeFusedGelu, compute.OpTypeFusedLayerNorm, compute.OpTypeFusedDense,
		compute.OpTypeFusedAttentionQKVProjection,
	} {
		delete(caps.Operations, op)
	}
	return caps
}

// Name implements [compute.Backend].
func (b *Backend) Name() string { return BackendName }

// String implements [compute.Backend].
func (b *Backend) String() string { return BackendName }

// Description implements [compute.Backend].
func (b *Backend) Description() string {
	return fmt.Sprintf("vec: fused CPU kernels (%s, %d threads)", b.set.Name(), b.pool.Workers())
}

// PeakFLOPS measures how many floating point operations a second the threads do when they multiply and add numbers that
// never leave their registers: what no kernel can exceed. It takes a fraction of a second.
func (b *Backend) PeakFLOPS() float64 {
	const loops, rounds = 1 << 20, 8
	best := 0.0
	for range rounds {
		done := make([]float64, b.pool.Workers())
		start := time.Now()
		b.pool.Run(len(done), func(i, _ int) { done[i] = b.set.Peak(loops) })
		seconds, total := time.Since(start).Seconds(), 0.0
		for _, flops := range done {
			total += flops
		}
		best = max(best, total/seconds)
	}
	return best
}

// BaseParameter is Base, for who asks whether a backend knows bases.
func (b *Backend) BaseParameter() string { return Base }

// CompilesFast reports that a program is compiled in milliseconds, so that one for every number of images is worth it.
func (b *Backend) CompilesFast() bool { return true }

// NumDevices implements [compute.Backend]: there is one.
func (b *Backend) NumDevices() int { return 1 }

// DeviceDescription implements [compute.Backend].
func (b *Backend) DeviceDescription(compute.DeviceNum) string { return "CPU, " + b.set.Name() }

// Capabilities implements [compute.Backend].
func (b *Backend) Capabilities() compute.Capabilities { return b.caps.Clone() }

// Builder implements [compute.Backend].
func (b *Backend) Builder(name string) compute.Builder {
	bld := &Builder{
		Builder: notimplemented.Builder{ErrFn: notImplemented},
		backend: b,
		name:    name,
		shadow:  b.golang.Builder(name),
	}
	bld.main = newFunction(bld, nil, compute.MainName, bld.shadow.Main())
	return bld
}

func notImplemented(op compute.OpType) error {
	return errors.Wrapf(compute.ErrNotImplemented, "operation %s in backend %q", op, BackendName)
}

// Finalize implements [compute.Backend]: it stops the worker threads. Programs still running must have finished.
func (b *Backend) Finalize() {
	if b.finalized.Swap(true) {
		return
	}
	b.pool.stop()
	b.golang.Finalize()
}

// IsFinalized implements [compute.Backend].
func (b *Backend) IsFinalized() bool { return b.finalized.Load() }

// check reports why nothing can be done on the device, if so.
func (b *Backend) check(what string, device compute.DeviceNum) error {
	if b.IsFinalized() {
		return errors.Errorf("vec: %s: the backend was finalized", what)
	}
	if device != 0 {
		return errors.Errorf("vec: %s: device %d asked for, but there is only device 0", what, device)
	}
	return nil
}

// prod is the product of the numbers, 1 of none.
func prod(dims []int) int {
	p := 1
	for _, d := range dims {
		p *= d
	}
	return p
}

// strides are the row-major strides of dims, in elements.
func strides(dims []int) []int {
	s := slices.Clone(dims)
	step := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = step
		step *= dims[i]
	}
	return s
}
