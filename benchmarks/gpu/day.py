"""The benchmark of one GPU: sections in order, cut by the time, results written after each one.

    day = Day(out, sizes, card, about)
    day.measure(sections(presets), seconds=540)

The folder holds gpu.json, gpu.md, page.html, what each section printed, and the folders of `framelens bench
scd`. The same folder again measures what is missing.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from framelens.benchmarks.gpu.limit import stop_after
from framelens.benchmarks.gpu.readings import CannotMeasure
from framelens.benchmarks.gpu.report import page, table_text
from framelens.benchmarks.gpu.sections import Section
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.records import read_json_object, write_json, write_text

FILE, KIND = "gpu.json", "gpu benchmark"
MEASURED, NOT_MEASURED, FAILED = "measured", "not measured", "failed"
NO_TIME = "no time left"


class Day:
    """The results of one GPU in a folder; ValueError for a folder with those of another one."""

    def __init__(self, out: Path, sizes: DaySizes, card: str, about: Mapping[str, Any]):
        self.out, self.sizes = out, sizes
        self.document = {
            "kind": KIND,
            "card": card,
            "is_rehearsal": sizes.is_rehearsal,
            **about,
            "sections": {},
        }
        if (out / FILE).exists():
            self.document["sections"] = self._read_earlier(card)

    def _read_earlier(self, card: str) -> dict[str, Any]:
        """The sections that an earlier command measured there."""
        found = read_json_object(self.out / FILE)
        if found.get("kind") != KIND or not isinstance(found.get("sections"), dict):
            raise ValueError(f"{self.out / FILE} is not of `framelens bench gpu`: choose another --out")
        ours = (card, self.sizes.is_rehearsal)
        if (found.get("card"), found.get("is_rehearsal")) != ours:
            kind = "a rehearsal" if found.get("is_rehearsal") else "results"
            raise ValueError(f"{self.out} holds {kind} of {found.get('card')}: choose another --out")
        return found["sections"]

    def missing(self, planned: Sequence[Section]) -> list[Section]:
        """Those that are not measured yet."""
        done = self.document["sections"]
        return [each for each in planned if done.get(each.name, {}).get("status") != MEASURED]

    def measure(
        self, planned: Sequence[Section], seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> bool:
        """Measures what is missing and fits into these seconds; whether no section failed.

        ValueError, before anything is written, where not one missing section fits.
        """
        end, missing = clock() + seconds, self.missing(planned)
        least = min((section.cost(self.sizes) for section in missing), default=0)
        if least > seconds:
            raise ValueError(
                f"{max(0, seconds):.0f} seconds are too short: the shortest section that is missing takes "
                f"about {least:g} seconds; give more --minutes"
            )
        for section in missing:
            left = end - clock()
            if section.cost(self.sizes) > left:
                needed = f"it takes about {section.cost(self.sizes):g} seconds, {max(0, left):.0f} are left"
                why = f"{NO_TIME}: {needed}"
                self._keep(section, {"status": NOT_MEASURED, "why": why})
            else:
                print(f"{section.title} (about {section.cost(self.sizes):g} s)", flush=True)
                self._keep(section, self._run(section, clock, left))
        self._write(planned)
        return all(each.get("status") != FAILED for each in self.document["sections"].values())

    def _run(self, section: Section, clock: Callable[[], float], left: float) -> dict[str, Any]:
        """The result of one section, which is stopped when no time is left; a file has what it prints."""
        began = clock()
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{section.name}.txt").open("w", encoding="utf-8") as log, redirect_stdout(log):
            found = self._try(section, left)
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU
        return found | {"seconds": clock() - began}

    def _try(self, section: Section, left: float) -> dict[str, Any]:
        try:
            with stop_after(left):
                readings = section.measure(self.sizes, self.out)
        except CannotMeasure as reason:
            return {"status": NOT_MEASURED, "why": str(reason)}
        except Exception as error:  # noqa: BLE001 - a section that fails must not cost the others their time
            return {"status": FAILED, "why": f"{type(error).__name__}: {error}"}
        return {"status": MEASURED, "readings": [asdict(reading) for reading in readings]}

    def _keep(self, section: Section, found: dict[str, Any]) -> None:
        self.document["sections"][section.name] = {"title": section.title, **found}
        self._write([])

    def _write(self, planned: Sequence[Section]) -> None:
        """Writes JSON, table and page; sections in the planned order, then those of other presets."""
        held = self.document["sections"]
        order = {each.name: held[each.name] for each in planned if each.name in held}
        self.document["sections"] = order | held
        write_json(self.out / FILE, self.document)
        write_text(self.out / "gpu.md", table_text(self.document))
        write_text(self.out / "page.html", page(self.document))
