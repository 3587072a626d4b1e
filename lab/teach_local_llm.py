"""Teach a small LLM to mark facts, for a local server: python -m lab.teach_local_llm ...

    python -m lab.teach_local_llm BASE FOLDER TEXTS [epochs]

For machines without a model hub, where no LLM can be had that is large enough to follow the prompt
of identifier.kind=generative. BASE is a chat model of the Llama architecture: a Hugging Face folder
with its GGUF file in it (writing ours needs the package gguf). TEXTS is a folder for
data.benchmark=text whose retain.txt has marks ([[so]]). The model learns to answer the identifier's
own requests, one for each passage of retain.txt, with the strings that are marked there. It never
sees forget.txt. FOLDER gets the model and model.gguf (8 bits), which llama.cpp's server reads.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tif.data.benchmarks.text import read_texts
from tif.data.samples import Sample
from tif.identifiers.context_windows import split_into_passages
from tif.identifiers.generative.keys import Generative
from tif.identifiers.generative.prompts_and_replies import make_request
from tif.utils.terminal import track

LEARNING_RATE = 2e-4
ROTATED = ("attn_q", "attn_k")  # llama.cpp keeps the two halves of a rotated head interleaved


def main(base: str, folder: str, texts: str, epochs: str = "1") -> None:
    """Teach the model, then write it and its GGUF file."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    (document,) = read_texts(texts).retain
    chats = [tokenize(tokenizer, *window) for window in make_windows(document)]
    random.Random(0).shuffle(chats)
    print(
        f"{len(chats)} windows, {sum(len(ids) for ids, _ in chats) // len(chats)} tokens each",
        flush=True,
    )
    model = teach(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), chats, int(epochs)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (original,) = Path(base).glob("*.gguf")
    write_gguf(model, original, Path(folder, "model.gguf"))


def make_windows(document: Sample) -> list[tuple[Sequence[dict[str, str]], str]]:
    """Return the identifier's messages for each passage, with the correct reply."""
    settings, windows = Generative(model="local"), []
    for passage in split_into_passages(
        document.answer, lambda texts: [len(text) for text in texts], settings.window_characters
    ):
        inside = [
            s for s in document.unwanted or () if passage.start <= s.start and s.end <= passage.end
        ]
        words = list(dict.fromkeys(document.answer[span.start : span.end] for span in inside))
        reply = json.dumps({"words": words}, ensure_ascii=False)
        windows.append((make_request(settings, document, 0, passage).messages, reply))
    return windows


def tokenize(tokenizer, messages: Sequence[dict[str, str]], reply: str) -> tuple[list[int], int]:
    """Return the token ids of a conversation, and the number of those before the reply."""
    chat_text = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False
    )
    before = tokenizer(chat_text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
    return [*before, *ids, tokenizer.eos_token_id], len(before)


def teach(
    model: PreTrainedModel, chats: list[tuple[list[int], int]], epochs: int
) -> PreTrainedModel:
    """Return the model after `epochs` passes over the conversations; only replies have a loss."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * len(chats))
    for epoch in range(epochs):
        losses = []
        for ids, before in track(chats, f"epoch {epoch + 1}"):
            inputs = torch.tensor([ids])
            # bfloat16 is twice as fast where the processor knows it.
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(inputs, logits_to_keep=len(ids) - before + 1).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits.float(), inputs[0, before:])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}", flush=True)
    return model


def write_gguf(model: PreTrainedModel, original: Path, file: Path) -> None:
    """Write the weights in 8 bits (vectors: 32), with the original's tokenizer and settings."""
    import gguf  # nothing else of the project needs it

    reader = gguf.GGUFReader(original)
    writer = gguf.GGUFWriter(file, "llama")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    shapes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    for name, weight in model.state_dict().items():
        target = names.get_name(name, try_suffixes=(".weight",))
        if target not in shapes:  # the output layer where it is the embedding
            continue
        data = (
            interleave_halves(weight, model.config.head_dim)
            if target.split(".")[-2] in ROTATED
            else weight
        )
        if tuple(data.shape) != shapes.pop(target):
            raise ValueError(
                f"{target}: {original} has another shape than {name}, {tuple(data.shape)}"
            )
        kind = gguf.GGMLQuantizationType.Q8_0 if data.dim() == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(data.float().numpy(), kind), raw_dtype=kind)
    if shapes:
        raise ValueError(f"{original} has tensors that the model has not: {', '.join(shapes)}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave_halves(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return rows 0, d/2, 1, d/2 + 1, ... of each head, as llama.cpp wants queries and keys."""
    heads = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape).contiguous()


if __name__ == "__main__":
    main(*sys.argv[1:])
