"""Golden cases of what the harness takes from Python: random, re, repr, literals, Jinja2, filters, metrics.

Left out, since they differ and the docs say so: \\N{...} in literals; tuples, random, truncate, wordcount,
center and `self` in templates; texts that pyarrow takes for times.

Writes harness_python.json. Run: python crates/ft-eval/tests/golden/harness_python.py
"""

import ast
import json
import os
import random
import re
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DISABLE_MULTIPROC"] = "1"
os.environ["LMEVAL_LOG_LEVEL"] = "ERROR"
os.environ["HF_HOME"] = tempfile.mkdtemp()
warnings.simplefilter("ignore")
HERE = Path(__file__).parent

for package, wanted in {"lm_eval": "0.4.13", "jinja2": "3.1.6", "scikit-learn": "1.9.1", "datasets": "5.2.0"}.items():
    assert version(package) == wanted, (package, version(package))

import datasets  # noqa: E402
from lm_eval.api import metrics  # noqa: E402
from lm_eval.filters import build_filter_ensemble  # noqa: E402
from lm_eval.utils import apply_template  # noqa: E402

datasets.disable_progress_bars()
rnd = random.Random(11)


def attempt(function, *args, **kwargs):
    try:
        return {"ok": function(*args, **kwargs)}
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__}


# ------------------------------------------------------------------ random
randoms = []
for seed in [0, 1, 42, 1234, 2**31, 2**32, 2**32 + 1, 2**63 + 7, 624, 99]:
    r = random.Random(seed)
    case = {"seed": seed, "random": [r.random() for _ in range(5)]}
    case["samples"] = [
        [n, k, r.sample(range(n), k)]
        for n, k in [(5, 5), (21, 3), (22, 3), (100, 5), (100, 6), (85, 6), (86, 6), (1, 1), (10, 0), (1000, 25), (70000, 4), (277, 16), (277, 17)]
    ]
    case["choices"] = r.choices(range(37), k=20)
    items = list(range(30))
    r.shuffle(items)
    case["shuffle"] = items
    case["last"] = [r.random() for _ in range(700)][-1]
    randoms.append(case)

# ------------------------------------------------------------------ re
PATTERNS = [
    r"#### (\-?[0-9\.\,]+)", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", r"(?i)answer is ([A-D])", r"\(([A-Z])\)", r"a*", r"a*?", r"(a)|(b)|",
    r"\bword\b", r"\Bo", r"^\s*(\S+)", r"(\w+)$", r"(?m)^(\w+)$", r"(?s)a.*b", r"[^\W\d_]+", r"[]x]+", r"[^]x]+", r"[[\]]", r"[a&&b]+",
    r"[+--]", r"[\w\-.]+@[\w.]+", r"a{2}", r"a{,2}b", r"a{2,}", r"x{", r"{x}", r"\boxed{(.*)}", r"\\boxed\{([^}]*)\}", r"(?<=\$)\d+", r"(?<!a)b",
    r"(?=b)", r"(a+)(?!b)", r"(\w)\1", r"(?P<q>['\"]).*?(?P=q)", r"\d+(?:\.\d+)?%?", r"[\s,]+", r"\s+", r"\S+", r"\.$", r".*#### ", r",", r"\$",
    r"[\u00e0-\u00ff]+", r"\u00e9|\x41|\101|\t", r"(?#comment)ab", r"(?:ab)+", r"(?i:AB)c", r"\Aab|ab\Z", r"$", r"^", r"", r"|a", r"\<a\>", r"\/\-\'\"\@\%\!",
    r"(?>a+)b", r"a++b", r"(a)?b(?(1)c|d)", r"[^\S\n]+", r"[\D]+", r"[\W_]+", r"(?:(a)|(b))+", r"\Z", r"[\b]", r"\0", r"[a\]]", r"[a-]", r"[-a]", r"(?x) a b", r"(?u)\w+",
    r"\d", r"\D+", r"[^a-z0-9]", r"The answer is(?: \()?([A-J])\)?", r"(?:^|\n)([A-E])[.)]", r"\b[A-Z]{1,2}\b", r"a|ab", r"(ab|a)(bc|c)?",
]
TEXTS = [
    "", "a", "aab", "abd", "b\u00e9\u00c9 \u00e0\u00ff", "The answer is (B). #### 1,234.5 and #### -7", "I paid $18.00, then 5 or 1,000", "word sword words word",
    "x{3} {x} \\boxed{42} \\boxed{\\frac{1}{2}}", "line one\nline two\n", "end.", "end.\n", "a&b [x] ]x[ a-b +,- a@b.c", "\u0645\u0631\u062d\u0628\u0627 \u0663\u0664 \u6771\u4eac \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u00a0\u2003tabs\t\x1c\x1f\x85end", "'quoted' \"double\" 'mixed\"", "aaaa aabb abab", "it's <a> /-'\"@%! 50%", "ac abc bd abd", "A) one\nB) two\nC. three", "\u0130stanbul \u017f \u212a", "e\u0301e\u0301\U0001f600_x1",
]
findall = [[p, t, attempt(re.findall, p, t)] for p in PATTERNS for t in TEXTS]
for case in findall:
    if "ok" in case[2]:
        case[2]["ok"] = [list(m) if isinstance(m, tuple) else m for m in case[2]["ok"]]
subs = []
for pattern, replacement in [
    (r"(\w)(\w)", r"\2\1"), (r"a*", "-"), (r"x*", r"<\g<0>>"), (r"(?P<n>\d)", r"[\g<n>]"), (r"(a)|(b)", r"\1.\2"), (r"\s+", r"\n"), (r"[.,]", "\\\\"),
    (r"b", r"\x"), (r"b", r"\g<9>"), (r"(b)", r"\1\60"), (r"(b)", r"\g<1>0"), (r"^|$", "|"), (r"(?s).*#### ", ""), (r"\$", ""), (r"\.$", ""), (r"$", "!"), (r"(b)", r"\1\&\'"), (r"b", "\\"),
]:
    for text in TEXTS:
        for count in (0, 2):
            subs.append([pattern, replacement, text, count, attempt(re.sub, pattern, replacement, text, count=count)])
escapes = [[t, re.escape(t)] for t in TEXTS]

# ------------------------------------------------------------------ values
VALUES = [
    None, True, False, 0, -5, 10**15, 1.0, -0.0, 0.1, 1e-4, 1e-5, 1.5e-7, 1e15, 1e16, 123456789012345680.0, 1e22, 5e-324, 1.7976931348623157e308, 2.5, 1 / 3,
    "", "a", "it's", 'say "x"', "both ' and \"", "back\\slash", "tab\tnl\ncr\r", "\x00\x07\x08\x0c\x1b\x7f\x80\x9f\xa0\xad", "\u200b\u2028\u2029\ufeff\u3000", "\U0001f600\U000e0001\ue000", "e\u0301",
    "\u0645 \u6771", [], {}, [1, [2, []]], {"a": {"b": [1, 2.0, None, True, "x"]}, "": "empty"}, [["a", "b'"], {"k": "v\n"}], {"z": 1, "a": 2}, "\u0378", "\ud7ff\ufffd",
]
VALUES += [rnd.uniform(-1, 1) * 10 ** rnd.randint(-20, 20) for _ in range(60)]
values = [[v, str(v), repr(v), json.dumps(v, indent=2, ensure_ascii=False), json.dumps(v, ensure_ascii=False)] for v in VALUES]
LITERALS = [
    "[1, 2]", "['a', \"b\"]", "['it\\'s', \"x\"]", "('a',)", "1,", "()", "[]", "{'a': 1}", "{'a': 1, 'a': 2}", "{}", "None", "True", "[None, False]", "1e5", "-1", "+2.5", "- 3", "--4", "0x1F",
    "0o17", "0b11", "1_000", "1__0", "_1", "007", "00", "0", "1.", ".5", "1.5e-3", "1e", "'a' 'b'", "'a'\n'b'", "['a'\n'b']", "r'\\n'", "u'x'", "b'x'", "f'x'", "'''tri\nple'''", "\"\"\"q\"q\"\"\"", "'unterminated",
    "'\\x41\\u00e9\\U0001f600\\101\\0'", "'\\q'", "'\\\n'", "[1, 2", "[1 2]", "[1,,2]", "[,]", "[1,]", "abc", "a+b", "1+2", "1+2j", "[a]", "{1}", "{1, 2}", "set()", " [1]", "\t[1]", "\n[1]", "[1] ", "[1]\n", "[1] # c",
    "", " ", "(", ")", "(1)", "((1, 2), 3)", "('a' 'b')", "'a', 'b'", "[1]+[2]", "-'a'", "\u0663", "\u00b2", "'\u00e9'", "[\u00a01]", "{'a'}", "{'a': }", "{[1]: 2}", "1 if True else 2", "not True", "''", '""', "[''  , '']",
    "[True, 'x', 1.5, None, (1, 2), {'k': [1]}]", "'a\nb'", "\"it's\"", "'\\ud83d'", "1L", "0777", "[...]", "123456789012345678",
]


def literal(text):
    value = ast.literal_eval(text)
    str(value).encode()  # lone surrogates are errors here
    return json.loads(json.dumps(value)) if not isinstance(value, (set, bytes, complex)) and value is not ... else 1 / 0


literals = [[t, attempt(literal, t)] for t in LITERALS]

# ------------------------------------------------------------------ Jinja2
DOC = {
    "question": " What's \"it\"? ", "choices": ["one", "it's", "thr\u00e9e"], "label": 2, "nested": {"text": ["x", "y"], "label": ["A", "B"], "n": 1}, "f": 0.5, "b": True, "none": None,
    "empty": "", "zero": 0, "nl": "a\nb\n", "digits": "42", "list": [3, 1, 2], "items_": [{"k": "v1", "n": 2}, {"k": "v2", "n": 1}], "html": "<b>&'\"</b>", "big": 10**12, "title": "hello wORLD it's",
}
TEMPLATES = [
    "{{question}}", "{{question.strip()}}", "{{question|trim}}\n", "{{ choices }}", "{{[choices[0], choices[1]]}}", "{{choices[label]}}", "{{choices[-1]}}", "{{choices[7]}}", "{{choices[:2]}}", "{{choices[::-1]}}", "{{choices[1:]}}", "{{nested}}", "{{nested.text}}", "{{nested['label'][0]}}",
    "{{nested.missing}}", "{{missing}}", "{{missing|default('d')}}", "{{ missing is defined }}", "{% if missing %}x{% endif %}", "{{f}} {{b}} {{none}} {{zero}} {{empty}}|", "{{1.0}} {{1e-7}} {{10.5e20}} {{2**10}} {{7//2}} {{7/2}} {{-7//2}} {{-7%3}}", "{{b|string + none|string}}",
    "{{ label + 1 }}", "{{ label ~ '-' ~ f ~ none ~ b ~ choices }}", "{{ 'yes' if b else 'no' }}", "{{ 'x' if zero }}", "{{ choices|length }} {{choices|join(', ')}} {{list|join}}", "{{ list|sort }} {{list|max}} {{list|min}} {{list|sum}} {{list|first}} {{list|last}} {{list|reverse|list}}",
    "{{ question.replace('it', 'this').upper() }}", "{{title.capitalize()}} {{title|capitalize}} {{title.title()}} {{title|title}} {{title.lower()}} {{title.split(' ')}} {{title.split()}}", "{{nl.splitlines()}} {{nl.rstrip()}} {{nl.find('b')}} {{nl.count('\\n')}}", "{{choices.index(\"it's\")}}", "{{list.index(2)}} {{list.index(9)}}", "{{choices|tojson}} {{nested|tojson}} {{html|tojson}}", "{{ 'ABCD'[label] }}", "{{ ['A','B','C'][label] }}",
    "{% for c in choices %}{{loop.index}}. {{c}}\n{% endfor %}Answer:", "{% for c in choices -%}\n  {{ 'ABC'[loop.index0] }}) {{c}}{{ '' if loop.last else '; ' }}\n{%- endfor %}", "{% set x = 3 %}{{x * 2}}", "{% set ns = namespace(n=0) %}{% for i in list %}{% set ns.n = ns.n + i %}{% endfor %}{{ns.n}}",
    "{% macro m(a, b='z') %}[{{a}}{{b}}]{% endmacro %}{{m(1)}}{{m(2, b='q')}}", "{{ items_|map(attribute='k')|list }} {{items_|map(attribute='k')|join('/')}}", "{{ items_|selectattr('n', 'equalto', 2)|list }}", "{{ range(3)|list }}", "{{ {'a': 1} }} {{ [] }}", "{{ digits|int + 1 }} {{ '3.5'|float }} {{ 3.7|int }} {{ 3.14159|round(2) }}",
    "{{ html }} {{ html|e }}", "{{ 'a' in choices }} {{ 'one' in choices }} {{ 'x' not in 'abc' }}", "{{ not b }} {{ b and zero }} {{ zero or 'd' }}", "{# comment #}x{#- c -#} y", "{{ '%s' }}", "{{ question|replace('\"', '') }}", "{{ '{{' }} raw {% raw %}{{x}}{% endraw %}", "line\r\nend\r", "trailing\n\n", "{{ question }}{{ '\\n' }}\t",
    "{{ 'a1b22'|regex_replace('[0-9]+', '#') }}", "{{ 'a1b22'|regex_replace('([0-9])', '<\\\\1>', 1) }}", "{{ nl|regex_replace('^', '> ') }}", "{{ 'aXbX'|regex_replace('X', '', count=1) }}", "{{ choices|tojson }}", "{{ none is none }} {{ f is number }} {{ choices is string }} {{label is even}}", "{{ 'it' in question }}", "{{ label == 2 }} {{ f < 1 }} {{ f != 0.5 }}",
    "{% for k, v in nested.items() %}{{k}}={{v}};{% endfor %}", "{{ nested.keys()|list }}", "{{ nested.get('text') }} {{ nested.get('zz', 'd') }}", "{{ 'a,b'.split(',')[1] }}", "{{ 'x'.join(choices) }}", "{{ title.startswith('hello') }} {{ title.endswith('x') }}", "{{ '  pad '.lstrip() }}|{{ '  pad '.rstrip() }}|", "{{ 'abc'[::-1] }} {{ 'abc'[1:] }} {{ 'abc'[-1] }}", "{{ 'ab' * 3 }}", "{{ [1] + [2] }}", "{{ big }} {{ big * 10 }} {{ big / 3 }}", "{{ 1 == true }} {{ 1.0 }} {{ 100000000000000000000.0 }}",
    "{{ label|string|length }}", "{{ loop }}", "{{ question", "{% if %}", "{{ question.nope() }}", "{{ question | nofilter }}", "{{ none + 1 }}", "{{ 'a' + 1 }}", "{% include 'x' %}", "{{ caller() }}", "{{ dict(a=1) }}", "{{ choices|unique|list }}", "{{ ['b','a']|sort|first }}",
    "{%- if label == 2 -%} two {%- elif label == 1 -%} one {%- else -%} other {%- endif -%}", "{{ choices[0] if choices|length > 1 else 'none' }}", "{{ (question|trim).split(' ')|length }}", "{{ f * 100 }}% {{ '%.2f'|format(f) }} {{ '%d of %s'|format(3, 'x') }}", "{{ list|batch(2)|list }}", "{{ items_|sort(attribute='n')|map(attribute='k')|list }}", "{{ items_[0].k }}{{ items_[1]['n'] }}", "{{ empty|default('d', true) }}", "{{ none|default('d') }}", "{{ 'é'|upper }} {{ 'ß'.upper() }} {{ 'İ'.lower() }}",
]
templates = [[t, attempt(apply_template, t, DOC)] for t in TEMPLATES]

# ------------------------------------------------------------------ filters
filters = []
REPLIES = TEXTS + ["(A)", "The answer: B", "guilty of romance", "it is Paris!", ":\n C", "  padded ", "42", "Guilty"]
CHOICES = {"choices": ["Guilty", "Guilty of Romance", "Paris", " the END ", "a.b*c"]}
for components in [
    [["regex", {}]], [["regex", {"regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1}]], [["regex", {"regex_pattern": r"(a)?(b)?x?", "fallback": " none "}]], [["regex", {"regex_pattern": r"\w+", "group_select": 1}]],
    [["multi_choice_regex", {}]], [["multi_choice_regex", {"regex_pattern": r"\(([A-Z])\)", "ignore_case": True, "ignore_punctuation": True}]],
    [["multi_choice_regex", {"regex_pattern": "zzz|(q)(r)", "group_select": -1, "regexes_to_ignore": ["of ", r"\s"], "fallback": "?"}]],
    [["remove_whitespace", {}]], [["lowercase", {}]], [["uppercase", {}]], [["map", {"mapping_dict": {"(A)": "first", "a": "second"}, "default_value": "other"}]], [["lowercase", {}], ["remove_whitespace", {}], ["regex", {"regex_pattern": "[a-z]+"}]],
]:
    for reply in REPLIES:

        def run():
            class Inst:
                resps = [reply]
                doc = CHOICES
                filtered_resps = {}

            inst = Inst()
            inst.filtered_resps = {}
            build_filter_ensemble("x", components + [["take_first", {}]]).apply([inst])
            return inst.filtered_resps["x"]

        filters.append([components, reply, attempt(run)])
VOTES = [["a", "b", "a"], ["b", "a"], ["x"], ["c", "b", "b", "c"], ["", "", "y"]]
votes = []
for repeats in VOTES:

    class Inst:
        resps = repeats
        doc = CHOICES
        filtered_resps = {}

    inst = Inst()
    build_filter_ensemble("v", [["majority_vote", {}], ["take_first", {}]]).apply([inst])
    build_filter_ensemble("k", [["take_first_k", {"k": 1}]]).apply([inst])
    votes.append([repeats, inst.filtered_resps["v"], inst.filtered_resps["k"]])

# ------------------------------------------------------------------ exact match
PAIRS = [("Paris", "paris"), ("Paris.", "Paris"), ("a1b2", "ab"), ("$1,000.", "1000"), ("x\x00", "x"), ("", ""), ("", "."), ("\u00c9t\u00e9", "\u00e9t\u00e9"), ("the answer #### 7", "#### 7"), (" a", "a"), ("\u0663", ""),
         ("\u201cx\u201d", "x"), ("I\u0307", "i\u0307"), ("\u03a3\u03a3", "\u03c3\u03c2"), ("a\nb", "a b"), ("1.", "1"), ("1.\n", "1\n"), ("same", "same")]
SETTINGS = [{}, {"ignore_case": True}, {"ignore_punctuation": True}, {"ignore_numbers": True}, {"regexes_to_ignore": [",", r"\$", r"(?s).*#### ", r"\.$"]}, {"regexes_to_ignore": [], "ignore_case": True},
            {"regexes_to_ignore": [r"\s+", "[a-z]"], "ignore_case": True, "ignore_punctuation": True, "ignore_numbers": True}]
exact = [[s, a, b, float(metrics.exact_match_hf_evaluate([a], [b], **s)["exact_match"])] for s in SETTINGS for a, b in PAIRS]

# ------------------------------------------------------------------ aggregations
aggregations = []
LISTS = {
    "numbers": [[1.0], [0.0, 1.0], [1.0, 1.0, 1.0], [rnd.random() for _ in range(17)], [-rnd.expovariate(0.2) for _ in range(25)], [0, 1, 1, 0, 1], [float(rnd.random() < 0.3) for _ in range(40)], [-50.0, -1e-3, -700.0]],
    "pairs": [[(0, 1), (1, 1), (1, 0), (0, 0), (1, 1)], [(1, 1)], [(0, 0), (0, 0)], [(1, 0), (0, 1)], [(rnd.randint(0, 1), rnd.randint(0, 1)) for _ in range(30)], [(0, 0), (1, 1), (1, 1)]],
    "classes": [[(rnd.randint(0, 3), rnd.randint(0, 3)) for _ in range(30)], [(-100, 1), (2, 2), (0, 2)], [(0, 2), (2, 0), (2, 2), (0, 0)]],
    "weights": [[(-10.0, 3), (-2.5, 1)], [(-rnd.random() * 100, rnd.randint(1, 50)) for _ in range(20)], [(0.0, 1)]],
}
for name, lists in [("mean", LISTS["numbers"]), ("median", LISTS["numbers"]), ("perplexity", LISTS["numbers"]), ("nanmean", LISTS["numbers"]), ("f1", LISTS["pairs"] + LISTS["classes"]),
                    ("matthews_corrcoef", LISTS["pairs"] + LISTS["classes"]), ("weighted_perplexity", LISTS["weights"]), ("bits_per_byte", LISTS["weights"])]:
    function = metrics.get_aggregation(name) if hasattr(metrics, "get_aggregation") else {
        "mean": metrics.mean, "median": metrics.median, "perplexity": metrics.perplexity, "nanmean": metrics.nanmean, "f1": metrics.f1_score,
        "matthews_corrcoef": metrics.matthews_corrcoef, "weighted_perplexity": metrics.weighted_perplexity, "bits_per_byte": metrics.bits_per_byte}[name]
    for items in lists:
        value = attempt(lambda: float(function(items)))
        stderrs = []
        for iters in (10, 1500 if name not in ("f1", "matthews_corrcoef") else 1000, 2000 if name not in ("f1", "matthews_corrcoef") else 1000):
            stderr = metrics.stderr_for_metric(function, iters)
            ok = attempt(lambda: float(stderr(items))) if stderr and len(items) > 1 and "ok" in value else {"ok": None}
            stderrs.append([iters, ok])
        aggregations.append([name, items, value, stderrs])
brier = []
for n, k in [(1, 2), (5, 4), (12, 3)]:
    items = []
    for _ in range(n):
        p = [rnd.random() for _ in range(k)]
        items.append((rnd.randint(-1, k - 1), [x / sum(p) for x in p]))
    brier.append([items, float(metrics.brier_score(items))])
groups = []
for _ in range(20):
    k = rnd.randint(1, 6)
    sizes = [rnd.randint(2, 500) for _ in range(k)]
    values_ = [rnd.random() for _ in range(k)]
    errors = [rnd.random() / 10 for _ in range(k)]
    groups.append([values_, errors, sizes, float(metrics.aggregate_subtask_metrics(values_, sizes, True)), float(metrics.pooled_sample_stderr(errors, sizes)),
                   float(metrics.aggregate_subtask_metrics(values_, sizes, False)), float(metrics.unweighted_mean_stderr(errors))])

# ------------------------------------------------------------------ rows of JSON files
files = []
with tempfile.TemporaryDirectory() as tmp:
    for i, (name, text) in enumerate([
        ("jsonl", '{"a": 1, "b": "x"}\n{"b": "y", "a": 2}\n'), ("jsonl", '{"a": 1}\n{"b": 2.5}\n\n{"a": 2, "c": null}\n'), ("jsonl", '{"n": 1}\n{"n": 2.5}\n{"n": null}\n'), ("json", '[{"a": [1, 2.5]}, {"a": []}, {"a": null}]'),
        ("jsonl", '{"s": {"x": 1}}\n{"s": {"y": "t", "x": 2}}\n{"s": null}\n'), ("jsonl", '{"l": [{"x": 1}, {"y": 2}]}\n{"l": []}\n'), ("jsonl", '{"u": "\u2028\u0085 \\u00e9 \\ud83d\\ude00"}\n'), ("jsonl", '{"b": true}\n{"b": false}\n{"b": null}\n'),
        ("jsonl", '{"z": 1, "y": 2}\n{"x": 0, "y": 1, "z": 5}\n'), ("jsonl", '{"e": []}\n{"e": []}\n'), ("json", '[{"a": 1, "b": {"c": [{"d": 1}]}}]'), ("jsonl", '{"a": 1e3}\n{"a": 12345678901234}\n'),
        ("jsonl", '{"a": "1"}\r\n{"a": "2"}\r\n'), ("jsonl", '{"s": {"x": 1, "y": 2}}\n{"s": {"y": 3, "x": 4}}\n'), ("jsonl", '{"s": {"q": {"x": 1}, "n": 1}}\n{"s": {"q": {"y": 1}, "n": 1.5}}\n'),
        ("jsonl", '{"s": ["a", 1]}\n{"s": [1]}\n'), ("jsonl", '{"s": {}}\n{"s": {"a": 1}}\n'), ("jsonl", '{"s": {"x": null}}\n{"s": {"x": {"y": 1}}}\n'), ("jsonl", '{"s": [[1],[2.0]]}\n{"s": []}\n'), ("jsonl", '{"s": true}\n{"s": 1}\n'),
        ("jsonl", '{"a":1}\n{"a":18446744073709551615}\n'), ("jsonl", '{"s": "a"}\n{"s": 1}\n'), ("jsonl", '{"a":-0.0, "b": 1e5}\n'),
    ]):
        path = Path(tmp) / f"f{i}.{name}"
        path.write_bytes(text.encode())
        rows = attempt(lambda: [json.dumps(row, ensure_ascii=False, default=str) for row in datasets.load_dataset("json", data_files=str(path), split="train")])
        files.append([name, text, rows])

golden = {"random": randoms, "findall": findall, "sub": subs, "escape": escapes, "values": values, "literals": literals, "doc": DOC, "templates": templates, "filters": filters, "votes": votes, "choices": CHOICES,
          "exact_match": exact, "aggregations": aggregations, "brier": brier, "groups": groups, "files": files}
out = json.dumps(golden, separators=(",", ":"))
(HERE / "harness_python.json").write_text(out + "\n")
print(len(out), {key: len(value) for key, value in golden.items()})
