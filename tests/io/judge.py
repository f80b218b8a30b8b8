"""Open and write volumes with ome-zarr and cloud-volume; run by the Python that has them, not by ours.

::

    python judge.py VERB PATH FOLDER        FOLDER holds the other half: facts.json and the values as .npy

`read-*` fills the folder with what the library says about the volume at PATH, in the library's own order and
units; `write-*` writes the values of the folder to PATH with the arguments in facts.json. This file knows nothing
of emloom, and nothing here converts anything.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read_ome(path: str, folder: Path) -> dict[str, Any]:
    """Save every level; facts: axes, transformations per level, name, how many levels."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (image,) = [node for node in Reader(parse_url(path))() if node.data]
    for k, level in enumerate(image.data):
        np.save(folder / f"{k}.npy", level.compute())
    return {**image.metadata, "levels": len(image.data)}


def write_ome(path: str, folder: Path) -> dict[str, Any]:
    """Write values.npy and coarser levels of it, which are saved too."""
    from ome_zarr.classes.image import OMEZarrImage, OMEZarrMultiscale, Scale, Translation

    said = json.loads((folder / "facts.json").read_text())
    image = OMEZarrImage(np.load(folder / "values.npy"), said["axes"], said["scale"], said["units"])
    whole = None
    if said["shift"]:
        whole = [
            Scale(type="scale", scale=said["zoom"]),
            Translation(type="translation", translation=said["shift"]),
        ]
    levels = OMEZarrMultiscale(image, said["factors"], "nearest", whole)
    levels.to_ome_zarr(path, version=said["version"], storage_options=said["storage"])
    return read_ome(path, folder)


def read_cloud(path: str, folder: Path) -> dict[str, Any]:
    """Save every scale [X, Y, Z, C]; facts of each: bounds in voxels, resolution in nm, what it is."""
    import cloudvolume

    said = []
    for mip in range(len(cloudvolume.CloudVolume(f"file://{path}", progress=False).scales)):
        # As users open it: a chunk that is missing is an error.
        volume = cloudvolume.CloudVolume(f"file://{path}", mip=mip, progress=False)
        np.save(folder / f"{mip}.npy", np.asarray(volume[:]))
        facts = {"low": volume.bounds.minpt, "high": volume.bounds.maxpt, "resolution": volume.resolution}
        said.append({name: [float(v) for v in values] for name, values in facts.items()})
        said[-1] |= {"dtype": np.dtype(volume.dtype).name, "type": volume.layer_type, "encoding": volume.encoding}
    return {"scales": said}


def write_cloud(path: str, folder: Path) -> dict[str, Any]:
    """Write values.npy, which is [X, Y, Z, C]; facts: the rest of its info, `compress`, `sharded`."""
    import cloudvolume

    said = json.loads((folder / "facts.json").read_text())
    values = np.load(folder / "values.npy")
    info = cloudvolume.CloudVolume.create_new_info(
        num_channels=values.shape[3], data_type=values.dtype.name, volume_size=values.shape[:3], **said["info"]
    )
    volume = cloudvolume.CloudVolume(f"file://{path}", info=info, compress=said["compress"], progress=False)
    if said["sharded"]:
        volume.image.to_sharded()
    volume.commit_info()
    volume[:] = values
    return {}


VERBS = {"read-ome": read_ome, "write-ome": write_ome, "read-cloud": read_cloud, "write-cloud": write_cloud}

if __name__ == "__main__":
    verb, path, folder = sys.argv[1:]
    facts = VERBS[verb](path, Path(folder))
    (Path(folder) / "facts.json").write_text(json.dumps(facts, default=int))
