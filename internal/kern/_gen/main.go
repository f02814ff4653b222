// Command _gen writes the assembly of package kern: for every file of kernels one gen_NAME_amd64.s and its Go declarations.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	out := flag.String("dir", ".", "folder to write to")
	flag.Parse()
	files := []struct {
		name  string
		build func(*build.Context)
	}{
		{"gemm", gemmFile},
		{"held", heldFile},
		{"bf16", bf16File},
		{"winograd", winogradFile},
		{"rows", rowsFile},
		{"depthwise", depthwiseFile},
		{"depthwise3x3", depthwise3x3File},
		{"depthwise3x3grad", depthwise3x3GradFile},
		{"depthwise3x3stride2", depthwise3x3Stride2File},
		{"elementwise", elementwiseFile},
		{"transpose", transposeFile},
		{"peak", peakFile},
	}
	for _, f := range files {
		c := build.NewContext()
		c.ConstraintExpr("amd64,!noasm")
		f.build(c)
		file, err := c.Result()
		if err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
		if err := pass.Compile.Execute(file); err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
		cfg := printer.Config{Name: "_gen/" + f.name + ".go", Pkg: "kern"}
		for ext, p := range map[string]printer.Printer{".s": printer.NewGoAsm(cfg), ".go": printer.NewStubs(cfg)} {
			text, err := p.Print(file)
			if err != nil {
				log.Fatalf("%s: %v", f.name, err)
			}
			if err := os.WriteFile(filepath.Join(*out, "gen_"+f.name+"_amd64"+ext), text, 0o644); err != nil {
				log.Fatal(err)
			}
		}
	}
}
