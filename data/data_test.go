package data

import (
	"fmt"
	"slices"
	"testing"
)

// numbered is a set of one-pixel images whose pixel and Index tell them apart.
func numbered(labels ...int) *Set {
	s := &Set{Name: "numbered", Height: 1, Width: 1, Channels: 1, Labels: labels, Index: count(len(labels))}
	for i, class := range labels {
		s.Pixels = append(s.Pixels, uint8(i))
		for class >= len(s.Classes) {
			s.Classes = append(s.Classes, fmt.Sprint(len(s.Classes)))
		}
	}
	return s
}

// balanced is n images of each class, in turn.
func balanced(classes, n int) *Set {
	labels := make([]int, classes*n)
	for i := range labels {
		labels[i] = i % classes
	}
	return numbered(labels...)
}

func perClass(s *Set) []int {
	n := make([]int, len(s.Classes))
	for _, class := range s.Labels {
		n[class]++
	}
	return n
}

// checkNumbered checks that each image of a part kept its pixel, label and Index, and appears once.
func checkNumbered(t *testing.T, whole, part *Set) {
	t.Helper()
	if len(part.Pixels) != part.Len() || len(part.Index) != part.Len() {
		t.Fatalf("%d labels, %d pixels, %d indices", part.Len(), len(part.Pixels), len(part.Index))
	}
	seen := map[int]bool{}
	for i, at := range part.Index {
		if seen[at] {
			t.Fatalf("image %d appears twice", at)
		}
		seen[at] = true
		if part.Image(i)[0] != whole.Image(at)[0] || part.Labels[i] != whole.Labels[at] {
			t.Fatalf("image %d has another's pixels or label", at)
		}
	}
}

func TestSubset(t *testing.T) {
	s := balanced(4, 10)
	for _, n := range []int{1, 2, 3, 4, 7, 20, 39} {
		sub := s.Subset(n, 1)
		checkNumbered(t, s, sub)
		if got := perClass(sub); sub.Len() != n || slices.Max(got)-slices.Min(got) > 1 {
			t.Errorf("Subset(%d) has %v images of each class", n, got)
		}
		if larger := s.Subset(n+1, 1); n < 39 && !slices.Equal(larger.Index[:n], sub.Index) {
			t.Errorf("Subset(%d) is not the beginning of Subset(%d)", n, n+1)
		}
	}
	for _, n := range []int{-1, 0, 40, 41} {
		if s.Subset(n, 1) != s {
			t.Errorf("Subset(%d) of 40 images is not all of them", n)
		}
	}
	if slices.Equal(s.Subset(20, 1).Index, s.Subset(20, 2).Index) {
		t.Error("two seeds chose the same images")
	}

	uneven := numbered(0, 0, 0, 0, 0, 0, 1, 2, 2)
	if got := perClass(uneven.Subset(6, 1)); !slices.Equal(got, []int{3, 1, 2}) {
		t.Errorf("a subset of 6 has %v of classes that have 6, 1 and 2 images", got)
	}
}

func TestHoldOut(t *testing.T) {
	s := balanced(5, 50)
	for _, c := range []struct {
		fraction float64
		each     int
	}{{0, 0}, {0.001, 1}, {0.02, 1}, {0.1, 5}, {0.5, 25}} {
		train, held := s.HoldOut(c.fraction, 1)
		checkNumbered(t, s, train)
		checkNumbered(t, s, held)
		for class, n := range perClass(held) {
			if n != c.each {
				t.Errorf("HoldOut(%v) holds %d of class %d, want %d", c.fraction, n, class, c.each)
			}
		}
		if !slices.IsSorted(train.Index) || !slices.IsSorted(held.Index) {
			t.Errorf("HoldOut(%v) changed the order", c.fraction)
		}
		if all := slices.Sorted(slices.Values(append(slices.Clone(train.Index), held.Index...))); !slices.Equal(all, s.Index) {
			t.Errorf("HoldOut(%v): the parts are not the whole", c.fraction)
		}
	}
	if train, held := numbered(0, 0, 1).HoldOut(0.02, 1); !slices.Equal(perClass(train), []int{1, 1}) || held.Len() != 1 {
		t.Errorf("of classes of 2 and 1 images %v are left to train on, want 1 and 1", perClass(train))
	}
	defer func() {
		if recover() == nil {
			t.Error("HoldOut(2) did not panic")
		}
	}()
	s.HoldOut(2, 1)
}

// What an image is drawn for does not depend on which others are there.
func TestChoicesFollowTheImage(t *testing.T) {
	s := balanced(3, 40)
	train, held := s.HoldOut(0.25, 7)
	sub := train.Subset(30, 7)
	checkNumbered(t, s, sub)

	var order []int // the order of the whole set's subset, less what is held out
	for _, i := range s.Subset(s.Len()-1, 7).Index {
		if !slices.Contains(held.Index, i) {
			order = append(order, i)
		}
	}
	for class := range 3 {
		ofClass := func(index []int) (l []int) {
			for _, i := range index {
				if s.Labels[i] == class {
					l = append(l, i)
				}
			}
			return l
		}
		if got, want := ofClass(sub.Index), ofClass(order)[:10]; !slices.Equal(got, want) {
			t.Errorf("class %d: subset %v, want %v", class, got, want)
		}
	}
}

// Balanced holds every image once, and begins with every subset.
func TestBalanced(t *testing.T) {
	s, err := Open("shapes", "", Test, Options{})
	if err != nil {
		t.Fatal(err)
	}
	all := s.Balanced(3)
	for _, n := range []int{1, 17, s.Len() - 1} {
		if subset := s.Subset(n, 3); !slices.Equal(subset.Index, all.Index[:n]) {
			t.Errorf("a subset of %d images is not the beginning of all of them", n)
		}
	}
	if index := slices.Sorted(slices.Values(all.Index)); !slices.Equal(index, s.Index) {
		t.Error("the images are not those of the set")
	}
}
