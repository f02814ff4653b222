package data

import (
	"fmt"
	"slices"
	"strings"
)

// Info says what a data set is.
type Info struct {
	Name                    string
	Height, Width, Channels int          // 0 where the files or the caller decide
	Classes                 int          // 0 where the files decide
	Train, Test             int          // images of the published set; 0 where the files decide
	Download                int64        // bytes that [Download] brings; 0 where it cannot
	Augment                 Augmentation // what training on it commonly uses
	Source                  string       // where it comes from
	Licence                 string       // what is said about its use
}

var infos = []Info{
	{
		Name: "cifar10", Height: 32, Width: 32, Channels: 3, Classes: 10, Train: 50000, Test: 10000,
		Augment: Augmentation{Pad: 4, Flip: true},
		Source:  "https://www.cs.toronto.edu/~kriz/cifar.html",
		Licence: "no licence stated; the authors ask to cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
	},
	{
		Name: "cifar100", Height: 32, Width: 32, Channels: 3, Classes: 100, Train: 50000, Test: 10000,
		Augment: Augmentation{Pad: 4, Flip: true},
		Source:  "https://www.cs.toronto.edu/~kriz/cifar.html",
		Licence: "no licence stated; the authors ask to cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
	},
	{
		Name: "mnist", Height: 28, Width: 28, Channels: 1, Classes: 10, Train: 60000, Test: 10000,
		Augment: Augmentation{Pad: 2},
		Source:  "LeCun, Cortes and Burges, The MNIST Database of Handwritten Digits; mirror https://ossci-datasets.s3.amazonaws.com/mnist/",
		Licence: "commonly given as CC BY-SA 3.0",
	},
	{
		Name: "folder", Channels: 3,
		Augment: Augmentation{Pad: 4, Flip: true},
		Source:  "your own pictures: train/CLASS/*.png and test/CLASS/*.png, or .jpg",
		Licence: "your own",
	},
	{
		Name: "shapes", Height: shapeSide, Width: shapeSide, Channels: 3, Classes: len(shapes), Train: shapesTrain, Test: shapesTest,
		Augment: Augmentation{Pad: 4, Flip: true},
		Source:  "drawn from a seed, no files needed",
		Licence: "as this program",
	},
}

// Infos describes every data set that [Open] knows.
func Infos() []Info {
	all := slices.Clone(infos)
	for i := range all {
		for _, f := range published[all[i].Name] {
			all[i].Download += f.size
		}
	}
	return all
}

// Names returns the names that [Open] takes.
func Names() []string {
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names
}

// Options are what only some data sets need.
type Options struct {
	Size int // folder: height and width that pictures are brought to; 0 means 32
}

// Open reads a split of a data set from dir, which is either the folder the files are in or the one that holds that
// folder; "shapes" needs none. Where files are missing, the error is an [io/fs.ErrNotExist].
func Open(name, dir string, split Split, opts Options) (*Set, error) {
	switch name {
	case "cifar10":
		return CIFAR10(dir, split)
	case "cifar100":
		return CIFAR100(dir, split)
	case "mnist":
		return MNIST(dir, split)
	case "folder":
		size := opts.Size
		if size == 0 {
			size = 32
		}
		return Folder(dir, split, size)
	case "shapes":
		if split == Train {
			return Shapes(ShapesSeed, Train, shapesTrain), nil
		}
		return Shapes(ShapesSeed, Test, shapesTest), nil
	}
	return nil, unknown(name, Names())
}

func unknown(name string, known []string) error {
	return fmt.Errorf("data set %q is unknown: want %s", name, strings.Join(known, ", "))
}
