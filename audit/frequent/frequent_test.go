// SPDX-License-Identifier: Apache-2.0

package frequent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Counts are never too low, too high by no more than is said, and what is frequent is there.
func TestTable(t *testing.T) {
	var table Table[int]
	exact := map[string]uint64{}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		name := fmt.Sprint("rare", random.IntN(50_000))
		if i%100 == 0 {
			name = fmt.Sprint("frequent", i%300)
		}
		exact[name]++
		table.Add(name, 1).Value++
	}
	all := table.Items()
	if len(all) != MaxNames || !table.Full() {
		t.Errorf("%d names are kept; full: %t", len(all), table.Full())
	}
	for _, item := range all {
		if real := exact[item.Name]; real > item.Count || real < item.Count-item.Over {
			t.Errorf("%s: %d to %d, is %d", item.Name, item.Count-item.Over, item.Count, real)
		}
		if item.Value != int(item.Count-item.Over) {
			t.Errorf("%s: its value is of another name: %+v", item.Name, item)
		}
	}
	for i, item := range all[:3] {
		if !strings.HasPrefix(item.Name, "frequent") {
			t.Errorf("place %d has %+v", i, item)
		}
	}
}

// While there is room, all counts are exact.
func TestRoom(t *testing.T) {
	var table Table[struct{}]
	for i := range MaxNames {
		table.Add(fmt.Sprint(i), 1)
	}
	table.Add("7", 5)
	table.Add(strings.Repeat("x", MaxName+1), 0) // takes the place of one that occurred once
	all := table.Items()
	if all[0].Name != "7" || all[0].Count != 6 || all[0].Over != 0 || len(all) != MaxNames || !table.Full() {
		t.Errorf("first: %+v of %d", all[0], len(all))
	}
	if _, ok := table.byName[strings.Repeat("x", MaxName)]; !ok {
		t.Error("a long name is not cut")
	}
}
