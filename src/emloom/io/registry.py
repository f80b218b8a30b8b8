"""Public electron-microscopy sets: what they show, what is labelled, on which terms, and where the files are.

A table of facts and nothing else; `io.datasets` finds and downloads. Three rules keep it honest:

- A checksum stands here only where somebody published it; `source` says who. Otherwise it is None, and the first
  download is pinned by the reader's own computer.
- `size_bytes` is exact or None; `about_bytes` is what a page says in rounded numbers, for the eye only.
- A voxel size we could not read anywhere is None. Names of sets are names of folders, also under ``EMLOOM_DATA``.
"""

from __future__ import annotations

from dataclasses import dataclass

_TORCH_EM = "torch-em dataset modules (MIT), urls and sha256"
_PYTC = "PyTorch Connectomics tutorials"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a set.

    Attributes:
        name: file name in the folder of the set.
        url: where it is downloaded from.
        checksum: `sha256:...` or `md5:...` as published; None where none was found.
        size_bytes: exact size, None where not published.
        about_bytes: rounded size a page states, 0 where none.
    """

    name: str
    url: str
    checksum: str | None = None
    size_bytes: int | None = None
    about_bytes: int = 0


@dataclass(frozen=True)
class DataSet:
    """One public set.

    Attributes:
        name: what a person types; also the folder's name.
        title: tissue and microscope.
        labels: what is annotated.
        voxel_size_nm: (z, y, x), None where not known to us.
        licence: terms of use as far as we could read them.
        citation: DOI or arXiv number of the publication to cite.
        homepage: where a person reads on, and downloads by hand.
        files: what `fetch` downloads; empty where there is no direct link.
        source: where checksums, sizes and links were read.
        note: what one has to know before trusting the numbers.
    """

    name: str
    title: str
    labels: str
    voxel_size_nm: tuple[float, float, float] | None
    licence: str
    citation: str
    homepage: str
    files: tuple[RemoteFile, ...]
    source: str
    note: str = ""

    @property
    def about_bytes(self) -> int | None:
        """Size of all files, partly rounded; None where any of them is unknown."""
        sizes = [file.size_bytes or file.about_bytes for file in self.files]
        return sum(sizes) if sizes and all(sizes) else None


def _cremi(sample: str, sha256: str, megabytes: int) -> DataSet:
    return DataSet(
        name=f"cremi_{sample.lower()}",
        title=f"CREMI sample {sample}: adult fly brain, serial-section TEM, 125 x 1250 x 1250",
        labels="neurons, synaptic clefts, pre- and postsynaptic partners",
        voxel_size_nm=(40.0, 4.0, 4.0),
        licence="not stated where we could read it: see the homepage",
        citation="https://cremi.org (Funke, Saalfeld, Bock, Turaga, Perlman: MICCAI 2016 challenge)",
        homepage="https://cremi.org/data/",
        files=(
            RemoteFile(
                f"sample_{sample}_20160501.hdf",
                f"https://cremi.org/static/data/sample_{sample}_20160501.hdf",
                f"sha256:{sha256}",
                about_bytes=megabytes * 10**6,
            ),
        ),
        source=_TORCH_EM,
        note="the server's certificate has been expired at times; emloom does not download past that",
    )


def _cremi_padded(sample: str) -> DataSet:
    return DataSet(
        name=f"cremi_{sample.lower()}_padded",
        title=f"CREMI sample {sample} with context: raw 200 x 3072 x 3072 around the same labels",
        labels="neurons, synaptic clefts, pre- and postsynaptic partners (inner 125 x 1250 x 1250)",
        voxel_size_nm=(40.0, 4.0, 4.0),
        licence="not stated where we could read it: see the homepage",
        citation="https://cremi.org (Funke, Saalfeld, Bock, Turaga, Perlman: MICCAI 2016 challenge)",
        homepage="https://cremi.org/data/",
        files=(
            RemoteFile(
                f"sample_{sample}_padded_20160501.hdf",
                f"https://cremi.org/static/data/sample_{sample}_padded_20160501.hdf",
            ),
        ),
        source="link of sample A: Paintera README; B and C follow the same pattern",
        note="labels and annotations carry an offset of their own inside the raw volume",
    )


_FIB25 = "https://storage.googleapis.com/ffn-flyem-fib25"
_EPFL = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus"
_PYTC_FILES = "https://huggingface.co/datasets/pytc"
_EPFL_CROP_BYTES = 129_919_357


def _fib25(path: str, sha256: str) -> RemoteFile:
    return RemoteFile(path.replace("/", "_"), f"{_FIB25}/{path}", f"sha256:{sha256}")


def _mitoem(name: str, title: str, image: RemoteFile, labels: RemoteFile) -> DataSet:
    return DataSet(
        name=name,
        title=title,
        labels="mitochondria (instances; training and validation sections)",
        voxel_size_nm=(30.0, 8.0, 8.0),
        licence="MIT (the Hugging Face page)",
        citation="doi:10.1007/978-3-030-59722-1_7",
        homepage="https://mitoem.grand-challenge.org/",
        files=(image, labels),
        source=_TORCH_EM + "; rounded sizes: Hugging Face pytc/EM30 and pytc/MitoEM",
    )


def _axonem(sample: str, tissue: str, sha256: str, megabytes: int) -> DataSet:
    file = f"EM30-{sample}-train-9vol-pad-20-512-512.zip"
    return DataSet(
        name=f"axonem_{sample.lower()}",
        title=f"AxonEM-{sample}: {tissue} cortex, nine padded training volumes",
        labels="neurons and axons (instances)",
        voxel_size_nm=None,
        licence="MIT (the Hugging Face page)",
        citation="doi:10.1007/978-3-030-87193-2_17",
        homepage="https://axonem.grand-challenge.org/",
        files=(
            RemoteFile(
                file,
                f"{_PYTC_FILES}/AxonEM/resolve/main/{file}",
                f"sha256:{sha256}",
                about_bytes=megabytes * 10**6,
            ),
        ),
        source=_TORCH_EM + "; rounded sizes: Hugging Face pytc/AxonEM",
    )


_SETS = (
    _cremi("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d", 167),
    _cremi("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8", 160),
    _cremi("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052", 165),
    _cremi_padded("A"),
    _cremi_padded("B"),
    _cremi_padded("C"),
    DataSet(
        name="snemi3d",
        title="SNEMI3D: mouse cortex, ATUM scanning EM, 100 x 1024 x 1024 (train) and test images",
        labels="neurons (training stack only)",
        voxel_size_nm=(30.0, 6.0, 6.0),
        licence="CC BY 4.0 (the Zenodo record); ODC-By 1.0 (the challenge)",
        citation="doi:10.1016/j.cell.2015.06.054, doi:10.5281/zenodo.7142003",
        homepage="https://zenodo.org/records/7142003",
        files=(
            RemoteFile(
                "snemi.zip",
                "https://zenodo.org/records/7142003/files/snemi.zip",
                "md5:3d25a7025f66698f33c7850ace885939",
                about_bytes=194_600_000,
            ),
        ),
        source=_PYTC + " (md5 of the Zenodo record)",
        note="sections are 29 or 30 nm apart, depending on whom one reads",
    ),
    DataSet(
        name="isbi2012_cardona",
        title="ISBI-2012 (Cardona 2010): fly nerve cord, serial-section TEM, 30 x 512 x 512",
        labels="membranes, and neurons derived from them",
        voxel_size_nm=(50.0, 4.0, 4.0),
        licence="free for making and testing non-commercial segmentation software (terms of the authors)",
        citation="doi:10.1371/journal.pbio.1000502, doi:10.3389/fnana.2015.00142",
        homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
        files=(
            RemoteFile(
                "isbi.h5",
                "https://oc.embl.de/index.php/s/h0TkwqxU0PJDdMd/download",
                "sha256:0e10fe909a1243084d91773470856993b7d40126a12e85f0f1345a7a9e512f29",
            ),
        ),
        source=_TORCH_EM,
        note="the file states no voxel size: pass --voxel-size 50,4,4",
    ),
    DataSet(
        name="epfl_hippocampus",
        title="EPFL CVLab (Lucchi): rat hippocampus CA1, FIB-SEM; 1065 x 1536 x 2048 and two labelled crops",
        labels="mitochondria (binary, in the training and the testing crop of 165 x 768 x 1024)",
        voxel_size_nm=(5.0, 5.0, 5.0),
        licence="no explicit licence; cite Lucchi 2013",
        citation="doi:10.1109/CVPR.2013.259",
        homepage="https://www.epfl.ch/labs/cvlab/data/data-em/",
        files=(
            RemoteFile("volumedata.tif", f"{_EPFL}/volumedata.tif", None, 3_353_674_357),
            RemoteFile("training.tif", f"{_EPFL}/training.tif", None, _EPFL_CROP_BYTES),
            RemoteFile("training_groundtruth.tif", f"{_EPFL}/training_groundtruth.tif", None, _EPFL_CROP_BYTES),
            RemoteFile("testing.tif", f"{_EPFL}/testing.tif", None, _EPFL_CROP_BYTES),
            RemoteFile("testing_groundtruth.tif", f"{_EPFL}/testing_groundtruth.tif", None, _EPFL_CROP_BYTES),
        ),
        source="sizes: academictorrents.com 3ada3ae6ec71097e63d897cf878051bba3eaba25",
    ),
    DataSet(
        name="lucchi_pp",
        title="Lucchi++: the EPFL crops with corrected mitochondria",
        labels="mitochondria (binary)",
        voxel_size_nm=(5.0, 5.0, 5.0),
        licence="not stated where we could read it: see the homepage",
        citation="arXiv:1812.06024",
        homepage="https://sites.google.com/view/connectomics/",
        files=(
            RemoteFile(
                "lucchi_pp.zip",
                "http://www.casser.io/files/lucchi_pp.zip",
                "sha256:770ce9e98fc6f29c1b1a250c637e6c5125f2b5f1260e5a7687b55a79e2e8844d",
            ),
        ),
        source=_TORCH_EM,
    ),
    DataSet(
        name="kasthuri_pp",
        title="Kasthuri++: mouse cortex, ATUM scanning EM, with corrected mitochondria",
        labels="mitochondria (binary); a third value marks voxels outside the images",
        voxel_size_nm=None,
        licence="not stated where we could read it: see the homepage",
        citation="arXiv:1812.06024, doi:10.1016/j.cell.2015.06.054",
        homepage="https://sites.google.com/view/connectomics/",
        files=(
            RemoteFile(
                "kasthuri_pp.zip",
                "http://www.casser.io/files/kasthuri_pp.zip",
                "sha256:bbb78fd205ec9b57feb8f93ebbdf1666261cbc3e0305e7f11583ab5157a3d792",
            ),
        ),
        source=_TORCH_EM,
    ),
    DataSet(
        name="vnc_sstem",
        title="Fly ventral nerve cord, serial-section TEM, two stacks of 20 x 1024 x 1024",
        labels="nine classes, membranes, mitochondria, synapses (stack 1 only)",
        voxel_size_nm=(47.5, 4.6, 4.6),
        licence="CC BY-NC-SA 3.0",
        citation="doi:10.6084/m9.figshare.856713",
        homepage="https://github.com/unidesigner/groundtruth-drosophila-vnc",
        files=(
            RemoteFile(
                "groundtruth-drosophila-vnc.zip",
                "https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/refs/heads/master.zip",
                "sha256:f7bd0db03c86b64440a16b60360ad60c0a4411f89e2c021c7ee2c8d6af3d7e86",
            ),
        ),
        source=_TORCH_EM,
        note="sections are 45 to 50 nm thick",
    ),
    DataSet(
        name="fib25",
        title="FIB-25: fly medulla, FIB-SEM, three labelled volumes",
        labels="neurons: supervoxels in `stack`, merged by the table `transforms`",
        voxel_size_nm=(8.0, 8.0, 8.0),
        licence="CC BY",
        citation="doi:10.1073/pnas.1509820112",
        homepage="https://github.com/google/ffn",
        files=(
            _fib25(
                "training_sample2/grayscale_maps.h5",
                "ea031c98ee2de778a9a3a1e6d410df5de73e4ac28022df8e7255d84e3394cafa",
            ),
            _fib25(
                "training_sample2/groundtruth.h5",
                "fd508e7aee1fe51ac9ae0460db4a841d275236f013c1f2552314b4f21b1010ea",
            ),
            _fib25(
                "validation_sample/grayscale_maps.h5",
                "400ccb2a7268a3880c63656e0d794f8e6252e62031869455cc8caeef245b2a83",
            ),
            _fib25(
                "validation_sample/groundtruth.h5",
                "2c5e31af0af5476bc9669b88d01a4570a26eb020799eaf6131aa75f2f7d92e98",
            ),
            _fib25("tstvol-520-1/raw.h5", "0667e701c8b4464003d8a6cb0cf9deb2aa79fb415ec51deeac92e5f9c67a5a66"),
            _fib25(
                "tstvol-520-1/groundtruth.h5",
                "ae61ae78a9874eb35ae8e5ed29b4cbfe7bbd07a61789ddb70aef4deb2532eb4e",
            ),
        ),
        source=_TORCH_EM,
        note="papers say 8 nm, the README beside the training sample 10 nm",
    ),
    _axonem("H", "human", "0b53d155ff62f5e24c552bf90adce329fcf9a8fefd5c697f8bcd0312a61fda60", 1800),
    _axonem("M", "mouse", "dae06b5dabe388ab7a0ff4e51548174f041a338d0d06bd665586aa7fdd43bac2", 1940),
    _mitoem(
        "mitoem_r",
        "MitoEM-R: rat cortex, 30 um cube",
        RemoteFile(
            "EM30-R-im.zip",
            f"{_PYTC_FILES}/EM30/resolve/main/EM30-R-im.zip",
            "sha256:6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
            about_bytes=14_000_000_000,
        ),
        RemoteFile(
            "EM30-R-mito-train-val-v2.zip",
            f"{_PYTC_FILES}/MitoEM/resolve/main/EM30-R-mito-train-val-v2.zip",
            "sha256:c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
            about_bytes=66_600_000,
        ),
    ),
    _mitoem(
        "mitoem_h",
        "MitoEM-H: human cortex, 30 um cube",
        RemoteFile(
            "EM30-H-im.zip",
            "https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",
            "sha256:98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
        ),
        RemoteFile(
            "EM30-H-mito-train-val-v2.zip",
            "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1",
            "sha256:0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
            about_bytes=55_900_000,
        ),
    ),
    DataSet(
        name="nucmm",
        title="NucMM: zebrafish brain (EM) and mouse visual cortex (micro-CT)",
        labels="neuronal nuclei (instances)",
        voxel_size_nm=None,
        licence="MIT (the Hugging Face page)",
        citation="doi:10.1007/978-3-030-87193-2_16",
        homepage="https://huggingface.co/datasets/pytc/NucMM",
        files=(),
        source=_TORCH_EM + " (a folder on Google Drive)",
        note="no direct link to files is known to us",
    ),
)

REGISTRY: dict[str, DataSet] = {entry.name: entry for entry in _SETS}
"""All sets by name."""
