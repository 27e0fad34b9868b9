"""Conversations in LLaMA-Factory's templates, into templates.json: python templates.py CHECKOUT_OF_LLAMA_FACTORY (0.9.6)

pip install transformers==5.23.0 jinja2. The Jinja texts that LLaMA-Factory makes of its templates are rendered with jinja2; only
its file of templates is used, without what it imports for pictures and sounds.
"""
import json
import sys
import types
from pathlib import Path

import jinja2

source = Path(sys.argv[1]) / "src"
for name in ["llamafactory", "llamafactory.data", "llamafactory.extras"]:
    module = types.ModuleType(name)
    module.__path__ = [str(source / name.replace(".", "/"))]
    sys.modules[name] = module
plugin = types.ModuleType("llamafactory.data.mm_plugin")
plugin.get_mm_plugin = lambda *args, **kwargs: None
sys.modules["llamafactory.data.mm_plugin"] = plugin
from llamafactory.data.template import TEMPLATES  # noqa: E402

NAMES = ["alpaca", "chatml", "deepseek", "default", "gemma", "granite3", "llama2", "llama3", "mistral", "openchat", "phi",
         "phi4", "qwen", "smollm", "vicuna", "yi", "zephyr"]


class Tokens:
    bos_token, eos_token = "<s>", "</s>"
    bos_token_id, eos_token_id = 1, 2

    def convert_ids_to_tokens(self, ids):
        return {1: "<s>", 2: "</s>"}[ids]


turns = [
    {"role": "user", "content": "What's 6 × 7?"},
    {"role": "assistant", "content": "42.\n\"Yes\""},
    {"role": "user", "content": "And {{ 1 + 1 }}?"},
    {"role": "assistant", "content": "2"},
]
cases = []
for name in NAMES:
    text = TEMPLATES[name]._get_jinja_template(Tokens())
    for messages in [turns, [{"role": "system", "content": "Be brief."}, *turns]]:
        rendered = jinja2.Environment().from_string(text).render(messages=messages)
        cases.append({"template": name, "messages": messages, "text": rendered})
(Path(__file__).parent / "templates.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
