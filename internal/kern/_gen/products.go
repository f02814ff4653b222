package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// fewTiles is of how many tiles the sums of a row of six planes stay in registers.
func fewTiles(g isa) int {
	if g.wide() {
		return 4
	}
	return 1
}

// weightsPair is the constants of a pair of rows of the weights' map, s0 + square·s2, times scale, ± scaledX·s1.
type weightsPair struct{ square, scale, scaledX string }

var weightsPairs = [2]weightsPair{{"half", "minusTwoThirds", "minusTwoThirdsP"}, {"two", "sixth", "sixthQ"}}

func (p weightsPair) names() []string { return []string{p.square, p.scale, p.scaledX} }

// products multiplies few tiles with weights that it transforms on the way: a row of planes at a time, whose sums stay in
// registers, and no transformed weight is stored. Its operations are those of weights and gemm, in the same order.
func (w *winograd) products(tiles int) {
	name := fmt.Sprintf("winogradProducts%d", tiles)
	w.fn(name, "(c *float32, cPlane, cTile int, d *float32, dPlane, dTile int, src *float32, srcPlane, srcRow int, terms, vecs, accumulate int, "+
		"ahead *float32, aheadStep int)",
		fmt.Sprintf("%s%s computes, for t in [0,%d), vecs vectors of columns and weights", name, w.name, tiles),
		"g[k][i][j] = src[(3*i+j)*srcPlane + k*srcRow + lane], with k in [0,terms), vecs and terms being positive,",
		"",
		"	c[(6*i+j)*cPlane + t*cTile + lane] = Σ_k d[(6*i+j)*dPlane + t*dTile + k] * (G·g[k]·Gᵀ)[i][j]",
		"",
		"and adds it to what is there if accumulate is not zero. With every term of six planes it fetches two lines from ahead into the",
		"second-level cache, which then moves by aheadStep bytes.")
	sum := func(j, t int) reg.VecPhysical { return w.v(j*tiles + t) }
	temp := func(j int) reg.VecPhysical { return w.v(6*tiles + j) }
	plus, minus, free := temp(3), temp(4), 6*tiles+5
	all := append(weightsPairs[0].names(), weightsPairs[1].names()...)
	w.held = map[string]reg.VecPhysical{}
	hold := func(names []string) {
		for i, n := range names {
			w.held[n] = w.v(free + i)
			w.VBROADCASTSS(w.value[n], w.held[n])
		}
	}
	holdAll := free+len(all) <= w.regs
	if holdAll {
		hold(all)
	}
	// times adds m·x to sum: m is a number in memory, for all lanes.
	times := func(m operand.Mem, x, sum reg.VecPhysical) {
		if w.wide() {
			w.VFMADD231PS_BCST(m, x, sum)
			return
		}
		w.VBROADCASTSS(m, w.v(w.regs-1))
		w.VFMADD231PS(w.v(w.regs-1), x, sum)
	}
	// scaled is an operation on x and a constant, from memory if that is not held.
	scaled := func(op, fromMemory func(...operand.Op), name string, x, to reg.VecPhysical) {
		r, ok := w.held[name]
		switch {
		case ok:
			op(r, x, to)
		case w.wide():
			fromMemory(w.value[name], x, to)
		default:
			w.VBROADCASTSS(w.value[name], w.v(w.regs-1))
			op(w.v(w.regs-1), x, to)
		}
	}

	src, srcPlane := []reg.GPPhysical{reg.RAX, reg.RBX, reg.RCX}, w.floats("srcPlane", reg.R10) // a row of the weights each
	d := []reg.GPPhysical{reg.RSI, reg.RDI, reg.R8, reg.R9}[:tiles]
	dPlane, dPlane3, dPlane5 := w.floats("dPlane", reg.R11), reg.R12, reg.R13
	w.LEAQ(at(dPlane, dPlane, 2), dPlane3)
	w.LEAQ(at(dPlane, dPlane, 4), dPlane5)
	for _, s := range []string{"cPlane", "cTile", "dTile", "srcRow"} {
		w.SHLQ(operand.Imm(2), w.slot(s))
	}
	ahead, k, tmp := w.arg("ahead", reg.R14), reg.R15, reg.RDX
	input := func(j, t int) operand.Mem {
		switch j {
		case 1, 2, 4:
			return at(d[t], dPlane, uint8(j))
		case 3:
			return at(d[t], dPlane3, 1)
		case 5:
			return at(d[t], dPlane5, 1)
		}
		return deref(d[t])
	}
	weight := func(i, j int) operand.Mem {
		if j == 0 {
			return deref(src[i])
		}
		return at(src[i], srcPlane, uint8(j))
	}
	// sums visits those of a row, and leaves the place of the first of the next in tmp.
	sums := func(visit func(m operand.Mem, x reg.VecPhysical)) {
		w.arg("c", tmp)
		for j := range 6 {
			w.MOVQ(tmp, k)
			for t := range tiles {
				visit(deref(k), sum(j, t))
				if t < tiles-1 {
					w.ADDQ(w.slot("cTile"), k)
				}
			}
			w.ADDQ(w.slot("cPlane"), tmp)
		}
	}

	w.Label("vector")
	for r := range 6 {
		label := func(what string) string { return fmt.Sprintf("%s%d", what, r) }
		pair := weightsPairs[max(0, r-1)/2%2]
		if !holdAll {
			w.held = map[string]reg.VecPhysical{}
			hold(pair.names())
		}
		w.CMPQ(w.slot("accumulate"), operand.Imm(0))
		w.JNE(operand.LabelRef(label("load")))
		for i := range 6 * tiles {
			w.zero(w.v(i))
		}
		w.JMP(operand.LabelRef(label("start")))
		w.Label(label("load"))
		sums(func(m operand.Mem, x reg.VecPhysical) { w.VMOVUPS(m, x) })
		w.Label(label("start"))
		w.arg("src", src[0])
		for i := 1; i < 3; i++ {
			w.LEAQ(at(src[i-1], srcPlane, 2), src[i])
			w.ADDQ(srcPlane, src[i])
		}
		w.arg("d", d[0])
		for t := 1; t < tiles; t++ {
			w.MOVQ(d[t-1], d[t])
			w.ADDQ(w.slot("dTile"), d[t])
		}
		w.arg("terms", k)
		w.Label(label("term"))
		w.PREFETCHT1(deref(ahead))
		w.PREFETCHT1(operand.Mem{Base: ahead, Disp: 64})
		w.ADDQ(w.slot("aheadStep"), ahead)
		for j := range 3 {
			x := temp(j)
			switch r {
			case 0:
				w.VMOVUPS(weight(0, j), x)
			case 5:
				w.VMOVUPS(weight(2, j), x)
			default:
				w.VMOVUPS(weight(0, j), x)
				w.VFMADD231PS(weight(2, j), w.held[pair.square], x)
				w.VMULPS(w.held[pair.scale], x, x)
				if r%2 == 1 {
					w.VFMADD231PS(weight(1, j), w.held[pair.scaledX], x)
				} else {
					w.VFNMADD231PS(weight(1, j), w.held[pair.scaledX], x)
				}
			}
		}
		add := func(j int, x reg.VecPhysical) {
			for t := range tiles {
				times(input(j, t), x, sum(j, t))
			}
		}
		add(0, temp(0))
		for i, p := range weightsPairs {
			w.VMOVUPS(temp(0), minus)
			scaled(w.VFMADD231PS, w.VFMADD231PS_BCST, p.square, temp(2), minus)
			scaled(w.VMULPS, w.VMULPS_BCST, p.scale, minus, minus)
			w.VMOVUPS(minus, plus)
			scaled(w.VFMADD231PS, w.VFMADD231PS_BCST, p.scaledX, temp(1), plus)
			scaled(w.VFNMADD231PS, w.VFNMADD231PS_BCST, p.scaledX, temp(1), minus)
			add(1+2*i, plus)
			add(2+2*i, minus)
		}
		add(5, temp(2))
		for _, p := range src {
			w.ADDQ(w.slot("srcRow"), p)
		}
		for _, p := range d {
			w.ADDQ(operand.Imm(4), p)
		}
		w.DECQ(k)
		w.JNE(operand.LabelRef(label("term")))
		sums(func(m operand.Mem, x reg.VecPhysical) { w.VMOVUPS(x, m) })
		w.MOVQ(tmp, w.slot("c"))
		w.LEAQ(at(dPlane5, dPlane, 1), tmp)
		w.ADDQ(tmp, w.slot("d"))
	}
	// Back to the first plane, and to the next vector.
	back := func(pointer string, plane operand.Op) {
		w.MOVQ(plane, tmp)
		w.LEAQ(at(tmp, tmp, 8), tmp)
		w.SHLQ(operand.Imm(2), tmp) // 36 planes
		w.SUBQ(tmp, w.slot(pointer))
	}
	back("c", w.slot("cPlane"))
	back("d", dPlane)
	w.ADDQ(operand.Imm(uint64(w.bytes())), w.slot("c"))
	w.ADDQ(operand.Imm(uint64(w.bytes())), w.slot("src"))
	w.DECQ(w.slot("vecs"))
	w.JNE(operand.LabelRef("vector"))
	w.VZEROUPPER()
	w.RET()
}
