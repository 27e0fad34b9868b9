"""Renders conversations with templates in the styles of common model families, as transformers does.

transformers 5.23.0, jinja2 3.1.6. Writes chat_templates.json beside this file:
templates and chats by name, and cases of {template, chat, tools, add_generation_prompt, text or error}.
The clock that strftime_now reads stands at 2024-07-26 12:00:00 UTC.
"""

import datetime
import json
from pathlib import Path

import transformers.utils.chat_template_utils as chat

HERE = Path(__file__).parent
CLOCK = 1_721_995_200


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(CLOCK, datetime.timezone.utc)


chat.datetime = Clock

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou answer questions.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Llama 3 style: dates, headers, trimmed contents, tools as indented JSON.
HEADERS = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message may be absent. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today is " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One tool call at a time!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# Qwen style: tools in tags, grouped tool responses, reasoning of earlier turns left out.
REASONING = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# Mistral style: roles must alternate, loop controls, string tests.
INSTRUCT = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["content"] is not string %}
        {%- continue %}
    {%- endif %}
    {%- if message["content"] == "STOP" %}
        {%- break %}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + '}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool roles are supported, not " ~ message.role) }}
    {%- endif %}
{%- endfor %}
"""

# Gemma style: macros, content parts, a generation block, blocks on lines of their own.
PARTS = """\
{{ bos_token }}
{%- macro parts(content, sep=' | ') -%}
    {%- if content is string -%}
        {{ content | trim }}
    {%- elif content is iterable -%}
        {%- for item in content -%}
            {%- if item['type'] == 'image' -%}
                {{ '<image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
            {%- if not loop.last %}{{ sep }}{% endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
{%- endmacro %}
{% for message in messages %}
  {% set role = "model" if message.role == "assistant" else message.role %}
  {% if role == "model" %}
<turn>{{ role }}
    {% generation %}
{{ parts(message.content) }}<end_of_turn>
    {% endgeneration %}
  {% else %}
<turn>{{ role }}
{{ parts(message.content, sep=' & ') }}<end_of_turn>
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<turn>model
{% endif %}
"""

# What Python prints for values, and methods and filters that templates use.
PYTHON = """\
{% set text = messages[0].content %}
{{ true }} {{ none }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ [1, 'a', none, true, 1.5] }} {{ {'a': 'b', "c": [1]} }}
{{ text.split() }} {{ text.split(' ', 1) }} {{ text.upper() }} {{ text.title() }} {{ text | capitalize }}
{{ text[::-1] }} {{ text[1:4] }} {{ text[-1] }} {{ text | length }} {{ text.find('o') }} {{ text.replace('o', '0') }}
{{ 'tag' in text }} {{ 'x' ~ 1 ~ none }} {{ ('a', 'b') | join('-') }} {{ ['b', 'a'] | sort }} {{ text is string }}
{{ {'k': 1, 'items': 2}.items() | list }} {{ {'k': 1}.get('z', 'default') }} {{ {'k': 1}.get('z') }} {{ {'b': 1, 'a': 2} | dictsort }}
{{ {'b': 1, 'a': [1, 2.0, none, true, "é<>&'\\"\\n"]} | tojson }} {{ {'b': 1, 'a': {}} | tojson(indent=2, sort_keys=true) }}
{{ [1, {'a': 'é'}] | tojson(separators=(',', ':'), ensure_ascii=true) }} {{ [] | tojson(indent=2) }} {{ 'it"s' | tojson }}
{{ missing | default('d') }} {{ missing is defined }} [{{ missing }}] {{ text.startswith(('a', 'H')) }} {{ ' x '.strip() }}|
{{ range(3) | list }} {{ messages | map(attribute='role') | list }} {{ "%s is %d" | format('a', 3) }}
{{ messages | selectattr('role', 'in', ['user', 'tool']) | list | length }} {{ (messages | first).role }} {{ (messages | last)['role'] }}
{{ namespace(a=1).a }} {{ dict(a=1)['a'] }} {{ [1, 2] + [3] }} {{ 'a' * 3 }} {{ 10 / 4 }} {{ 1 if false }} {{ 'a' if missing else 'b' }}
{{ messages[0] is mapping }} {{ messages is sequence }} {{ messages is iterable }} {{ 3 is number }} {{ 3 is odd }} {{ none is none }} {{ true is boolean }}
{%- for m in messages %}

{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} {{ loop.previtem.role if loop.previtem is defined }} {{ loop.nextitem.role if loop.nextitem is defined }} {{ loop.cycle('odd', 'even') }}
{%- else %}
none
{%- endfor %}

{%- call(x) deeper() %}{{ x }}{% endcall %}
{%- macro deeper() %}<{{ caller('inner') }}>{% endmacro %}
{% filter upper %}shout {{ text }}{% endfilter %}
{% raw %}{{ not rendered }}{% endraw %}
{%- set captured %}
  kept
{% endset %}
[{{ captured }}]{{- '  trimmed' -}}
   {#- comment -#}   end
  {%+ if true %}plus{% endif +%}

done
"""
# A macro must stand before its call.
PYTHON = PYTHON.replace(
    "{%- call(x) deeper() %}{{ x }}{% endcall %}\n{%- macro deeper() %}<{{ caller('inner') }}>{% endmacro %}",
    "{%- macro deeper() %}<{{ caller('inner') }}>{% endmacro %}\n{%- call(x) deeper() %}{{ x }}{% endcall %}",
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city, in °C",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's <name>"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}, "return": {}}},
]


def message(role, content=None, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CHATS = {
    "one question": [message("user", "  Hello there, 東京!  ")],
    "system and two turns": [
        message("system", " Be brief. "),
        message("user", "What is 1 + 1?"),
        message("assistant", " 2\n"),
        message("user", "And <b>2 + 2</b> & 'more'?"),
    ],
    "an answer at the end": [message("user", "Hi"), message("assistant", "Hello")],
    "tools": [
        message("user", "Weather in Rome?"),
        message("assistant", tool_calls=[call("get_weather", {"city": "Rome", "days": [1, 2], "x": 1.5})]),
        message("tool", '{"temperature": 21.5}', name="get_weather"),
        message("tool", "12:00"),
        message("assistant", "21.5 °C."),
        message("user", "Thanks"),
    ],
    "two calls at once": [
        message("user", "Weather and time?"),
        message("assistant", "I look.", tool_calls=[call("get_weather", '{"city": "Oslo"}'), call("now", {})]),
    ],
    "reasoning": [
        message("user", "1 + 1?"),
        message("assistant", "<think>\nOne and one.\n</think>\n\n2"),
        message("user", "2 + 2?"),
        message("assistant", "4", reasoning="Two and two.", tool_calls=None),
    ],
    "content parts": [
        message("user", [{"type": "text", "text": " What is this? "}, {"type": "image"}]),
        message("assistant", [{"type": "text", "text": "A cat. "}]),
    ],
    "roles that do not alternate": [message("user", "a"), message("user", "b")],
    "a stop word": [message("user", "a"), message("assistant", "b"), message("user", "STOP"), message("assistant", "d")],
    "an open answer": [message("user", "Count"), message("assistant", "One, two, ")],
    "an open thought": [message("user", "Count"), message("assistant", "", thinking="First one,\n")],
    "an unknown role": [message("user", "a"), message("critic", "b")],
}

# Conversations whose final message is left open, and which field of it.
CONTINUED = [
    ("an answer at the end", "content"),
    ("two calls at once", "content"),
    ("reasoning", "content"),
    ("reasoning", "reasoning_content"),
    ("reasoning", "reasoning"),
    ("content parts", "content"),
    ("an open answer", "content"),
    ("an open thought", "thinking"),
    ("an open thought", "reasoning_content"),
    ("an open thought", "content"),
    ("tools", "content"),
]

TEMPLATES = {
    "chatml": CHATML,
    "headers": HEADERS,
    "reasoning": REASONING,
    "instruct": INSTRUCT,
    "parts": PARTS,
    "python": PYTHON,
}

# Those that look at tools, and those that look at add_generation_prompt.
WITH_TOOLS = {"headers", "reasoning", "instruct"}
WITH_PROMPT = {"chatml", "headers", "reasoning", "parts"}

# One small template a line; they print `v`.
SNIPPETS = [line for line in (HERE / "chat_snippets.txt").read_text().split("\n") if line]
VALUES = {
    "none": None,
    "true": True,
    "list": ["a", 1, 2.5, None],
    "map": {"a": 1, "b": [1e-05, "it's"], "c": None},
    "floats": [1e-05, 0.0001, 1e20, 1e16, 1e15, 1.0, -2.5e-300, 123456789.125],
    "odd": "they're bill's x-ray\nÉTÉ 3rd",
    "space": "\x1c\x1d a\tb\x85c\u2028\u00a0d \x1e\x1f",
    "lines": "a\nb\r\nc\rd\x0be\x0cf\x1cg\x1dh\x1ei\x85j\u2028k\u2029\n\n",
    "html": "<a href='x'>\"&\"</a>/",
}

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template, messages, tools, prompt, field, arguments):
    """As PreTrainedTokenizerBase.apply_chat_template: keys without a value are dropped."""
    messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    rendered, _ = chat.render_jinja_template(
        [messages],
        tools=tools,
        chat_template=template,
        add_generation_prompt=prompt,
        continue_final_message=field or False,
        **{**SPECIAL, **arguments},
    )
    return rendered[0]


def case(templates, chats, schemas, template, name, tools, prompt, field=None, arguments={}):
    """One rendering, with its text or its error; what is left at its default is not written."""
    case = {
        "name": f"{template}: {name}" + (", with tools" if tools else ""),
        "template": template,
        "chat": name,
        "tools": tools,
        "add_generation_prompt": prompt,
    }
    if field:
        case["continue_final_message"] = field
    if arguments:
        case["arguments"] = arguments
    try:
        case["text"] = render(templates[template], chats[name], schemas if tools else None, prompt, field, arguments)
    except Exception as error:
        case["error"] = f"{type(error).__name__}: {error}"
    return case


def document(templates, chats, tools, cases):
    """What the Rust test reads."""
    return {
        "clock": CLOCK,
        "special_tokens": SPECIAL,
        "tools": tools,
        "templates": templates,
        "chats": chats,
        "cases": cases,
    }


def main():
    cases = []
    for template in TEMPLATES:
        for name in CHATS:
            for tools in (False, True) if template in WITH_TOOLS else (False,):
                for prompt in (False, True) if template in WITH_PROMPT else (False,):
                    cases.append(case(TEMPLATES, CHATS, TOOLS, template, name, tools, prompt))
    for name, field in CONTINUED:
        for template in TEMPLATES:
            cases.append(case(TEMPLATES, CHATS, TOOLS, template, name, False, False, field))
    for thinking in (False, True):
        arguments = {"enable_thinking": thinking, "date_string": "1 Jan 2020", "bos_token": "<mine>"}
        for template in TEMPLATES:
            cases.append(case(TEMPLATES, CHATS, TOOLS, template, "one question", False, True, None, arguments))
    snippets = dict(zip(SNIPPETS, SNIPPETS))
    for snippet in SNIPPETS:
        cases.append(case(snippets, CHATS, TOOLS, snippet, "one question", False, False, None, {"v": VALUES}))
    golden = document({**TEMPLATES, **snippets}, CHATS, TOOLS, cases)
    (HERE / "chat_templates.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "errors")


if __name__ == "__main__":
    main()
