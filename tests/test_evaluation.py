"""Loss and errors against counting by hand."""

import torch

from alexnet_mp.evaluation import in_top


def test_top_k_counts_classes_ahead_of_the_label():
    logits = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.2, 0.0]] * 6)
    ranks = [4, 0, 1, 2, 3, 5]
    for k in (1, 5):
        assert in_top(logits, torch.arange(6), k).tolist() == [rank < k for rank in ranks]


def test_of_equal_logits_the_first_classes_count():
    assert in_top(torch.zeros(10, 10), torch.arange(10), 5).tolist() == [True] * 5 + [False] * 5


def test_a_logit_that_is_not_a_number_is_never_right():
    logits = torch.full((3, 10), float("nan"))
    logits[1] = 0
    logits[1, 4] = float("nan")
    assert not in_top(logits, torch.tensor([0, 4, 9]), 1).any()


def test_with_fewer_than_five_classes_every_label_is_in_the_top_five():
    assert in_top(torch.randn(3, 3), torch.arange(3), 5).all()
