"""Folders of Hugging Face's BigBird and ours: written there and read here, and the way back, with the same numbers
(extra `hf`). Tiny random models of every head, all sizes different, no bias zero."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

import bigbird_mini  # noqa: E402

SIZES = {
    "vocab_size": 70,  # their sep_token_id is 66
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "type_vocab_size": 3,
    "block_size": 4,
    "num_random_blocks": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 5,
}
HEADS = [
    "BigBirdModel",
    "BigBirdForMaskedLM",
    "BigBirdForSequenceClassification",
    "BigBirdForTokenClassification",
    "BigBirdForQuestionAnswering",
]
MODES = ["original_full", "hf_train", "hf_eval"]
SHOWN = ["logits", "start_logits", "end_logits", "pooler_output", "last_hidden_state"]


def shaken(net, seed):
    """Weights with a say, and no bias at zero."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return net.eval()


def theirs_of(head, seed, kind="BigBird", **changes):
    config = getattr(transformers, f"{kind}Config")(**SIZES | changes)
    return shaken(getattr(transformers, head.replace("BigBird", kind))(config), seed)


def inputs(n, seed, shorter=6):
    torch.manual_seed(seed)
    ids = torch.randint(1, 66, (2, n))
    ids[0, 5] = ids[1, 9] = ids[1, 12] = 66  # where the question ends
    mask = (torch.arange(n) < torch.tensor([[n], [n - shorter]])).long()  # their last block is padding in part
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (torch.arange(n).expand(2, -1) % 3)}


def targets(head, n, labels=5):
    if head == "BigBirdModel":
        return {}
    if "Question" in head:
        return {"start_positions": torch.tensor([8, 20]), "end_positions": torch.tensor([11, n + 7])}
    if "Sequence" in head:
        return {"labels": torch.tensor([4, 1]) if labels > 1 else torch.tensor([0.5, -2.0])}
    given = torch.arange(2 * n).view(2, n) * 7 % (labels if "Token" in head else 70)
    return {"labels": given.masked_fill((given % 3 == 0) | (torch.arange(n) >= n - 6), -100)}


def same(ours, theirs, mask, within=1e-5):
    """Everything that both give, for real tokens."""
    compared = []
    for name in SHOWN:
        want, got = (getattr(out, name, None) for out in (theirs, ours))
        if want is None or got is None:
            continue
        if want.shape[:2] == mask.shape:
            want, got = (x[mask.bool()] for x in (want, got))
        assert want.shape == got.shape and torch.allclose(got, want, rtol=1e-5, atol=within), name
        compared.append(name)
    if getattr(theirs, "loss", None) is not None:
        assert ours.loss.item() == pytest.approx(theirs.loss.item(), abs=within)
        compared.append("loss")
    return compared


def expected(head, loss):
    """What a head's output is compared by."""
    if head == "BigBirdModel":
        return ["pooler_output", "last_hidden_state"]
    return (["start_logits", "end_logits"] if "Question" in head else ["logits"]) + [loss] * bool(loss)


@torch.no_grad()
def run_theirs(net, mode, given):
    """A fresh pass in their mode; they seed NumPy for everybody and may change their attention for good."""
    state, before = np.random.get_state(), net.config.attention_type
    net.train(mode == "hf_train")
    (net if hasattr(net, "set_attention_type") else net.bert).set_attention_type(
        "original_full" if mode == "original_full" else "block_sparse"
    )
    try:
        return net(**given)
    finally:
        np.random.set_state(state)
        net.config.attention_type = before


def overrides(mode):
    return {"attention_type": mode} if mode == "original_full" else {"random_plan": mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_written_there_read_here_and_the_way_back(head, mode, tmp_path):
    """At a length where all is read, and at two where blocks are left out, one of them no whole number of blocks."""
    for seed in (0, 1):
        theirs = theirs_of(head, seed)
        theirs.save_pretrained(tmp_path / "theirs")
        ours = getattr(bigbird_mini, head).from_pretrained(tmp_path / "theirs", **overrides(mode))
        ours.save_pretrained(tmp_path / "ours")
        back, report = getattr(transformers, head).from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert {name for name in report["missing_keys"] if "pooler" not in name} == set()
        assert set(report["unexpected_keys"]) == set() and not report["mismatched_keys"]
        for n in (21, 50, 64):
            # where an answer may start and end, their padding competes, in the loss
            given = inputs(n, seed, shorter=0 if "Question" in head and n == 64 else 6) | targets(head, n)
            if "Question" in head and n < 64:
                del given["start_positions"], given["end_positions"]
            mask, out = given["attention_mask"], ours(**given)
            want = run_theirs(theirs, mode, given)
            compared = same(out, want, mask)
            assert compared == expected(head, "loss" if n == 64 or "Question" not in head else ""), compared
            assert same(out, run_theirs(back, mode, given), mask) == compared
            if n == 50:  # another mode is another answer
                other = run_theirs(theirs, MODES[MODES.index(mode) - 1], given)
                with pytest.raises(AssertionError):
                    same(out, other, mask, within=1e-3)


@torch.no_grad()
def test_their_other_settings_are_ours(tmp_path):
    for changes in ({"hidden_act": "gelu", "use_bias": False}, {"hidden_act": "relu", "rescale_embeddings": True}):
        for head in HEADS[:3]:
            theirs = theirs_of(head, 3, **changes, layer_norm_eps=1e-3)
            theirs.save_pretrained(tmp_path)
            ours = getattr(bigbird_mini, head).from_pretrained(tmp_path, random_plan="hf_eval")
            given = inputs(50, 3)
            assert same(ours(**given), run_theirs(theirs, "hf_eval", given), given["attention_mask"])


@torch.no_grad()
def test_token_types_and_question_lengths_follow_theirs(tmp_path):
    theirs = theirs_of("BigBirdForQuestionAnswering", 4)
    theirs.save_pretrained(tmp_path)
    ours = bigbird_mini.BigBirdForQuestionAnswering.from_pretrained(tmp_path, random_plan="hf_eval")
    given = inputs(50, 4)
    mask = given["attention_mask"]
    del given["token_type_ids"]
    for more in ({}, {"question_lengths": torch.tensor([[3], [17]])}):
        assert len(same(ours(**given, **more), run_theirs(theirs, "hf_eval", given | more), mask)) == 2
    given["input_ids"] = given["input_ids"] % 66  # no question at all
    assert same(ours(**given), run_theirs(theirs, "hf_eval", given), mask)


@torch.no_grad()
def test_one_label_and_several_at_once(tmp_path):
    for labels, target in ((1, torch.tensor([0.5, -2.0])), (5, torch.tensor([[0.0, 1, 1, 0, 1], [1, 0, 0, 0, 1]]))):
        theirs = theirs_of("BigBirdForSequenceClassification", 5, num_labels=labels)
        theirs.save_pretrained(tmp_path / str(labels))
        ours = bigbird_mini.BigBirdForSequenceClassification.from_pretrained(
            tmp_path / str(labels), random_plan="hf_eval"
        )
        given = inputs(50, 5) | {"labels": target}
        assert "loss" in same(ours(**given), run_theirs(theirs, "hf_eval", given), given["attention_mask"])


@pytest.mark.parametrize("head", ["BigBirdModel", "BigBirdForMaskedLM", "BigBirdForTokenClassification"])
@torch.no_grad()
def test_bert_with_full_attention(head, tmp_path):
    theirs = theirs_of(head, 6, kind="Bert", hidden_act="gelu")
    theirs.save_pretrained(tmp_path)
    ours = getattr(bigbird_mini, head).from_pretrained(tmp_path)
    assert ours.config.attention_type == "original_full" and ours.config.hidden_act == "gelu"
    given = inputs(50, 6)
    assert len(same(ours(**given), theirs(**given), given["attention_mask"])) == (2 if head == "BigBirdModel" else 1)
    ours.save_pretrained(tmp_path / "ours")  # which is a BigBird of theirs now
    back = getattr(transformers, head).from_pretrained(tmp_path / "ours")
    assert same(ours(**given), run_theirs(back, "original_full", given), given["attention_mask"])
    sparse = getattr(bigbird_mini, head).from_pretrained(tmp_path, attention_type="block_sparse", block_size=4)
    assert sparse.config.random_plan == "uniform"
    assert not torch.allclose(sparse(**given).last_hidden_state, ours(**given).last_hidden_state, atol=1e-3)


@torch.no_grad()
def test_any_head_s_file_serves_every_other(tmp_path):
    """Also one of the encoder alone, whose names have no prefix."""
    given = inputs(50, 7)
    for head in HEADS:
        theirs = theirs_of(head, 7)
        theirs.save_pretrained(tmp_path / head)
        encoder = theirs if head == "BigBirdModel" else theirs.bert
        theirs_of_it = run_theirs(encoder, "hf_eval", given).last_hidden_state
        for other in HEADS:
            ours = getattr(bigbird_mini, other).from_pretrained(tmp_path / head, random_plan="hf_eval")
            got = ours(**given).last_hidden_state
            got, want = (x[given["attention_mask"].bool()] for x in (got, theirs_of_it))
            assert torch.allclose(got, want, rtol=1e-5, atol=1e-5), (head, other)


def test_half_precision_shards_and_names_of_labels(tmp_path):
    names = {"id2label": {i: f"kind {i}" for i in range(5)}, "label2id": {f"kind {i}": i for i in range(5)}}
    theirs = theirs_of("BigBirdForTokenClassification", 8, **names)
    theirs.half().save_pretrained(tmp_path / "theirs", max_shard_size="10kB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    ours = bigbird_mini.BigBirdForTokenClassification.from_pretrained(tmp_path / "theirs", random_plan="hf_eval")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.BigBirdForTokenClassification.from_pretrained(tmp_path / "ours")
    assert back.config.id2label == names["id2label"] and back.dtype == torch.float32
    for name, weight in back.state_dict().items():
        assert torch.equal(weight, theirs.float().state_dict()[name]) or "pooler" in name
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert config.architectures == ["BigBirdForTokenClassification"] and config.model_type == "big_bird"
