"""PushToHubCallback in the `fit` of Keras 3: the last state is always there, and any program opens it."""

import threading

import pytest
from comparison import assert_same_files
from support.hub_server import Fault, held
from support.waiting import wait_until

from clm_tf.keras3 import PushToHubCallback

PUT, COMMIT = "PUT /_objects/", "POST .*/commit/"


def test_each_epoch_is_uploaded_and_the_last_one_though_an_upload_outlasts_the_training(fit, hub, tmp_path):
    free = threading.Event()
    hub.faults = [Fault(PUT, act=held(free))]
    process = fit("keras3_fit.py", output_dir="out", hub_model_id="jane/fox", checkpoint=True, license="mit")
    hub.wait_for(PUT)
    wait_until((tmp_path / "epoch-2").exists, why=process.errors.read_text)  # While the upload of the first is held.
    free.set()
    trained, opened, going_on = process.answer(), process.answer(), process.answer()
    assert trained["error"] is None
    assert_same_files(hub, tmp_path / "out", "jane/fox")
    messages = hub.repos["models", "jane/fox"].messages
    assert messages[1] == "Training in progress epoch 0"
    assert messages[-1] in ("Training in progress epoch 2", "End of training")  # Whichever came first: they are equal.
    assert trained["loss"] == pytest.approx(opened["loss"], rel=1e-6)
    assert going_on == {"updates": 12, "loss": pytest.approx(trained["loss"], rel=1e-6), "after": 16}
    assert process.answer()["refused"].startswith("checkpoint: with LoRA, Keras saves no state to continue from")
    assert process.answer()["refused"].startswith("Sequential is not a decoder of clm_tf.keras3")
    card = hub.files("jane/fox")["README.md"].decode()
    assert all(part in card for part in ("license: mit", "| 2 | ", "AdamW", 'clm_tf.keras3.load("jane/fox")'))


def test_transformers_opens_what_was_uploaded_after_a_hub_had_refused_it(fit, hub, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub.faults = [Fault(COMMIT, 507)]
    process = fit("keras3_fit.py", "again", output_dir="out", save_strategy="steps", save_steps=3)
    trained = process.answer()
    assert trained["error"].startswith("507")
    hub.faults.clear()
    process.go_on()
    assert process.answer()["url"] == f"{hub.endpoint}/jane/out"
    assert_same_files(hub, tmp_path / "out", "jane/out")
    ids = torch.tensor(process.answer()["ids"])
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model(ids, labels=ids).loss.item() == pytest.approx(trained["loss"], rel=1e-4)
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"save_strategy": "best"}, "save_strategy is one of no, epoch, steps, not 'best'"),
        ({"save_strategy": "steps"}, "needs save_steps, a whole number above 0, not None"),
        ({"save_steps": 5}, "save_steps needs save_strategy 'steps', not 'epoch'"),
        ({"save_strategy": "no", "checkpoint": True}, "checkpoint needs save_strategy 'epoch'"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused_before_the_hub_is_asked(arguments, reason, hub):
    with pytest.raises(ValueError, match=reason):
        PushToHubCallback("out", **arguments)
    assert hub.repos == {}
