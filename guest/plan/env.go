// SPDX-License-Identifier: Apache-2.0

package plan

// MergeEnv puts the variables of moved, which are in ascending order of Index, back into env.
// An index past the end means the end.
func MergeEnv(env []string, moved []EnvVar) []string {
	if len(moved) == 0 {
		return env
	}
	out := make([]string, 0, len(env)+len(moved))
	for _, m := range moved {
		for len(out) < m.Index && len(env) > 0 {
			out, env = append(out, env[0]), env[1:]
		}
		out = append(out, m.Var)
	}
	return append(out, env...)
}
