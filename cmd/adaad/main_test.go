package main

import (
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	for _, name := range []string{"vec", "go"} {
		b, err := open(name, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		b.Finalize()
	}
	for _, c := range []struct {
		name             string
		threads, devices int
		want             string
	}{
		{"vec", 0, 2, "2 devices are asked for, vec has 1"},
		{"vec", 0, 0, "0 devices are asked for"},
		{"vec", -1, 1, "--threads is -1"},
		{"tpu", 0, 1, "this build has the backends vec, go"},
	} {
		if _, err := open(c.name, c.threads, c.devices); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("open(%q, %d, %d) says %v, expected %q", c.name, c.threads, c.devices, err, c.want)
		}
	}
}
