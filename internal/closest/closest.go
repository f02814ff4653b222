// Package closest finds the names that somebody may have meant.
package closest

import (
	"cmp"
	"slices"
)

// Names returns at most n of the candidates, those nearest to name first; candidates as far from it as it is long are
// left out.
func Names(name string, candidates []string, n int) []string {
	type scored struct {
		name     string
		distance int
	}
	var near []scored
	for _, c := range candidates {
		if d := distance(name, c); d < max(len(name), len(c)) {
			near = append(near, scored{c, d})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return cmp.Compare(a.distance, b.distance) })
	names := make([]string, 0, n)
	for _, s := range near[:min(n, len(near))] {
		names = append(names, s.name)
	}
	return names
}

// distance is the number of bytes to insert, delete or replace to make b of a (Levenshtein 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
