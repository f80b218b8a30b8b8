"""Every effect of augmentation by itself, at a strength that is easily seen: for the eye, not for training."""

from __future__ import annotations

from emloom.nn.augment import (
    AffineSpec,
    AugmentSpec,
    BlurSpec,
    BoxesSpec,
    DefectSpec,
    ElasticSpec,
    FoldSpec,
    IntensitySpec,
    LibrarySpec,
    SectionsSpec,
)
from emloom.nn.draw import Frame

_ANISOTROPIC = 2.0


def one_at_a_time(frame: Frame, library: LibrarySpec | None = None) -> dict[str, AugmentSpec]:
    """Return title -> augmentation with a single effect, scaled to the extent of a frame's output.

    Args:
        frame: of the samples.
        library: where artifacts come from; without it they are left out.
    """
    side = min(n * size for n, size in zip(frame.output[1:], frame.spacing_nm[1:], strict=True))
    return {
        "nothing": AugmentSpec.none(),
        **_geometry(frame, side),
        **_grey_values(),
        **_defects(side, library),
    }


def _only(**effect: object) -> AugmentSpec:
    return AugmentSpec.none().model_copy(update=effect)


def _geometry(frame: Frame, side_nm: float) -> dict[str, AugmentSpec]:
    z, y, x = frame.spacing_nm
    bend = side_nm / 30
    sigma = (0.0 if z > _ANISOTROPIC * min(y, x) else bend, bend, bend)
    lattice = max(side_nm / 5, 4 * max(y, x))
    return {
        "flip, transpose": _only(flip=True, transpose=True),
        "affine: rotation": _only(affine=AffineSpec(rotation_deg=(30, 30))),
        "affine: scale, shear": _only(affine=AffineSpec(scale=(1.3, 1.3), shear_deg=(20, 20))),
        "elastic": _only(elastic=ElasticSpec(spacing_nm=(lattice, lattice, lattice), sigma_nm=sigma)),
        "sections: slip": _only(sections=SectionsSpec(slip=0.4, largest_nm=side_nm / 8)),
        "sections: slip, labels stay": _only(
            sections=SectionsSpec(slip=0.4, largest_nm=side_nm / 8, slip_moves_labels=False)
        ),
        "sections: shift": _only(sections=SectionsSpec(shift=0.4, largest_nm=side_nm / 10)),
    }


def _grey_values() -> dict[str, AugmentSpec]:
    def tone(**changes: object) -> AugmentSpec:
        return _only(intensity=AugmentSpec.none().intensity.model_copy(update=changes))

    return {
        "intensity: contrast": tone(contrast=(0.5, 0.5)),
        "intensity: brightness": tone(brightness=(0.4, 0.4)),
        "intensity: gamma": tone(gamma=(2.0, 2.0)),
        "intensity per section": _only(
            intensity=IntensitySpec(contrast=(0.6, 1.4), brightness=(-0.3, 0.3), gamma=(0.6, 1.7), scope="section")
        ),
        "noise": _only(noise=0.4),
    }


def _defects(side_nm: float, library: LibrarySpec | None) -> dict[str, AugmentSpec]:
    def defect(**changes: object) -> AugmentSpec:
        return _only(defects=DefectSpec.model_validate(changes))

    def blur(**changes: object) -> AugmentSpec:
        return _only(blur=BlurSpec.model_validate(changes))

    far, near = side_nm / 20, side_nm / 40
    fold = {"strength_nm": side_nm / 12, "width_nm": side_nm / 15}
    out = {
        "blur: gaussian": blur(gaussian=1, sigma_nm=(near, near)),
        "blur: gaussian, partial": blur(gaussian=1, sigma_nm=(far, far), partial=1),
        "blur: motion": blur(motion=1, length_nm=(2 * far, 2 * far)),
        "defects: missing": defect(missing=0.5),
        "defects: missing, partial": defect(missing=1, partial=1, fill="random"),
        "defects: low contrast": defect(low_contrast=1),
        "defects: fold": defect(fold=1, folds=FoldSpec.model_validate(fold)),
        "defects: fold that moves labels": defect(
            fold=1, folds=FoldSpec.model_validate({**fold, "moves_labels": True})
        ),
        "boxes": _only(boxes=BoxesSpec(probability=1, share=0.3, size_nm=(side_nm / 12, side_nm / 4))),
    }
    if library is not None:
        out["defects: artifact"] = defect(artifact=1, library=library)
    return out
