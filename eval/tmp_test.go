package eval
import "github.com/adaad-go/adaad/attack"
func one(a attack.Attack) attack.Suite {
	return attack.Suite{Name: a.Name(), Attacks: []attack.Attack{a}}
}
