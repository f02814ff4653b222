//go:build !amd64 || noasm

package kern

func detect() []*Set { return nil }
