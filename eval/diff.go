package eval

// Comparison is what two evaluations of the same images differ in.
type Comparison struct {
	Suites []SuiteDifference
	Images []Difference // those that only one of the two answers right, under the first suite where they differ
}

// SuiteDifference counts images answered right under a suite, or clean, in both evaluations, in one only, in neither.
type SuiteDifference struct {
	Name                         string
	Both, First, Second, Neither int
}

// Difference is an image that one evaluation answers right and the other does not.
type Difference struct {
	Index  int    `json:"index"`
	Label  int    `json:"label"`
	Under  string `json:"under"`  // "clean" or the suite
	First  string `json:"first"`  // what broke it there, "" where it stands
	Second string `json:"second"` // likewise
}

// Diff compares two evaluations image by image, under what both have measured. Images that only one has are left out.
func Diff(a, b *Result) Comparison {
	type pair struct{ a, b int } // a suite's place in either; -1 is clean
	suites, names := []pair{{-1, -1}}, []string{"clean"}
	for i, s := range a.Header.Attacks {
		for j, t := range b.Header.Attacks {
			if s.Name == t.Name {
				suites, names = append(suites, pair{i, j}), append(names, s.Name)
			}
		}
	}
	other := map[int]Row{}
	for _, row := range b.Rows {
		other[row.Index] = row
	}
	c := Comparison{Suites: make([]SuiteDifference, len(suites))}
	for i, name := range names {
		c.Suites[i].Name = name
	}
	for _, row := range a.Rows {
		match, ok := other[row.Index]
		if !ok {
			continue
		}
		told := false
		for i, s := range suites {
			first, second := row.brokenUnder(s.a), match.brokenUnder(s.b)
			d := &c.Suites[i]
			switch {
			case first == "" && second == "":
				d.Both++
			case first == "":
				d.First++
			case second == "":
				d.Second++
			default:
				d.Neither++
			}
			if (first == "") != (second == "") && !told {
				told = true
				c.Images = append(c.Images, Difference{row.Index, row.Label, names[i], first, second})
			}
		}
	}
	return c
}

// brokenUnder is the attack that broke the image under a suite, "clean" where it needed none, "" where it stands.
func (r *Row) brokenUnder(suite int) string {
	switch {
	case r.Prediction != r.Label:
		return "clean"
	case suite >= 0 && r.Attacks[suite].Broken:
		return r.Attacks[suite].Attack
	}
	return ""
}
