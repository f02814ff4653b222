package closest

import (
	"slices"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if distance(c.a, c.b) != distance(c.b, c.a) {
			t.Errorf("distance(%q, %q) depends on the order", c.a, c.b)
		}
	}
}

func TestNames(t *testing.T) {
	got := Names("resnet21", []string{"wrn-34-10", "resnet18", "resnet20", "zzz"}, 2)
	if !slices.Equal(got, []string{"resnet20", "resnet18"}) {
		t.Errorf("closest to resnet21: %v", got)
	}
	if got := Names("a", []string{"b", "c"}, 2); len(got) != 0 {
		t.Errorf("nothing is close to %q, got %v", "a", got)
	}
}
