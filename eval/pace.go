package eval

import (
	"cmp"
	"slices"
	"time"

	"github.com/adaad-go/adaad/attack"
)

// pace foretells how long the rest of an evaluation takes. Images that fall early cost little and those that stand cost the
// most, and the first are done long before the second: an image under way counts as one that will stand.
type pace struct {
	full   int // work of an image that stands everything
	images int // to be attacked in this process
	flight int // images under way at a time

	last      time.Time // when the last call ended
	recent    []call    // the last calls, of which the oldest is replaced next
	oldest    int
	done      int
	work      int // done so far
	workOfAll int // of the finished images
}

// call is one call of the classifier with what the attacks did before it.
type call struct {
	took time.Duration
	work int
}

func (c call) perWork() float64 { return float64(c.took) / float64(c.work) }

const (
	recentCalls = 64 // how many tell the pace
	fewestCalls = 4  // before there is one
)

// called hears of a call that ended.
func (p *pace) called(c attack.Cost, now time.Time) {
	p.work += c.Work()
	latest := call{now.Sub(p.last), c.Work()}
	p.last = now
	if len(p.recent) < recentCalls {
		p.recent = append(p.recent, latest)
		return
	}
	p.recent[p.oldest] = latest
	p.oldest = (p.oldest + 1) % recentCalls
}

func (p *pace) finished(c attack.Cost) { p.done, p.workOfAll = p.done+1, p.workOfAll+c.Work() }

// remaining is the time that is left, 0 before anything is known.
func (p *pace) remaining() time.Duration {
	if len(p.recent) < fewestCalls || p.done == p.images {
		return 0
	}
	underWay := min(p.flight, p.images-p.done)
	mean := float64(p.workOfAll+underWay*p.full) / float64(p.done+underWay)
	all := mean * float64(p.images)
	return time.Duration(max(0, all-float64(p.work)) * p.perWork())
}

// perWork is how long a unit of work takes. The slowest quarter of the last calls is left out, and the fastest: in some a
// graph was compiled or the machine was busy with other things, which says nothing of those to come.
func (p *pace) perWork() float64 {
	calls := slices.SortedFunc(slices.Values(p.recent), func(a, b call) int { return cmp.Compare(a.perWork(), b.perWork()) })
	var took time.Duration
	work := 0
	for _, c := range calls[len(calls)/4 : len(calls)-len(calls)/4] {
		took, work = took+c.took, work+c.work
	}
	return float64(took) / float64(work)
}
