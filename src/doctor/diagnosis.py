"""All checks in the order in which one mistake makes others, and what they say of some evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.doctor.check import ANY, Check, Found
from src.doctor.checks import columns, files, labels, model, numbers, parts, values
from src.doctor.evidence import Evidence

CHECKS: tuple[Check, ...] = (
    *columns.CHECKS_OF_NAMES, *files.CHECKS, *columns.CHECKS_OF_ORDER, parts.LEAK_CHECK, *values.CHECKS,
    *numbers.CHECKS, *model.CHECKS_OF_NETWORK, *labels.CHECKS, *parts.CHECKS, *model.CHECKS_OF_SCORES,
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What checks say.

    Attributes:
        found: the mistakes by name, in the order in which one makes others.
        looked: names of the checks that found nothing.
        not_looked: names of those that could not look, by the reason.
        rows: what was looked at, in words.
    """

    found: dict[str, Found]
    looked: tuple[str, ...]
    not_looked: dict[str, tuple[str, ...]]
    rows: str

    def lines(self) -> list[str]:
        """For people: a line for each mistake, the first of which is the one to mend."""
        place = {name: "first" if number == 0 else "also" for number, name in enumerate(self.found)}
        lines = [
            f"{place[name]}: {name}: {one.sentence}{'' if one.sentence.endswith('?') else '.'} Mend it: {one.remedy}"
            for name, one in self.found.items()
        ]
        lines += [f"nothing found: {self.rows}"] if not self.found else [f"looked at: {self.rows}"]
        lines += [f"no sign of: {', '.join(self.looked)}"] if self.looked else []
        return lines + [f"not looked for: {', '.join(names)} ({why})" for why, names in self.not_looked.items()]


def diagnose(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> Diagnosis:
    """Let all checks look, in their order; columns in which one found something are told once."""
    found: dict[str, Found] = {}
    looked: list[str] = []
    not_looked: dict[str, tuple[str, ...]] = {}
    for check in checks:
        if any(name in found or name == ANY for name in check.unless if found):
            continue
        if why := next((evidence.lacks[need] for need in check.needs if need in evidence.lacks), ""):
            not_looked[why] = (*not_looked.get(why, ()), check.name)
        elif one := check.find(evidence):
            found[check.name] = one
            evidence.explained |= set(one.columns)
        elif why := evidence.unread:  # it found nothing, for there was nothing to find it in
            not_looked[why] = (*not_looked.get(why, ()), check.name)
        else:
            looked.append(check.name)
    return Diagnosis(found, tuple(looked), not_looked, _rows(evidence))


def _rows(evidence: Evidence) -> str:
    count = f"{evidence.new.rows:,}" if evidence.new else "no"
    old = f" beside {evidence.old.rows:,} training rows" if evidence.old else ""
    return f"{count} {evidence.part or 'raw'} rows of {evidence.place}{old}, and {evidence.trained.path}"
