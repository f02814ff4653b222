package main

import "github.com/mmcloughlin/avo/build"

func winogradFile(c *build.Context) {}
