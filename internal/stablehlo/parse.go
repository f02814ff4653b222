package stablehlo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// module is a program as it is written.
type module struct {
	name    string
	devices int
	funcs   map[string]*function
}

// function is a function of a module, or a region of an operation.
type function struct {
	params, results []typed
	ops             []*operation // the last returns
}

// typed is a parameter (with its name) or a result (without) and what Shardy is told about it.
type typed struct {
	name  string
	shape shapes.Shape
	cut   bool
}

// operation is one statement: out = name(in) (regions) {attributes}.
type operation struct {
	line    int
	name    string
	out, in []string
	regions []*function
	attrs   map[string]string
	shapes  []shapes.Shape // of out
}

// parser reads text from the front. Its errors are panics of type fault.
type parser struct {
	text string
	at   int
}

type fault struct{ error }

func (p *parser) fail(format string, args ...any) {
	panic(fault{fmt.Errorf("line %d: %s", p.line(), fmt.Sprintf(format, args...))})
}

func (p *parser) line() int { return 1 + strings.Count(p.text[:p.at], "\n") }

// next skips white space and reports whether the text goes on with s.
func (p *parser) next(s string) bool {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", rune(p.text[p.at])) {
		p.at++
	}
	return strings.HasPrefix(p.text[p.at:], s)
}

// accept takes s if it comes next.
func (p *parser) accept(s string) bool {
	if !p.next(s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("%q, expected %q", p.text[p.at:min(p.at+20, len(p.text))], s)
	}
}

// word takes letters, digits, '_' and '.'.
func (p *parser) word() string {
	p.next("")
	from := p.at
	for p.at < len(p.text) {
		c := p.text[p.at]
		if c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			break
		}
		p.at++
	}
	if from == p.at {
		p.fail("%q, expected a name", p.text[from:min(from+20, len(p.text))])
	}
	return p.text[from:p.at]
}

// list takes what item takes, separated by commas, to the end.
func (p *parser) list(end string, item func()) {
	for first := true; !p.accept(end); first = false {
		if !first {
			p.expect(",")
		}
		item()
	}
}

// value takes an attribute's value: everything up to a comma or a closing brace that no bracket in it encloses.
func (p *parser) value() string {
	p.next("")
	from, open := p.at, 0
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case '[', '(', '{', '<':
			open++
		case ']', ')', '}', '>':
			if p.text[p.at] == '>' && p.text[p.at-1] == '-' { // an arrow
				continue
			}
			if open == 0 {
				return strings.TrimSpace(p.text[from:p.at])
			}
			open--
		case ',':
			if open == 0 {
				return strings.TrimSpace(p.text[from:p.at])
			}
		}
	}
	p.fail("the text ends in an attribute")
	return ""
}

// attributes takes {name = value, ...}, if it is there.
func (p *parser) attributes() map[string]string {
	all := map[string]string{}
	if p.accept("{") {
		p.list("}", func() {
			name := p.word()
			p.expect("=")
			all[name] = p.value()
		})
	}
	return all
}

// names are the element types.
var names = map[string]dtypes.DType{
	"i1": dtypes.Bool, "i8": dtypes.Int8, "i16": dtypes.Int16, "i32": dtypes.Int32, "i64": dtypes.Int64,
	"ui8": dtypes.Uint8, "ui16": dtypes.Uint16, "ui32": dtypes.Uint32, "ui64": dtypes.Uint64,
	"f16": dtypes.Float16, "bf16": dtypes.BFloat16, "f32": dtypes.Float32, "f64": dtypes.Float64,
}

// tensor takes tensor<8x3xf32>.
func (p *parser) tensor() shapes.Shape {
	p.expect("tensor<")
	parts := strings.Split(p.word(), "x")
	p.expect(">")
	dtype, known := names[parts[len(parts)-1]]
	if !known {
		p.fail("an element type %q", parts[len(parts)-1])
	}
	var dims []int
	for _, d := range parts[:len(parts)-1] {
		n, err := strconv.Atoi(d)
		if err != nil {
			p.fail("a dimension %q", d)
		}
		dims = append(dims, n)
	}
	return shapes.Make(dtype, dims...)
}

// typed takes a tensor and its attributes.
func (p *parser) typed(name string) typed {
	t := typed{name: name, shape: p.tensor()}
	// The first axis is the only one that is ever cut: <@mesh, [{"axis"}, {}, {}]>.
	spec := p.attributes()["sdy.sharding"]
	t.cut = strings.Contains(spec, `[{"`)
	if strings.Count(spec, `"`) > 2 || !t.cut && strings.Contains(spec, `"`) {
		p.fail("%s is cut by %s, expected its first axis at most", name, spec)
	}
	return t
}

// module takes all of the text.
func (p *parser) module() *module {
	m := &module{devices: 1, funcs: map[string]*function{}}
	p.expect("module @")
	m.name = p.word()
	if p.accept("attributes") {
		attrs := p.attributes()
		if n, err := strconv.Atoi(attrs["stablehlo.num_partitions"]); err == nil {
			m.devices = n
		}
		if n := attrs["stablehlo.num_replicas"]; n != "" && n != "1" {
			p.fail("%s replicas, expected 1", n)
		}
	}
	p.expect("{")
	for !p.accept("}") {
		if p.accept("sdy.mesh @") {
			p.word()
			p.expect("=")
			p.expect("<[")
			p.list("]", func() { p.expect(`"`); p.word(); p.expect(`"`); p.expect("="); p.word() })
			p.expect(">")
			continue
		}
		p.expect("func.func @")
		name := p.word()
		if m.funcs[name] != nil {
			p.fail("a second function %s", name)
		}
		m.funcs[name] = p.function()
	}
	return m
}

// function takes (parameters) -> results { statements }.
func (p *parser) function() *function {
	f := &function{}
	p.expect("(")
	p.list(")", func() { f.params = append(f.params, p.param()) })
	p.expect("->")
	if p.accept("(") {
		p.list(")", func() { f.results = append(f.results, p.typed("a result")) })
	} else { // without attributes, for the brace that follows is the body's
		f.results = append(f.results, typed{shape: p.tensor()})
	}
	p.expect("{")
	p.body(f)
	return f
}

func (p *parser) param() typed {
	name := p.operand()
	p.expect(":")
	return p.typed(name)
}

// body takes statements and the brace behind them.
func (p *parser) body(f *function) {
	for !p.accept("}") {
		f.ops = append(f.ops, p.operation())
	}
	if len(f.ops) == 0 || f.ops[len(f.ops)-1].name != "stablehlo.return" {
		p.fail("a function does not end with a return")
	}
}

func (p *parser) operand() string {
	p.expect("%")
	return p.word()
}

func (p *parser) operation() *operation {
	o := &operation{}
	if p.next("%") {
		for o.out = append(o.out, p.operand()); p.accept(","); {
			o.out = append(o.out, p.operand())
		}
		p.expect("=")
	}
	p.next("")
	o.line = p.line()
	p.expect(`"`)
	o.name = p.word()
	p.expect(`"`)
	p.expect("(")
	p.list(")", func() { o.in = append(o.in, p.operand()) })
	if p.accept("(") {
		p.list(")", func() {
			f := &function{}
			p.expect("{")
			p.expect("^")
			p.word()
			p.expect("(")
			p.list(")", func() { f.params = append(f.params, p.param()) })
			p.expect(":")
			p.body(f)
			o.regions = append(o.regions, f)
		})
	}
	o.attrs = p.attributes()
	p.expect(":")
	p.expect("(")
	p.list(")", func() { p.tensor() })
	p.expect("->")
	if p.accept("(") {
		p.list(")", func() { o.shapes = append(o.shapes, p.tensor()) })
	} else {
		o.shapes = append(o.shapes, p.tensor())
	}
	if len(o.shapes) != len(o.out) {
		p.fail("%s has %d results of %d types", o.name, len(o.out), len(o.shapes))
	}
	return o
}

// attr is an attribute that must be there.
func (o *operation) attr(name string) string {
	v, found := o.attrs[name]
	if !found {
		panic(fault{fmt.Errorf("line %d: %s has no attribute %s", o.line, o.name, name)})
	}
	return v
}

// numbers are the whole numbers in an attribute: array<i64: 1, 2>, [1, 2], dense<[[0, 1]]> : tensor<1x2xi64>, 3 : i64.
func (o *operation) numbers(name string) []int { return o.numbersIn(o.attr(name)) }

func (o *operation) numbersIn(text string) []int {
	if i := strings.LastIndex(text, " : "); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimPrefix(text, "array<i64")
	all := []int{}
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \n,:[]<>", r) }) {
		if field == "dense" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil {
			panic(fault{fmt.Errorf("line %d: %s has %q, expected numbers", o.line, o.name, text)})
		}
		all = append(all, n)
	}
	return all
}

// field is the value of a field in an attribute such as #stablehlo.dot<a = [1], b = 2>.
func (o *operation) field(attr, name string) []int {
	_, rest, found := strings.Cut(o.attr(attr), name+" = ")
	if !found {
		panic(fault{fmt.Errorf("line %d: %s has no %s in its %s", o.line, o.name, name, attr)})
	}
	end := strings.IndexAny(rest, "\n>")
	if end < 0 {
		end = len(rest)
	}
	return o.numbersIn(strings.TrimSuffix(strings.TrimSpace(rest[:end]), ","))
}

// pairs are numbers two by two.
func (o *operation) pairs(name string) [][2]int {
	var all [][2]int
	for p := range slices.Chunk(o.numbers(name), 2) {
		all = append(all, [2]int{p[0], p[1]})
	}
	return all
}
