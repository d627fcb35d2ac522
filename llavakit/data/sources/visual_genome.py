"""Visual Genome (arXiv:1602.07332), region descriptions: at most ten an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field

from llavakit.data.boxes import Region
from llavakit.data.reader import Dropped, Options, Reader, Rule, Talk, Talks, file_of
from llavakit.data.rules import image_folder, limited_regions, padded_square_boxes, region_questions
from llavakit.data.stream import items


class VisualGenomeOptions(Options):
    folder: str = "vg"
    limit: int = Field(10, gt=0)


class VisualGenome(Reader[VisualGenomeOptions]):
    """The images lie in two folders, VG_100K and VG_100K_2; ``image_data.json`` says in which, and their sizes."""

    name = "visual_genome"
    files = ("region_descriptions.json", "image_data.json")
    get = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html (region descriptions, image meta data, images)"
    options = VisualGenomeOptions
    differs = "one conversation an image; which of the 108,077 images were left out of the published mix was never said"

    def read(self, data: Path, options: VisualGenomeOptions, dropped: Dropped) -> Talks:
        descriptions, pictures = (file_of(data, name) for name in self.files)
        known = {}
        for item in items(pictures):
            picture = item.value
            name = "/".join(PurePosixPath(picture["url"]).parts[-2:])
            known[picture["image_id"]] = (name, picture["width"], picture["height"])
        talks = []
        for item in items(descriptions):
            number = item.value["id"]
            if number not in known:
                dropped("image without a size")
                continue
            name, width, height = known[number]
            regions = []
            for r in item.value["regions"]:
                if r["phrase"].strip() and r["width"] > 0 and r["height"] > 0:
                    regions.append(Region(r["x"], r["y"], r["width"], r["height"], r["phrase"].strip()))
                else:
                    dropped("region without a phrase or an area")
            if regions:
                talks.append(Talk(str(number), images=(name,), extra={"regions": regions, "size": (width, height)}))
            else:
                dropped("image without a region")
        return talks

    def rules(self, options: VisualGenomeOptions) -> Sequence[Rule]:
        return [
            limited_regions(options.limit),
            padded_square_boxes(),
            region_questions(),
            image_folder(options.folder),
        ]


SOURCE = VisualGenome()
