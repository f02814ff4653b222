package eval

import (
	"time"

	"github.com/adaad-go/adaad/attack"
)

// pace foretells how long the rest of an evaluation takes. Images that fall early cost little and those that stand cost the
// most, and the first are done long before the second: an image under way counts as one that will stand.
type pace struct {
	started time.Time
	full    int // work of an image that stands everything
	images  int // to be attacked in this process

	flight    int // images under way at a time
	done      int
	work      int // done so far
	workOfAll int // of the finished images
}

func (p *pace) called(c attack.Cost) { p.work += c.Work() }

func (p *pace) finished(c attack.Cost) { p.done, p.workOfAll = p.done+1, p.workOfAll+c.Work() }

// remaining is the time that is left, 0 before anything is known.
func (p *pace) remaining() time.Duration {
	if p.work == 0 || p.done == p.images {
		return 0
	}
	underWay := min(p.flight, p.images-p.done)
	mean := float64(p.workOfAll+underWay*p.full) / float64(p.done+underWay)
	all := mean * float64(p.images)
	perWork := float64(time.Since(p.started)) / float64(p.work)
	return time.Duration(max(0, all-float64(p.work)) * perWork)
}
