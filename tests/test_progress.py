"""Progress of work in parts."""

from stylerdalle.progress import split


def test_parts_add_up_by_their_weights_whatever_each_counts():
    calls = []
    first, second = split(lambda *call: calls.append(call), [1, 3])
    for k in (1, 2):
        first(k, 2)
    for k in range(1, 6):
        second(k, 5)
    shares = [done / total for done, total in calls]
    assert shares == [0.125, 0.25, *(0.25 + 0.75 * k / 5 for k in range(1, 6))]
    assert calls[-1][0] == calls[-1][1]


def test_parts_of_parts_add_up():
    calls = []
    outer = split(lambda *call: calls.append(call), [1, 1])
    for part in outer:
        for inner in split(part, [2, 1, 1]):
            inner(1, 1)
    assert [done / total for done, total in calls] == [0.25, 0.375, 0.5, 0.75, 0.875, 1.0]


def test_without_a_callback_no_part_has_one():
    assert split(None, [1, 2]) == [None, None]
