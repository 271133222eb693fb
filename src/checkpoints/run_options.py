"""The options of a run as they are kept beside its checkpoint, and what may be others when it goes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.base.errors import InputError
from src.base.sealed import check_text
from src.model_utils.config import SAVED_OPTIONS, to_yaml
from src.model_utils.options import free_names, untold_names


@dataclass(frozen=True)
class RunOptions:
    """The options that are kept beside a checkpoint.

    Attributes:
        name: of their file.
        text: YAML.
        free: names of those that no value of the network depends on.
        defaults: YAML of what each is unless given, and was before there was such an option.
        untold: names of those whose change is not worth a word.
    """

    name: str
    text: str
    free: frozenset[str] = frozenset()
    defaults: str = ""
    untold: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *specs: Any) -> "RunOptions":
        """Those of the specs of a training."""
        defaults = to_yaml(*(type(spec)() for spec in specs))
        free, untold = frozenset(free_names(*specs)), frozenset(untold_names(*specs))
        return cls(SAVED_OPTIONS, to_yaml(*specs), free, defaults, untold)

    def saved_in(self, folder: Path) -> str:
        """The text that a run left in a folder; that of an older version has no checksum.

        Raises:
            InputError: its file is damaged.
        """
        path, remedy = folder / self.name, "start afresh, with --resume=False, or in another --ckpt_path"
        if path.read_bytes().strip():
            check_text(path, remedy)
        try:
            text = path.read_text(encoding="utf-8")
            dict(yaml.safe_load(text) or {})
        except (TypeError, ValueError, yaml.YAMLError):
            raise InputError(f"{path} is damaged: {remedy}") from None
        return text

    def difference(self, saved: str) -> str:
        """What is different in the text of a run that was stopped, in words, but for what is free; "" for nothing."""
        if not saved.strip():
            return "no options in its file"
        different = (f"{name} {old} instead of {new}" for name, old, new in self._different(saved))
        return next((words for words in different if words.split()[0] not in self.free), "")

    def changes(self, saved: str) -> list[str]:
        """What is different in the text of a run that was stopped and is to be told, in words."""
        different = self._different(saved)
        return [f"{name} {new} instead of {old}" for name, old, new in different if name not in self.untold]

    def value(self, name: str) -> Any:
        """Of an option; None if there is no such one."""
        return (yaml.safe_load(self.text) or {}).get(name)

    def has_more_epochs(self, saved: str) -> bool:
        """Whether a run with these options is longer than one with the saved ones."""
        return any(name == "epochs" and (new or 0) > (old or 0) for name, old, new in self._different(saved))

    def _different(self, saved: str) -> Iterator[tuple[str, Any, Any]]:
        """Name, old value and new one of what is different."""
        known, old, new = (yaml.safe_load(text) or {} for text in (self.defaults, saved, self.text))
        old = known | old  # an older version, which knew fewer options, may have saved them
        for name in dict.fromkeys([*new, *old]):
            if old.get(name) != new.get(name):
                yield name, old.get(name), new.get(name)
