"""Whether chat templates of other packages render as transformers renders them.

transformers 5.23.0, jinja2 3.1.6.
    python chat_templates.py --out cases.json FOLDER...
    FT_TEST_CHAT_CASES=cases.json cargo test --workspace --test it -- renderings_of_other_packages

Renders every `*.jinja` below the folders (TRL and axolotl ship more than a hundred) over a grid of conversations,
tools, generation prompts, thinking switches and continued messages, and writes one JSON file of cases with what came
out. The Rust test renders the same cases and lists what differs.
"""

import argparse
import importlib.util
import json
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "crates/ft-core/tests/golden/chat_templates.py"
spec = importlib.util.spec_from_file_location("golden_chat_templates", GOLDEN)
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
message, call = golden.message, golden.call

ODD_ARGUMENTS = {
    "tiny": 1e-05, "huge": 1e20, "whole": 3.0, "count": 2, "yes": True, "no": False, "nothing": None,
    "text": "it's \"quoted\"\n<b>é</b> \\ 東", "list": [1, 0.5, None, "a", [True]], "map": {"k": None, "e": {}}, "empty": "",
}

CHATS = {
    **golden.CHATS,
    "arguments of every kind": [
        message("system", "Use tools."),
        message("user", "Go"),
        message("assistant", "", tool_calls=[{"id": "call_1", **call("get_weather", ODD_ARGUMENTS)}]),
        message("tool", '{"ok": 1e-05}', tool_call_id="call_1", name="get_weather"),
        message("assistant", "Done."),
    ],
    "calls with identifiers of nine letters": [
        message("user", "Go"),
        message("assistant", None, tool_calls=[
            {"id": "abcdef012", **call("get_weather", {"city": "Rome"})}, {"id": "abcdef013", **call("now", {})}]),
        message("tool", {"temperature": 21.5, "low": 1e-7}, tool_call_id="abcdef012", name="get_weather"),
        message("tool", "12:00", tool_call_id="abcdef013", name="now"),
    ],
    "reasoning next to calls": [
        message("system", "/no_think Answer."),
        message("user", "Time?"),
        message("assistant", None, reasoning_content="I need\nthe time.", tool_calls=[call("now", {})]),
        message("tool", "12:00"),
        message("assistant", "Noon.", reasoning_content="\n12 is noon. "),
        message("user", "Thanks /think"),
        message("assistant", "<think>polite</think>You are welcome."),
    ],
    "several turns with thinking": [
        message("user", "a"),
        message("assistant", "<think>\nfirst\n</think>\n\nb"),
        message("user", "c"),
        message("assistant", "d", thinking="second"),
        message("user", "e"),
    ],
    "parts of every kind": [
        message("system", [{"type": "text", "text": "See."}]),
        message("user", [{"type": "image"}, {"type": "text", "text": "What? "}, {"type": "video"}, {"type": "audio"}]),
        message("assistant", [{"type": "text", "text": " A cat"}, {"type": "text", "text": "!"}]),
        message("user", [{"type": "text", "text": "Sure?"}]),
    ],
    "a part of an unknown kind": [message("user", [{"type": "smell", "smell": 1}])],
    "no contents": [message("user", None), message("assistant", None), message("user", "x")],
    "empty contents": [message("system", ""), message("user", ""), message("assistant", ""), message("user", " ")],
    "control characters": [
        message("user", "\x1c a\tb\x0bc\x85d\u2028e\u00a0\x1f"), message("assistant", "\x1d ok \x00\x1e")],
    "a developer speaks": [message("developer", "Be kind."), message("user", "Hi"), message("assistant", "Hello!")],
    "a system message in the middle": [
        message("user", "a"), message("assistant", "b"), message("system", "c"), message("user", "d")],
    "only a system message": [message("system", "alone")],
    "the assistant begins": [message("assistant", "I begin."), message("user", "ok")],
    "weights and names": [
        message("user", "a", name="ada"), message("assistant", "b", weight=1.0, train=False, prefix=True)],
    "the tool's answer is a list": [
        message("user", "a"),
        message("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": "{}"}, "id": "1"}]),
        message("tool", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], tool_call_id="1"),
        message("user", "b"),
    ],
}

TOOLS = golden.TOOLS + [
    {
        "type": "function",
        "function": {
            "name": "odd", "description": "A tool\nof two lines", "strict": True,
            "parameters": {
                "type": "object", "additionalProperties": False, "$defs": {"x": {"type": "null"}},
                "properties": {
                    "n": {"type": "number", "default": 1e-05, "minimum": -1.5, "maximum": 1e20, "nullable": True},
                    "u": {"type": ["string", "null"], "enum": ["a", "b\"", None], "default": "a"},
                    "o": {"type": "object", "description": "", "required": ["p"],
                          "properties": {"p": {"type": "array", "items": {"type": "object", "properties": {"q": {"type": "boolean"}}}}}},
                    "any": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/x"}]},
                },
                "required": ["n", "u"],
            },
            "return": {"type": "string", "description": "What"},
        },
    },
]

ARGUMENTS = [{}, {"enable_thinking": False}, {"enable_thinking": True, "date_string": "1 Jan 2020", "reasoning_effort": "high"}]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", nargs="+", type=Path)
    p.add_argument("--out", required=True, type=Path)
    a = p.parse_args()
    templates = {str(path): path.read_text() for folder in a.folders for path in sorted(folder.rglob("*.jinja"))}
    cases = []
    for name in templates:
        for chat, messages in CHATS.items():
            continued = messages[-1]["role"] == "assistant" and messages[-1]["content"] is not None
            modes = [(False, None), (True, None)] + ([(False, "content")] if continued else [])
            for tools in (False, True):
                for prompt, field in modes:
                    for arguments in ARGUMENTS:
                        cases.append(golden.case(templates, CHATS, TOOLS, name, chat, tools, prompt, field, arguments))
    a.out.write_text(json.dumps(golden.document(templates, CHATS, TOOLS, cases), ensure_ascii=False))
    print(len(templates), "templates,", len(cases), "cases,", sum("error" in case for case in cases), "errors")


if __name__ == "__main__":
    main()
