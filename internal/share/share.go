// Package share says which inputs and outputs of a program are batches, an image a row, so that a backend of several devices
// can share their images out. It computes nothing: a program says the same wherever it runs.
package share

import (
	"errors"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/gomlx/core/graph"
)

// Devices is how many devices of a backend share out a batch. It is 1 for a backend that does not do so; one that does has
// a method Devices, as that of package backend/mesh.
func Devices(b compute.Backend) int {
	if several, ok := b.(interface{ Devices() int }); ok {
		return several.Devices()
	}
	return 1
}

// Rows is how a batch lies on a backend that shares it out. It is nil on any other. To a program all the devices are one,
// and the mesh in it has one: the backend knows how many they are.
func Rows(b compute.Backend) *distributed.ShardingSpec {
	if Devices(b) == 1 {
		return nil
	}
	mesh, err := distributed.NewDeviceMesh([]int{1}, []string{"images"})
	if err != nil {
		panic(err) // the names above are in order
	}
	return &distributed.ShardingSpec{Mesh: mesh, Axes: []distributed.AxisSpec{{"images"}}}
}

// Graph prepares a graph for a backend that shares batches out, and gives [Rows] to declare them with, nil on any other.
func Graph(g *graph.Graph) *distributed.ShardingSpec {
	rows := Rows(g.Backend())
	if rows != nil {
		if err := errors.Join(g.SetAutoSharding(rows.Mesh), g.SetDeviceAssignment([]compute.DeviceNum{0})); err != nil {
			panic(err) // the mesh is in order, and the graph has nothing yet
		}
	}
	return rows
}

// Batches are some inputs or outputs of a program in a row: true where one is a batch.
type Batches []bool

// Then are so many more that are the same on every device.
func (b Batches) Then(k int) Batches { return append(b[:len(b):len(b)], make([]bool, k)...) }

// Batch are so many more that are batches.
func (b Batches) Batch(k int) Batches {
	for b = b.Then(k); k > 0; k-- {
		b[len(b)-k] = true
	}
	return b
}

// Exec tells a backend that shares batches out which of a program's inputs and outputs are some. The last of each stands for
// those that follow it; none says that none is.
func Exec(e *graph.Exec, b compute.Backend, in, out Batches) {
	rows := Rows(b)
	if rows == nil {
		return
	}
	specs := func(all Batches) (s []*distributed.ShardingSpec) {
		for _, batch := range all {
			if batch {
				s = append(s, rows)
			} else {
				s = append(s, nil)
			}
		}
		return s
	}
	e.AutoSharding(rows.Mesh).WithInputShardingSpecs(specs(in)...).WithOutputShardingSpecs(specs(out)...)
}
