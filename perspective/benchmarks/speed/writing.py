"""Batched generation against one prompt at a time; a server kept busy against its ideal."""

from __future__ import annotations

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import torch

from perspective.benchmarks.speed.comparison import Row, SpeedSettings, read_texts, time_once, time_pairs
from perspective.llm.chat import make_harmless, tokenize_beginning
from perspective.llm.loading import load_llm
from perspective.llm.server.asking import ServerAsker
from perspective.llm.server.settings import ServerSettings
from perspective.llm.writing import AnswerWriter
from perspective.synthesis.questions import Prompter, plan_grounded
from perspective.synthesis.recipe import load_recipe

N_PROMPTS, N_PLAIN, N_NEW = 32, 4, 40  # prompts written by ours, those of them that are written alone, new tokens
N_REQUESTS, CONCURRENCY, REPLY_SECONDS = 128, 16, 0.5


def bench_writing(settings: SpeedSettings) -> list[Row]:
    """Write queries of documents with each LLM of the settings, and ask a server on the loopback."""
    return [*(compare_writing(name, settings.n_pairs) for name in settings.llm), compare_asking()]


def compare_writing(name: str, n_pairs: int) -> Row:
    """Write greedily with one LLM, in a batch and one prompt at a time; both write the same number of tokens."""
    llm = load_llm(name)
    texts = {str(row): make_harmless(text) for row, text in enumerate(read_texts("banking77")[:N_PROMPTS])}
    prompter = Prompter(load_recipe(), is_chat=False)
    parts = [prompter.split(question) for question in plan_grounded(load_recipe(), texts, N_PROMPTS, ["en"], 0)]
    head = tokenize_beginning(llm.tokenizer, parts[0][0])
    rows = [[*head, *llm.tokenizer(rest, add_special_tokens=False)["input_ids"]] for _, rest in parts]
    # End-of-text does not end them, so that both write as many tokens.
    options = {"min_new_tokens": N_NEW, "max_new_tokens": N_NEW, "do_sample": False, "pad_token_id": 0}
    llm.model.generation_config.update(min_new_tokens=N_NEW)
    facts = {"n_prompts": 0, "n_tokens": 0}

    def ours() -> list[list[int]]:
        writer = AnswerWriter(llm, N_NEW, facts)
        writer.begin(head)
        return writer.write(rows)

    @torch.inference_mode()
    def other() -> list[list[int]]:
        written = []
        for row in rows[:N_PLAIN]:
            ids = torch.tensor([row])
            found = llm.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            written.append(found[0, len(row) :].tolist())
        return written

    same = sum(one == two for one, two in zip(ours(), other(), strict=False))
    seconds, part, ratio = time_pairs(ours, other, n_pairs)
    scale = N_PROMPTS / N_PLAIN
    rates = N_PROMPTS * N_NEW / seconds, N_PLAIN * N_NEW / part
    return Row(
        f"generation, {N_PROMPTS} prompts with examples, {N_NEW} new tokens each, {name}",
        f"one prompt at a time, generate ({N_PLAIN} of the prompts timed)",
        "3x",
        seconds,
        part * scale,
        ratio * scale,
        f"same greedy tokens in {same} of {N_PLAIN}",
        f"{rates[0]:.0f} against {rates[1]:.0f} new tokens/s",
    )


class _SlowHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:  # noqa: N802  the library's name
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(REPLY_SECONDS)
        usage = {"prompt_tokens": 9, "completion_tokens": 1}
        data = json.dumps({"choices": [{"message": {"role": "assistant", "content": "x"}}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _SlowServer(ThreadingHTTPServer):
    request_queue_size = 2 * CONCURRENCY


def compare_asking() -> Row:
    """Ask a server that answers each question in half a second; the ideal has `CONCURRENCY` in progress always."""
    server = _SlowServer(("127.0.0.1", 0), _SlowHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    os.environ["no_proxy"] = "127.0.0.1"
    settings = ServerSettings(base_url=[f"http://127.0.0.1:{server.server_port}/v1"], concurrency=CONCURRENCY)
    asker = ServerAsker(settings, "any", logprobs=False)
    list(asker.ask([["the first imports the client"]]))
    seconds = time_once(lambda: list(asker.ask([str(number)] for number in range(N_REQUESTS))))
    server.shutdown()
    ideal = N_REQUESTS * REPLY_SECONDS / CONCURRENCY
    return Row(
        f"server, {N_REQUESTS} questions of {REPLY_SECONDS} s each, {CONCURRENCY} at once",
        "the ideal: always as many in progress",
        "kept busy",
        seconds,
        ideal,
        ideal / seconds,
        "",
        f"{N_REQUESTS / seconds:.1f} of {N_REQUESTS / ideal:.0f} requests/s",
    )
