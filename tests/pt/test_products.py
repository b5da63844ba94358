"""Products that are as exact as any, and much faster, are taken; PyTorch's own settings come back."""

import pytest
import torch

from clm_pt import products
from clm_pt.products import BY_ONEDNN, USUAL, fastest_products, is_better
from clm_pt.training import train


@pytest.mark.parametrize(
    ("usual", "other", "error", "better"),
    [
        (2.0, 1.0, 4e-7, True),
        (2.0, 1.0, 2e-3, False),  # As bfloat16, on a CPU with AMX or on ARM.
        (1.1, 1.0, 4e-7, False),
        (1.0, 2.0, 4e-7, False),
    ],
)
def test_others_are_taken_if_they_are_exact_and_much_faster(usual, other, error, better):
    assert is_better(usual, other, error) == better


@pytest.fixture
def tried(monkeypatch):
    """Pretend that the trial found these seconds, as usual and otherwise, and this error."""

    def pretend(usual, other, error):
        monkeypatch.setattr(products, "_seconds", lambda: (usual, other))
        monkeypatch.setattr(products, "_error", lambda: error)

    return pretend


def test_the_error_of_bfloat16_is_seen():
    one = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    exact = one.double() @ one.double()
    assert products._error_of((one.bfloat16() @ one.bfloat16()).float(), exact) > products.EXACT
    assert products._error_of(one @ one, exact) < products.EXACT


@pytest.mark.parametrize(("figures", "within"), [((2.0, 1.0, 4e-7), "medium"), ((2.0, 1.0, 2e-3), "highest")])
def test_the_setting_comes_back(tried, figures, within):
    tried(*figures)
    with fastest_products():
        assert torch.get_float32_matmul_precision() == within
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("before", "figures", "name"),
    [
        (BY_ONEDNN, (1.0, 1.0, 4e-7), BY_ONEDNN),
        (BY_ONEDNN, (2.0, 1.0, 2e-3), USUAL),  # On another machine, where they are not exact.
        (USUAL, (2.0, 1.0, 4e-7), USUAL),
    ],
)
def test_the_products_of_before_are_taken_where_they_are_exact(tried, before, figures, name):
    tried(*figures)
    with fastest_products(before) as taken:
        assert taken == name


def test_what_a_training_keeps_from_before_is_not_timed_again(tried, monkeypatch):
    tried(1.0, 1.0, 4e-7)
    monkeypatch.delattr(products, "_seconds")
    with fastest_products(BY_ONEDNN) as taken:
        assert taken == BY_ONEDNN


@pytest.mark.parametrize(("seconds", "name"), [(0.5, BY_ONEDNN), (1.0, USUAL)])
def test_a_resumed_training_computes_as_it_began(new_job, tried, seconds, name):
    tried(1.0, seconds, 4e-7)
    train(first := new_job(max_steps=2, save_strategy="steps", save_steps=1))
    tried(1.0, 1.5 - seconds, 4e-7)
    train(resumed := new_job(max_steps=2, resume_from=first.output_dir / "checkpoint-1"))
    assert resumed.chosen == first.chosen == {"matrix products": name}


def test_the_trial_leaves_pytorch_as_it_was():
    threads = torch.get_num_threads()
    assert min(*products._seconds(), products._error()) > 0.0
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, "highest")


@pytest.mark.parametrize(("has_gpu", "named"), [(False, "float32 as PyTorch is set"), (True, "TF32 as PyTorch is set")])
def test_what_a_user_has_set_stays(has_gpu, named, tried, monkeypatch):
    tried(2.0, 1.0, 4e-7)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    torch.set_float32_matmul_precision("high")
    try:
        with fastest_products() as name:
            assert (name, torch.get_float32_matmul_precision()) == (named, "high")
    finally:
        torch.set_float32_matmul_precision("highest")
