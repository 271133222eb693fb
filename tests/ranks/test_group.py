"""What ranks do together outside of graphs, with ranks that are threads."""

import errno

import pytest
from simulated import on_ranks

from src.base.errors import AlreadyDone, InputError
from src.ranks.group import ONE_RANK


def test_ranks_that_have_the_same_numbers_agree():
    assert on_ranks(3, lambda ranks: ranks.agree("what they do", {"a": 5, "b": 2**31 - 1})) == [None] * 3
    ONE_RANK.agree("what it does", {"a": 5})


def test_ranks_that_differ_all_end_with_the_numbers_of_all():
    results = on_ranks(3, lambda ranks: ranks.agree("what they do", {"a": 5, "saved step": 10 + ranks.rank // 2}))
    for error in results:
        with pytest.raises(InputError, match="ranks differ in what they do: saved step is 10, 10, 11; do all hosts"):
            raise error


def test_work_that_goes_well_on_all_ranks_is_done_once_on_each():
    done = []
    assert on_ranks(3, lambda ranks: ranks.together(lambda: done.append(ranks.rank))) == [None] * 3
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("the table is too small: give more rows"), "the table is too small: give more rows"),
        (OSError(errno.ENOSPC, "No space left on device", "x.ckpt"), "No space left on device: 'x.ckpt'"),
        (InputError("ü" * 2000), "ü" * 400),
    ],
)
def test_an_error_of_one_rank_ends_all_and_tells_its_words(error, words):
    def work(ranks):
        def fail():
            if ranks.rank == 1:
                raise error

        ranks.together(fail)

    results = on_ranks(3, work)
    assert results[1] is error
    for other in (results[0], results[2]):
        assert isinstance(other, InputError)
        assert str(other).startswith("rank 1: ")
        assert words in str(other)


def test_what_one_rank_finds_done_is_done_for_all():
    def work(ranks):
        def look():
            if ranks.rank == 1:
                raise AlreadyDone("x is there")

        ranks.together(look)

    assert [(type(error), str(error)) for error in on_ranks(3, work)] == [(AlreadyDone, "x is there")] * 3
