from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.ops.exclusions import PARENT, exclude, excluded, new_exclusions, root_of, unite


def root(state, node):
    return root_of(state.nodes[:, PARENT], node)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), nodes=st.integers(2, 400), merging=st.floats(0.01, 0.5))
def test_sets_and_exclusions_are_those_of_python_sets(seed, nodes, merging):
    # Many more exclusions than the first tables hold, so that they grow and are swept in between.
    rng = np.random.default_rng(seed)
    state = new_exclusions(nodes)
    of = list(range(nodes))
    barred = set()
    for _ in range(4000):
        u, v = map(int, rng.integers(0, nodes, 2))
        a, b = root(state, u), root(state, v)
        assert (a == b) == (of[u] == of[v])
        if a == b:
            continue
        pair = frozenset((of[u], of[v]))
        assert excluded(state.table, a, b) == excluded(state.table, b, a) == (pair in barred)
        if rng.random() > merging:
            state = exclude(state, a, b)
            barred.add(pair)
        elif pair not in barred:
            state, kept = unite(state, a, b)
            assert kept in (a, b)
            kept_name, lost = of[u], of[v]
            of = [kept_name if name == lost else name for name in of]
            barred = {frozenset(kept_name if name == lost else name for name in pair) for pair in barred}
    for u in range(min(nodes, 60)):
        for v in range(u):
            a, b = root(state, u), root(state, v)
            same = of[u] == of[v]
            assert (a == b) == same
            assert same or excluded(state.table, a, b) == (frozenset((of[u], of[v])) in barred)


def test_a_merged_set_excludes_what_either_did():
    state = new_exclusions(6)
    state = exclude(state, 1, 4)
    state = exclude(state, 2, 5)
    state, top = unite(state, 1, 2)
    assert excluded(state.table, top, 4)
    assert excluded(state.table, top, 5)
    assert not excluded(state.table, 4, 5)
