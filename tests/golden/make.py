"""Made tests/golden/big_bird: tiny random models of transformers, one of each head, and what they answer.

    python tests/golden/make.py

needs transformers (made with 5.23.0 and torch 2.13.0). Another version may give other bytes; the numbers it gives must
be those that tests/test_pretrained.py expects all the same. Their answers are kept for three modes: full attention, and
block-sparse attention in training and in evaluation, which read different blocks.
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "big_bird"
HEADS = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
SIZES = {
    "vocab_size": 68,  # their sep_token_id is 66
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "block_size": 4,
    "num_random_blocks": 2,
    "hidden_dropout_prob": 0.0,  # so that training is computable again
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 5,
}


def tiny(head: str, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = getattr(transformers, f"BigBird{head}")(transformers.BigBirdConfig(**SIZES))
    for parameter in net.parameters():  # weights with a say, and no bias at zero
        parameter.data += 0.3 * torch.randn_like(parameter)
    return net


def inputs() -> dict[str, torch.Tensor]:
    """Two texts of 46 and 41 tokens: 12 blocks, the last of them padded, more than are read in full."""
    ids = torch.randint(1, 66, (2, 46))
    ids[0, 5] = ids[1, 9] = 66
    mask = (torch.arange(46) < torch.tensor([[46], [41]])).long()
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.arange(46).expand(2, -1) // 7 % 2}


@torch.no_grad()
def answers(net: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for mode in ("hf_train", "hf_eval", "original_full"):
        if mode == "original_full":
            getattr(net, "bert", net).set_attention_type(mode)
        out = net.train(mode == "hf_train")(**given)
        for name in ("logits", "start_logits", "end_logits", "pooler_output", "last_hidden_state"):
            if getattr(out, name, None) is not None:
                found[f"{mode}.{name}"] = getattr(out, name)[..., :46].contiguous()  # of words, the first 46
    return found


if __name__ == "__main__":
    kept = given = inputs()
    for seed, head in enumerate(HEADS):
        net = tiny(head, seed)
        net.save_pretrained(FOLDER / head)
        kept = kept | {f"{head}.{name}": x for name, x in answers(net, given).items()}
    save_file(kept, FOLDER / "answers.safetensors")
