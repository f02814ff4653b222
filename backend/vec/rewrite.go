package vec

import "github.com/gomlx/compute"

// rewrite gives an operation that GoMLX writes in a roundabout way its direct form. relu has the results of max(0, x) so
// far, and is given that of n.
//
// GoMLX's gradient of max(a, b) multiplies by indicators sign(sign(a-b)+1), 1 where a ≥ b, and 1 less that.
func rewrite(n *node, relu map[*value]*value) {
	if len(n.in) != 2 || len(n.out) != 1 || !isFloat(n.out[0]) {
		return
	}
	zero := func(v *value) bool { x, ok := constant(v); return ok && x == 0 }
	one := func(v *value) bool { x, ok := constant(v); return ok && x == 1 }
	made := func(v *value, op compute.OpType) *node {
		if v.node != nil && v.node.op == op {
			return v.node
		}
		return nil
	}
	switch n.op {
	case compute.OpTypeMax:
		for i, v := range n.in {
			if other := n.in[1-i]; zero(v) && other.shape.Equal(n.out[0].shape) && relu[other] == nil {
				relu[other] = n.out[0]
			}
		}

	case compute.OpTypeSub:
		// 1 - sign(sign(a-b)+1) is 1 where b > a.
		sign := made(n.in[1], compute.OpTypeSign)
		if sign == nil || !one(n.in[0]) {
			return
		}
		add := made(sign.in[0], compute.OpTypeAdd)
		if add == nil {
			return
		}
		inner := made(add.in[0], compute.OpTypeSign)
		if inner == nil || !one(add.in[1]) {
			inner = made(add.in[1], compute.OpTypeSign)
			if inner == nil || !one(add.in[0]) {
				return
			}
		}
		diff := made(inner.in[0], compute.OpTypeSub)
		if diff == nil || !diff.out[0].shape.Equal(n.out[0].shape) {
			return
		}
		a, b := diff.in[0], diff.in[1]
		if zero(a) && relu[b] != nil {
			b = relu[b] // above 0 where b is, and stored anyway
		}
		n.op, n.attr, n.in = opAbove, nil, []*value{b, a}

	case compute.OpTypeMul:
		// v times the indicator of x > 0.
		for i, v := range n.in {
			above := made(n.in[1-i], opAbove)
			if above != nil && zero(above.in[1]) && above.in[0].shape.Equal(n.out[0].shape) && v.shape.Equal(n.out[0].shape) {
				n.op, n.attr, n.in = opGate, nil, []*value{v, above.in[0]}
				return
			}
		}
	}
}

// unchanged is the operand that an operation leaves as it is: x of x·1, 1·x and x/1, which gradients of sums are made of.
func unchanged(n *node) *value {
	if n.op != compute.OpTypeMul && n.op != compute.OpTypeDiv {
		return nil
	}
	for i, v := range n.in {
		if one, ok := constant(n.in[1-i]); ok && one == 1 && v.shape.Equal(n.out[0].shape) && (i == 0 || n.op == compute.OpTypeMul) {
			return v
		}
	}
	return nil
}
