"""A vocabulary that can be passed on where its categories are private: it keeps keyed hashes of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import Arrays
from src.data.vocabulary import HIDDEN, Vocabulary
from src.rows.keys import hidden_keys


class HiddenVocabulary(Vocabulary):
    """As `Vocabulary`, but what it keeps of categories are keyed hashes of their keys.

    Without the secret nobody reads a category from it, nor sees whether one that they guess is among them. The order
    of the ids, by falling frequency, and how many there are, it shows as any other.

    Args:
        names, hashes, orders, file, key_seed, tables: as for `Vocabulary`, with `hidden_keys` in place of keys.
        secret: of the hashes, 32 hex digits.
    """

    def __init__(
        self,
        names: Sequence[str],
        hashes: Sequence[np.ndarray],
        secret: str,
        orders: Sequence[np.ndarray] | None = None,
        file: MappedFile | None = None,
        key_seed: str = "",
        tables: Sequence[int] = (),
    ):
        super().__init__(names, hashes, orders, file, key_seed, tables)
        self._secret = secret

    @classmethod
    def of(cls, vocabulary: Vocabulary, secret: str) -> "HiddenVocabulary":
        """The same categories with the same ids.

        Raises:
            InputError: two of them have one hash by chance, so that another secret is needed.
        """
        hashes = [hidden_keys(np.ascontiguousarray(keys), table, secret) for table, keys in enumerate(vocabulary.keys)]
        if any(len(np.unique(one)) < len(one) for one in hashes):
            raise InputError("two categories have one hash under this key: publish with another one")
        return cls(vocabulary.names, hashes, secret, None, None, vocabulary.key_seed, vocabulary.tables)

    def _ids(self, fields: Sequence[int], keys: np.ndarray) -> np.ndarray:
        """As of `Vocabulary`; all are hashed at once, which for a single row is most of the time."""
        tables = np.array(self.tables)[list(fields)]
        return super()._ids(fields, hidden_keys(keys, tables[:, None], self._secret))

    def arrays(self) -> Arrays:
        """As of `Vocabulary`, and by what one sees that a secret is the right one."""
        return super().arrays() | {HIDDEN: _token_of(self._secret)}


def _token_of(secret: str) -> np.ndarray:
    """What follows from a secret, and from which nothing follows: the hash of a key of a table that none has."""
    return hidden_keys(np.zeros(1, np.uint64), -1, secret)


def check_secret(path: Path, token: np.ndarray, secret: str) -> None:
    """Refuse a secret that is not the one of a file, which holds such a token.

    Raises:
        InputError: it is another one, or "".
    """
    if not (secret and np.array_equal(token, _token_of(secret))):
        why = "the key is another one" if secret else "no key is given"
        raise InputError(
            f"{path} holds keyed hashes of its categories, and {why}: "
            f"give the key that was written beside the folder when it was published"
        )
