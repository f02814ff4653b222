//go:build xla

package main

import _ "github.com/gomlx/go-xla/compute/xla"

func init() { backends = append(backends, "xla:cpu", "xla:cuda") }
